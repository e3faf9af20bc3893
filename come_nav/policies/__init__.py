"""Learned planners that propose paths from images alone: GNM, ViNT and NoMaD, as their authors' checkpoints have them."""
