"""Cameras of recordings: lenses, frames and extrinsics, depth in the pixels of colour."""
