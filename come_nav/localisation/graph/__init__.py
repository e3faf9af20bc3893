"""What the pose graph is solved with."""
