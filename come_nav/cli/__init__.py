"""The command line: one module per verb, heavy libraries loaded only when a verb runs."""
