"""The episodic memory: frames of the episode and the adapters trained on them."""
