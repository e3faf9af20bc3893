"""come_nav with Nav2's parts around it: teleoperation, smoothed commands, and a monitor that stops before collisions.

come_nav -> cmd_vel_nav -> velocity_smoother -> cmd_vel_smoothed -> twist_mux (cmd_vel_teleop goes first) -> cmd_vel_mux
-> collision_monitor -> cmd_vel of the base. Needs nav2_velocity_smoother, nav2_collision_monitor,
nav2_lifecycle_manager and twist_mux.

ros2 launch come_nav nav2_parts.launch.py
ros2 launch come_nav nav2_parts.launch.py base_cmd_vel:=cmd_vel_unstamped params_file:=my_robot.yaml
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from come_nav.ros import launching

MANAGED = ("velocity_smoother", "collision_monitor")  # the order in which they begin
PARTS = {  # executable -> package, and its topics; the monitor's are in the file of parameters
    "velocity_smoother": ("nav2_velocity_smoother", {"cmd_vel": "cmd_vel_nav", "cmd_vel_smoothed": "cmd_vel_smoothed"}),
    "twist_mux": ("twist_mux", {"cmd_vel_out": "cmd_vel_mux"}),
    "collision_monitor": ("nav2_collision_monitor", {"cmd_vel": LaunchConfiguration("base_cmd_vel")}),
}


def generate_launch_description() -> LaunchDescription:
    own = [
        DeclareLaunchArgument("base_cmd_vel", default_value="cmd_vel", description="topic: commands to the base"),
        DeclareLaunchArgument(
            "parts_params_file",
            default_value=str(launching.share() / "config" / "nav2_parts.yaml"),
            description="parameters of Nav2's parts",
        ),
    ]
    navigation = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(launching.share() / "launch" / "nav.launch.py")),
        launch_arguments={
            **{name: LaunchConfiguration(name) for name in launching.COMMON},
            "cmd_vel": "cmd_vel_nav",
        }.items(),
    )
    manager = Node(
        package="nav2_lifecycle_manager",
        executable="lifecycle_manager",
        name="lifecycle_manager_parts",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[
            {
                "use_sim_time": LaunchConfiguration("use_sim_time"),
                "autostart": True,
                "node_names": list(MANAGED),
            }
        ],
    )
    return LaunchDescription(
        [
            *launching.common_arguments("ros_nav.yaml", use_sim_time="false"),
            *own,
            navigation,
            *(part(name) for name in PARTS),
            manager,
        ]
    )


def part(executable: str) -> Node:
    """Return one of Nav2's parts, or twist_mux."""
    package, topics = PARTS[executable]
    return Node(
        package=package,
        executable=executable,
        name=executable,
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        respawn=True,
        respawn_delay=2.0,
        remappings=[*launching.TF_REMAPS, *topics.items()],
        parameters=[
            LaunchConfiguration("parts_params_file"),
            {"use_sim_time": LaunchConfiguration("use_sim_time")},
        ],
    )
