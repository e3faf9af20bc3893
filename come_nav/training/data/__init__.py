"""Data modules: banks of latents from worlds and recordings."""
