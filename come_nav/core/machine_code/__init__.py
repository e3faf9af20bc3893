"""Compiled loops as libraries that are linked once, so that processes run them without the compiler in their memory."""
