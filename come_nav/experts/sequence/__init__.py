"""A denoiser of whole sequences of frames, causal in time: state space, sliding window or full attention."""
