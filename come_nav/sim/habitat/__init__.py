"""Habitat behind the simulator protocol."""
