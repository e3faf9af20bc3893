"""The navigation nodes of a robot: spatial memory, planner and controller, and if you like the episodic memory.

ros2 launch come_nav nav.launch.py params_file:=my_robot.yaml
ros2 launch come_nav nav.launch.py params_file:=$(ros2 pkg prefix come_nav)/share/come_nav/config/ros_episodic.yaml \\
    episodic_memory:=true
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

NODES = ("spatial_memory", "planner", "controller", "episodic_memory")
WITH_MODEL = ("planner", "episodic_memory")


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory("come_nav"))
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="namespace of all nodes and topics"),
        DeclareLaunchArgument(
            "params_file", default_value=str(share / "config" / "ros_nav.yaml"), description="parameters of the nodes"
        ),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="take time from /clock"),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
        DeclareLaunchArgument("model", default_value="tiny", description="name or folder of the world model"),
        DeclareLaunchArgument("device", default_value="auto", description="auto, cpu, cuda or cuda:N"),
        DeclareLaunchArgument("autostart", default_value="true", description="configure and activate at start"),
        DeclareLaunchArgument(
            "episodic_memory", default_value="false", description="also learn the episode; see config/ros_episodic.yaml"
        ),
    ]
    nodes = [
        Node(
            package="come_nav",
            executable=name,
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            parameters=[
                LaunchConfiguration("params_file"),
                {"use_sim_time": LaunchConfiguration("use_sim_time"), "autostart": LaunchConfiguration("autostart")},
                *(
                    [{"model": LaunchConfiguration("model"), "device": LaunchConfiguration("device")}]
                    if name in WITH_MODEL
                    else []
                ),
            ],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            condition=IfCondition(LaunchConfiguration("episodic_memory")) if name == "episodic_memory" else None,
        )
        for name in NODES
    ]
    return LaunchDescription([*arguments, *nodes])
