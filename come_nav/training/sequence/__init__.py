"""Training of sequence denoisers: walks, batches, task, run."""
