"""Records what training and evaluation need: camera, depth, calibration, odometry, transforms, plans.

ros2 launch come_nav record.launch.py output:=my_drive
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import LaunchConfiguration

TOPICS = (
    "camera/color/image_raw",
    "camera/color/camera_info",
    "camera/depth/image_raw",
    "odom",
    "/tf",
    "/tf_static",
    "cmd_vel",
    "plan",
    "goal_image",
    "goal_pose",
    "navigation_status",
    "/diagnostics",
)


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument("output", default_value="come_nav_drive", description="folder of the bag"),
        DeclareLaunchArgument("storage", default_value="mcap", description="mcap or sqlite3"),
    ]
    record = ExecuteProcess(
        cmd=[
            "ros2",
            "bag",
            "record",
            "--storage",
            LaunchConfiguration("storage"),
            "--output",
            LaunchConfiguration("output"),
            *TOPICS,
        ],
        output="screen",
    )
    return LaunchDescription([*arguments, record])
