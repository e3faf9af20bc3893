"""Weights of the experts that follow how reliable each memory is now."""
