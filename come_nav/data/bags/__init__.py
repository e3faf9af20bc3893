"""Bags of ROS 1 and 2: storage, topics, calibration, transforms, messages."""
