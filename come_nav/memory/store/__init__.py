"""Memory on disk: versions that are written atomically."""
