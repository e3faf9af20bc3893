"""come_nav: navigation for robots that remember."""

__version__ = "0.1.0"
