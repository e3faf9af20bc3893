"""A simulated robot explores a built-in world and then drives to images: the robot's own loop, without ROS."""
