"""Recordings in the folders of TUM RGB-D, KITTI odometry and EuRoC MAV (ASL)."""
