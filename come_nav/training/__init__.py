"""Training: Lightning modules, data, callbacks and the resumable run."""
