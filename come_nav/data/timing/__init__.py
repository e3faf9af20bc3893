"""Stamps: checks, association between streams, interpolation."""
