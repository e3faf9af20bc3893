"""Pieces that the launch files share. Only a robot has the modules of launch, so each function imports its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TF_REMAPS = (("/tf", "tf"), ("/tf_static", "tf_static"))  # in a namespace tf is the robot's own, as with Nav2
COMMON = {  # argument -> default, and what it is
    "namespace": ("", "namespace of all nodes and topics"),
    "params_file": ("", "parameters of the nodes"),
    "use_sim_time": ("true", "take time from /clock"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "model": ("", "name or folder of the world model; empty = as params_file says, else tiny"),
    "device": ("", "auto, cpu, cuda or cuda:N; empty = as params_file says, else auto"),
    "episodic_memory": ("false", "also learn the episode; see config/ros_episodic.yaml"),
}
TOPICS = {  # argument -> name that the nodes use, and what it is
    "image": ("camera/color/image_raw", "colour images"),
    "camera_info": ("camera/color/camera_info", "calibration of the colour camera"),
    "depth": ("camera/depth/image_raw", "depth images"),
    "depth_info": ("camera/depth/camera_info", "calibration of depth; as it is: beside the depth images"),
    "odom": ("odom", "odometry"),
    "cmd_vel": ("cmd_vel", "commands to the base"),
    "tf_topic": ("/tf", "transforms; /tf itself where robots share one tree of prefixed frames"),
    "tf_static_topic": ("/tf_static", "static transforms"),
}


def share() -> Path:
    """Return the folder that holds config/ and launch/."""
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory("come_nav"))


def common_arguments(params_file: str, use_sim_time: str = "true") -> list[Any]:
    """Declare what all launch files take that start navigation; ``params_file`` is the default's name in config/."""
    from launch.actions import DeclareLaunchArgument

    own = {"params_file": str(share() / "config" / params_file), "use_sim_time": use_sim_time}
    return [
        DeclareLaunchArgument(name, default_value=own.get(name, default), description=text)
        for name, (default, text) in COMMON.items()
    ]


def navigation(*names: str) -> Any:
    """Include nav.launch.py with the arguments ``names``, all declared before."""
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    from launch.substitutions import LaunchConfiguration

    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share() / "launch" / "nav.launch.py")),
        launch_arguments={name: LaunchConfiguration(name) for name in names}.items(),
    )


def robot(params_file: str, defaults: Mapping[str, str]) -> list[Any]:
    """Start what a known robot needs: nav.launch.py with a file in config/ and other ``defaults`` of its arguments."""
    from launch.actions import DeclareLaunchArgument

    file = str(share() / "config" / params_file)
    arguments = [
        DeclareLaunchArgument("params_file", default_value=file, description="parameters of the nodes"),
        *(
            DeclareLaunchArgument(
                name, default_value=value, description=f"as in nav.launch.py; {value or 'empty'} here"
            )
            for name, value in defaults.items()
        ),
    ]
    return [*arguments, navigation("params_file", *defaults)]


def simulator(**parameters: Any) -> Any:
    """Start the node simulator with ``parameters`` beside those of params_file; it makes the time that others take."""
    from launch.substitutions import LaunchConfiguration
    from launch_ros.actions import Node

    return Node(
        package="come_nav",
        executable="simulator",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[
            LaunchConfiguration("params_file"),
            {**parameters, "publish_clock": LaunchConfiguration("use_sim_time")},
        ],
        remappings=list(TF_REMAPS),
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
    )


def robot_state_publisher() -> list[Any]:
    """Publish where the camera of config/robot.urdf sits, unless the argument robot_state_publisher says no."""
    from launch.actions import DeclareLaunchArgument
    from launch.conditions import IfCondition
    from launch.substitutions import LaunchConfiguration
    from launch_ros.actions import Node

    name = "robot_state_publisher"
    node = Node(
        package=name,
        executable=name,
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        remappings=list(TF_REMAPS),
        parameters=[
            {
                "robot_description": (share() / "config" / "robot.urdf").read_text(encoding="utf-8"),
                "use_sim_time": LaunchConfiguration("use_sim_time"),
            }
        ],
        condition=IfCondition(LaunchConfiguration(name)),
    )
    text = "publish where the camera sits on the robot"
    return [DeclareLaunchArgument(name, default_value="true", description=text), node]
