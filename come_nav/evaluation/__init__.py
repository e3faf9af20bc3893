"""Trajectory and picture metrics, the planning protocol, and the report of an evaluation."""
