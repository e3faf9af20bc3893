"""Habitat as the robot: photo-realistic scans of buildings. Needs habitat-sim (conda).

ros2 launch come_nav habitat.launch.py scene:=apartment_1.glb
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory("come_nav"))
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="namespace of all nodes and topics"),
        DeclareLaunchArgument(
            "params_file", default_value=str(share / "config" / "ros_sim.yaml"), description="parameters of the nodes"
        ),
        DeclareLaunchArgument(
            "robot_state_publisher", default_value="true", description="publish where the camera sits on the robot"
        ),
        DeclareLaunchArgument("use_sim_time", default_value="true", description="take time from /clock"),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
        DeclareLaunchArgument("model", default_value="tiny", description="name or folder of the world model"),
        DeclareLaunchArgument("device", default_value="auto", description="auto, cpu, cuda or cuda:N"),
        DeclareLaunchArgument(
            "episodic_memory", default_value="false", description="also learn the episode; see config/ros_episodic.yaml"
        ),
        DeclareLaunchArgument("scene", description="scene file (.glb or .ply)"),
        DeclareLaunchArgument("habitat_python", default_value="python3", description="the Python that has habitat-sim"),
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
    simulator = Node(
        package="come_nav",
        executable="simulator",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[
            LaunchConfiguration("params_file"),
            {
                "backend": "habitat",
                "scene": LaunchConfiguration("scene"),
                "habitat_python": LaunchConfiguration("habitat_python"),
                "publish_clock": LaunchConfiguration("use_sim_time"),
            },
        ],
        remappings=[("/tf", "tf"), ("/tf_static", "tf_static")],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
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
    return LaunchDescription([*arguments, navigation, simulator, description])
