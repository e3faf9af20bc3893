"""Data sets in the layout of NWM and GNM."""
