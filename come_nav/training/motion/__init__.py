"""Training of the learned prior of motion in built-in worlds."""
