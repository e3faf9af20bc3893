"""What was seen: the short-term buffer of frames and poses."""
