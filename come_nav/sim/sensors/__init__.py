"""What real sensors do to the ideal ones: depth, colour, timing, odometry and the camera's place on the robot."""
