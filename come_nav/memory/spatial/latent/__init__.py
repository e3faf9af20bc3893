"""The spatial memory of latents: how they are lifted, and how they are read out."""
