"""What a robot remembers of an episode, and which experts use it."""
