"""Where an image is relative to what is known."""
