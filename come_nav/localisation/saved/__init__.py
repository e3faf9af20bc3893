"""Key frames with features as plain arrays, for the disk."""
