"""Protocols of Navigation World Models, on data sets in its layout."""
