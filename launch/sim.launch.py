"""The built-in simulator with the navigation nodes: a robot that needs no other program.

ros2 launch come_nav sim.launch.py world_seed:=20003
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration

from come_nav.ros import launching


def generate_launch_description() -> LaunchDescription:
    own = [
        DeclareLaunchArgument(
            "world_seed", default_value="20000", description="built-in world; 20000-20099 are for tests"
        ),
        DeclareLaunchArgument(
            "set_of_worlds", default_value="built-in", description="how it is drawn, e.g. furnished (come-nav assets)"
        ),
        DeclareLaunchArgument("real_time_factor", default_value="1.0", description="simulated seconds per second"),
    ]
    simulator = launching.simulator(
        world_seed=LaunchConfiguration("world_seed"),
        set_of_worlds=LaunchConfiguration("set_of_worlds"),
        real_time_factor=LaunchConfiguration("real_time_factor"),
    )
    return LaunchDescription(
        [
            *launching.common_arguments("ros_sim.yaml"),
            *own,
            launching.navigation(*launching.COMMON),
            simulator,
            *launching.robot_state_publisher(),
        ]
    )
