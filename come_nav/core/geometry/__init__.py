"""Rigid-body geometry in SE(2) and SE(3) for numpy arrays and torch tensors alike (x forward, y left, z up)."""
