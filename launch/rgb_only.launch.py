"""A robot with one colour camera and no depth: it drives without seeing obstacles, so it needs a bumper or a monitor.

ros2 launch come_nav rgb_only.launch.py image:=image_raw camera_info:=camera_info
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

# of nav.launch.py; its other arguments (use_sim_time, respawn, model, ...) may be given as well
DEFAULTS = {
    "namespace": "",
    "spatial_memory": "false",
    "image": "image_raw",
    "camera_info": "camera_info",
    "odom": "odom",
    "cmd_vel": "cmd_vel",
}


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory("come_nav"))
    file = str(share / "config" / "ros_rgb_only.yaml")
    arguments = [
        DeclareLaunchArgument("params_file", default_value=file, description="parameters of the nodes"),
        *(
            DeclareLaunchArgument(
                name, default_value=value, description=f"as in nav.launch.py; {value or 'empty'} here"
            )
            for name, value in DEFAULTS.items()
        ),
    ]
    navigation = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share / "launch" / "nav.launch.py")),
        launch_arguments={name: LaunchConfiguration(name) for name in ("params_file", *DEFAULTS)}.items(),
    )
    return LaunchDescription([*arguments, navigation])
