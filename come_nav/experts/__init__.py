"""Denoisers, one per memory: the base expert is NWM's CDiT."""
