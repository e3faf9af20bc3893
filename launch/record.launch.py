"""Records what training and evaluation need: camera, depth, calibration, odometry, transforms, plans.

Topics are recorded as they are named: compressed images by .../compressed and .../compressedDepth, transforms of a
namespace's own by tf_topic:=tf tf_static_topic:=tf_static.

ros2 launch come_nav record.launch.py output:=my_drive
ros2 launch come_nav record.launch.py output:=my_drive namespace:=robot1 image:=oakd/rgb/image_raw/compressed \\
    camera_info:=oakd/rgb/camera_info depth:=oakd/stereo/image_raw depth_info:=oakd/stereo/camera_info
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration

from come_nav.ros import launching

OWN = ("plan", "goal_image", "goal_pose", "navigation_status", "/diagnostics")


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument("output", default_value="come_nav_drive", description="folder of the bag"),
        DeclareLaunchArgument("storage", default_value="mcap", description="mcap or sqlite3"),
        DeclareLaunchArgument("namespace", default_value="", description="of topics that do not begin with /"),
        *(
            DeclareLaunchArgument(name, default_value=topic, description=f"topic: {text}")
            for name, (topic, text) in launching.TOPICS.items()
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=recorder)])


def recorder(context):
    """Return the process that records the topics of the arguments, in their namespace."""
    value = {
        name: LaunchConfiguration(name).perform(context)
        for name in ("output", "storage", "namespace", *launching.TOPICS)
    }
    space = "/" + value["namespace"].strip("/")
    topics = [value[name] for name in launching.TOPICS] + list(OWN)
    named = [topic if topic.startswith("/") else f"{space.rstrip('/')}/{topic}" for topic in topics]
    command = ["ros2", "bag", "record", "--storage", value["storage"], "--output", value["output"], *named]
    return [ExecuteProcess(cmd=command, output="screen")]
