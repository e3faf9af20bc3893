"""A recorded drive through the memory and planner nodes, at its own pace; nothing drives.

ros2 launch come_nav replay_bag.launch.py bag:=/path/to/bag
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory("come_nav"))
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="namespace of all nodes and topics"),
        DeclareLaunchArgument(
            "params_file", default_value=str(share / "config" / "ros_nav.yaml"), description="parameters of the nodes"
        ),
        DeclareLaunchArgument("tf_topic", default_value="/tf", description="where the bag plays transforms"),
        DeclareLaunchArgument("tf_static_topic", default_value="/tf_static", description="and static ones"),
        DeclareLaunchArgument("use_sim_time", default_value="true", description="take time from /clock"),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
        DeclareLaunchArgument("model", default_value="tiny", description="name or folder of the world model"),
        DeclareLaunchArgument("device", default_value="auto", description="auto, cpu, cuda or cuda:N"),
        DeclareLaunchArgument(
            "episodic_memory", default_value="false", description="also learn the episode; see config/ros_episodic.yaml"
        ),
        DeclareLaunchArgument("bag", description="rosbag2 folder, .mcap or .db3"),
        DeclareLaunchArgument("rate", default_value="1.0", description="recorded seconds per second"),
    ]
    navigation = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share / "launch" / "nav.launch.py")),
        launch_arguments={
            name: LaunchConfiguration(name)
            for name in (
                "namespace",
                "params_file",
                "use_sim_time",
                "log_level",
                "model",
                "device",
                "episodic_memory",
                "tf_topic",
                "tf_static_topic",
            )
        }.items(),
    )
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
    return LaunchDescription([*arguments, navigation, player])
