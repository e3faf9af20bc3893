"""Models of whole sequences: their folder, what they remember and what they imagine."""
