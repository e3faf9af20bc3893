"""Training of learned planners: GNM, ViNT and NoMaD on built-in worlds, bags and folders."""
