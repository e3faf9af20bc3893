"""Rigid-body geometry in SE(2) and SE(3) for numpy arrays and torch tensors alike (REP-103: x forward, y left, z up)."""
