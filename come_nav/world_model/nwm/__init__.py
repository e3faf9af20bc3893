"""Official Navigation World Models: checkpoints and rollouts."""
