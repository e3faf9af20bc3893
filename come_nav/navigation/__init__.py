"""The whole robot without ROS."""
