"""Trajectory and image metrics, the planning protocol, and the report of an evaluation."""
