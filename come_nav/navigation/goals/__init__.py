"""From a goal to the next thing to head for: recognition, route, arrival, recovery."""
