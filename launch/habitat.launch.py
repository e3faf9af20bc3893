"""Habitat as the robot: photo-realistic scans of buildings. Needs habitat-sim (conda).

ros2 launch come_nav habitat.launch.py scene:=apartment_1.glb
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration

from come_nav.ros import launching


def generate_launch_description() -> LaunchDescription:
    own = [
        DeclareLaunchArgument("scene", description="scene file (.glb or .ply)"),
        DeclareLaunchArgument("habitat_python", default_value="python3", description="the Python that has habitat-sim"),
    ]
    simulator = launching.simulator(
        backend="habitat", scene=LaunchConfiguration("scene"), habitat_python=LaunchConfiguration("habitat_python")
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
