"""What one plan is made of: context, objectives, refusals, warm starts."""
