"""A RealSense D435i (realsense2_camera, align_depth.enable:=true) on a robot that Nav2 drives otherwise.

Commands go to cmd_vel_nav: through the robot's velocity smoother and collision monitor, as those of Nav2.

ros2 launch come_nav realsense.launch.py
"""

from launch import LaunchDescription

from come_nav.ros import launching

# of nav.launch.py; its other arguments (use_sim_time, respawn, model, ...) may be given as well
DEFAULTS = {
    "namespace": "",
    "image": "camera/camera/color/image_raw",
    "camera_info": "camera/camera/color/camera_info",
    "depth": "camera/camera/aligned_depth_to_color/image_raw",
    "odom": "odom",
    "cmd_vel": "cmd_vel_nav",
}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(launching.robot("ros_realsense.yaml", DEFAULTS))
