"""Photographed materials and modelled furniture that a user has installed, collected into a pack; none ships here."""
