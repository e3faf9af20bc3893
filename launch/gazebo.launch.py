"""The robot of config/gazebo in its world in Gazebo, bridged to ROS, with the navigation nodes.

In a namespace, only the ROS side has it: one robot for each Gazebo.

ros2 launch come_nav gazebo.launch.py        (needs ros_gz_sim and ros_gz_bridge)
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import AppendEnvironmentVariable, DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PythonExpression
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
        DeclareLaunchArgument(
            "robot_state_publisher", default_value="true", description="publish where the camera sits on the robot"
        ),
        DeclareLaunchArgument("headless", default_value="false", description="true: no window, rendering off screen"),
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
    off_screen = PythonExpression(
        ["'-s --headless-rendering ' if '", LaunchConfiguration("headless"), "'.lower() == 'true' else ''"]
    )
    gazebo = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            str(Path(get_package_share_directory("ros_gz_sim")) / "launch" / "gz_sim.launch.py")
        ),
        launch_arguments={"gz_args": ["-r ", off_screen, LaunchConfiguration("world")]}.items(),
    )
    bridge = Node(
        package="ros_gz_bridge",
        executable="parameter_bridge",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[
            {
                "config_file": str(share / "config" / "gazebo" / "bridge.yaml"),
                "use_sim_time": LaunchConfiguration("use_sim_time"),
            }
        ],
    )
    description = Node(
        package="robot_state_publisher",
        executable="robot_state_publisher",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        remappings=[("/tf", "tf"), ("/tf_static", "tf_static")],
        parameters=[
            {
                "robot_description": (share / "config" / "robot.urdf").read_text(encoding="utf-8"),
                "use_sim_time": LaunchConfiguration("use_sim_time"),
            }
        ],
        condition=IfCondition(LaunchConfiguration("robot_state_publisher")),
    )
    # the world includes robot.sdf, which lies beside it
    found_there = [
        AppendEnvironmentVariable(name, str(share / "config" / "gazebo"))
        for name in ("GZ_SIM_RESOURCE_PATH", "SDF_PATH")
    ]
    return LaunchDescription([*arguments, *found_there, navigation, gazebo, bridge, description])
