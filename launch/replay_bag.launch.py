"""A recorded drive through the memory and planner nodes, at its own pace; nothing drives.

ros2 launch come_nav replay_bag.launch.py bag:=/path/to/bag
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from come_nav.ros import launching


def generate_launch_description() -> LaunchDescription:
    own = [
        DeclareLaunchArgument("tf_topic", default_value="/tf", description="where the bag plays transforms"),
        DeclareLaunchArgument("tf_static_topic", default_value="/tf_static", description="and static ones"),
        DeclareLaunchArgument("bag", description="rosbag2 folder, .mcap or .db3"),
        DeclareLaunchArgument("rate", default_value="1.0", description="recorded seconds per second"),
    ]
    navigation = launching.navigation(*launching.COMMON, "tf_topic", "tf_static_topic")
    player = Node(
        package="come_nav",
        executable="bag_player",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[
            {
                "bag": LaunchConfiguration("bag"),
                "rate": LaunchConfiguration("rate"),
                "publish_clock": LaunchConfiguration("use_sim_time"),
            }
        ],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
    )
    return LaunchDescription([*launching.common_arguments("ros_nav.yaml"), *own, navigation, player])
