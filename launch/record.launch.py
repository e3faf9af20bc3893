"""Records what training and evaluation need: camera, depth, calibration, odometry, transforms, plans.

ros2 launch come_nav record.launch.py output:=my_drive
ros2 launch come_nav record.launch.py output:=my_drive namespace:=robot1 image:=oakd/rgb/image_raw/compressed \\
    camera_info:=oakd/rgb/camera_info depth:=oakd/stereo/image_raw depth_info:=oakd/stereo/camera_info
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration

TOPICS = {  # argument -> topic, and what it is
    "image": ("camera/color/image_raw", "colour images; .../compressed for compressed ones"),
    "camera_info": ("camera/color/camera_info", "calibration of the colour camera"),
    "depth": ("camera/depth/image_raw", "depth images; .../compressedDepth for compressed ones"),
    "depth_info": ("camera/depth/camera_info", "calibration of depth"),
    "odom": ("odom", "odometry"),
    "cmd_vel": ("cmd_vel", "commands to the base"),
    "tf_topic": ("/tf", "transforms; tf with a namespace's own"),
    "tf_static_topic": ("/tf_static", "static transforms; tf_static with a namespace's own"),
}
OWN = ("plan", "goal_image", "goal_pose", "navigation_status", "/diagnostics")


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument("output", default_value="come_nav_drive", description="folder of the bag"),
        DeclareLaunchArgument("storage", default_value="mcap", description="mcap or sqlite3"),
        DeclareLaunchArgument("namespace", default_value="", description="of topics that do not begin with /"),
        *(
            DeclareLaunchArgument(name, default_value=topic, description=f"topic: {text}")
            for name, (topic, text) in TOPICS.items()
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=recorder)])


def recorder(context):
    """Return the process that records the topics of the arguments, in their namespace."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ("output", "storage", "namespace", *TOPICS)}
    space = "/" + value["namespace"].strip("/")
    topics = [value[name] for name in TOPICS] + list(OWN)
    named = [topic if topic.startswith("/") else f"{space.rstrip('/')}/{topic}" for topic in topics]
    command = ["ros2", "bag", "record", "--storage", value["storage"], "--output", value["output"], *named]
    return [ExecuteProcess(cmd=command, output="screen")]
