"""ROS 2 nodes: the only room that knows rclpy. Each node is a thin adapter around the rooms that do the work."""
