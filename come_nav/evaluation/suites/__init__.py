"""What is evaluated, row by row: planning, quality, recall, plans with memories, official protocols."""
