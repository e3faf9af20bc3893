"""The navigation nodes of a robot: spatial memory, planner and controller.

ros2 launch come_nav nav.launch.py params_file:=my_robot.yaml
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

NODES = ("spatial_memory", "planner", "controller")


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
                    if name == "planner"
                    else []
                ),
            ],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        )
        for name in NODES
    ]
    return LaunchDescription([*arguments, *nodes])
