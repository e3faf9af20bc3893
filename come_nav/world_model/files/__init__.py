"""Model folders on disk: read and written, known by name, and downloaded."""
