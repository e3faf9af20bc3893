"""A robot with one colour camera and no depth: it drives without seeing obstacles, so it needs a bumper or a monitor.

ros2 launch come_nav rgb_only.launch.py image:=image_raw camera_info:=camera_info
"""

from launch import LaunchDescription

from come_nav.ros import launching

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
    return LaunchDescription(launching.robot("ros_rgb_only.yaml", DEFAULTS))
