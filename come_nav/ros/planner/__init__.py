"""What the planner node converts: requests, actions, what it publishes and keeps."""
