"""Which windows are evaluated, and how."""
