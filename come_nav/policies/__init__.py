"""Learned planners that propose paths from images alone: GNM, ViNT and NoMaD, in their authors' own shapes."""
