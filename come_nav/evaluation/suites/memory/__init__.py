"""Suites of recall: what memories are worth, on places seen long before."""
