"""A TurtleBot 4 with the OAK-D in its pipeline RGBD, depth aligned to colour.

ros2 launch come_nav turtlebot4.launch.py namespace:=robot1
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
    "image": "oakd/rgb/image_raw",
    "camera_info": "oakd/rgb/camera_info",
    "depth": "oakd/stereo/image_raw",
    "odom": "odom",
    "cmd_vel": "cmd_vel",
}


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory("come_nav"))
    file = str(share / "config" / "ros_turtlebot4.yaml")
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
