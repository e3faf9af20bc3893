"""Where the robot is in its own memory, and where images were taken."""
