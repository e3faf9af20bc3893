"""A TurtleBot 4 with the OAK-D in its pipeline RGBD, depth aligned to colour.

ros2 launch come_nav turtlebot4.launch.py namespace:=robot1
"""

from launch import LaunchDescription

from come_nav.ros import launching

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
    return LaunchDescription(launching.robot("ros_turtlebot4.yaml", DEFAULTS))
