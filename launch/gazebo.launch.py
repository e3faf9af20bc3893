"""The robot of config/gazebo in its world in Gazebo, bridged to ROS, with the navigation nodes.

In a namespace, only the ROS side has it: one robot for each Gazebo.

ros2 launch come_nav gazebo.launch.py        (needs ros_gz_sim and ros_gz_bridge)
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import AppendEnvironmentVariable, DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PythonExpression
from launch_ros.actions import Node

from come_nav.ros import launching


def generate_launch_description() -> LaunchDescription:
    share = launching.share()
    own = [
        DeclareLaunchArgument("headless", default_value="false", description="true: no window, rendering off screen"),
        DeclareLaunchArgument(
            "world", default_value=str(share / "config" / "gazebo" / "rooms.sdf"), description="world file"
        ),
    ]
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
    # the world includes robot.sdf, which lies beside it
    found_there = [
        AppendEnvironmentVariable(name, str(share / "config" / "gazebo"))
        for name in ("GZ_SIM_RESOURCE_PATH", "SDF_PATH")
    ]
    return LaunchDescription(
        [
            *launching.common_arguments("ros_gazebo.yaml"),
            *own,
            *found_there,
            launching.navigation(*launching.COMMON),
            gazebo,
            bridge,
            *launching.robot_state_publisher(),
        ]
    )
