"""The planner: shapes of candidate paths, what they cost, how they are searched and how a path is followed."""
