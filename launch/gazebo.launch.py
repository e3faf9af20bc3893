"""The robot of config/gazebo in its world in Gazebo, bridged to ROS, with the navigation nodes.

ros2 launch come_nav gazebo.launch.py        (needs ros_gz_sim and ros_gz_bridge)
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
            "params_file",
            default_value=str(share / "config" / "ros_gazebo.yaml"),
            description="parameters of the nodes",
        ),
        DeclareLaunchArgument("use_sim_time", default_value="true", description="take time from /clock"),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
        DeclareLaunchArgument("model", default_value="tiny", description="name or folder of the world model"),
        DeclareLaunchArgument("device", default_value="auto", description="auto, cpu, cuda or cuda:N"),
        DeclareLaunchArgument(
            "episodic_memory", default_value="false", description="also learn the episode; see config/ros_episodic.yaml"
        ),
        DeclareLaunchArgument(
            "world", default_value=str(share / "config" / "gazebo" / "rooms.sdf"), description="world file"
        ),
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
            )
        }.items(),
    )
    gazebo = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            str(Path(get_package_share_directory("ros_gz_sim")) / "launch" / "gz_sim.launch.py")
        ),
        launch_arguments={"gz_args": ["-r ", LaunchConfiguration("world")]}.items(),
    )
    bridge = Node(
        package="ros_gz_bridge",
        executable="parameter_bridge",
        output="screen",
        parameters=[
            {
                "config_file": str(share / "config" / "gazebo" / "bridge.yaml"),
                "use_sim_time": LaunchConfiguration("use_sim_time"),
            }
        ],
    )
    return LaunchDescription([*arguments, navigation, gazebo, bridge])
