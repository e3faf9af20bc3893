"""A RealSense D435i (realsense2_camera, align_depth.enable:=true) on a robot that Nav2 drives otherwise.

Commands go to cmd_vel_nav: through the robot's velocity smoother and collision monitor, as those of Nav2.

ros2 launch come_nav realsense.launch.py
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

# of nav.launch.py; its other arguments (use_sim_time, respawn, model, ...) may be given as well
DEFAULTS = {
    "namespace": "",
    "image": "camera/camera/color/image_raw",
    "camera_info": "camera/camera/color/camera_info",
    "depth": "camera/camera/aligned_depth_to_color/image_raw",
    "odom": "odom",
    "cmd_vel": "cmd_vel_nav",
}


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory("come_nav"))
    file = str(share / "config" / "ros_realsense.yaml")
    arguments = [
        DeclareLaunchArgument("params_file", default_value=file, description="parameters of the nodes"),
        *(
            DeclareLaunchArgument(
                name, default_value=value, description=f"as in nav.launch.py; {value or 'empty'} here"
            )
            for name, value in DEFAULTS.items()
        ),
    ]
    navigation = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share / "launch" / "nav.launch.py")),
        launch_arguments={name: LaunchConfiguration(name) for name in ("params_file", *DEFAULTS)}.items(),
    )
    return LaunchDescription([*arguments, navigation])
