"""Several images at once: one registered to all of them, points that they see from different poses."""
