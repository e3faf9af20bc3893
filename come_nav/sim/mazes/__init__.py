"""Mazes in the manner of Memory Maze: worlds that only memory can tell apart, and walks through them."""
