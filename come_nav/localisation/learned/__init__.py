"""What networks of a user's own find in images."""
