"""A learned prior of motion: where a robot that sees this, and moves so, will be."""
