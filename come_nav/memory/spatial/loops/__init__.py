"""What renders a cloud quickly: loops that are compiled, kernels for GPUs."""
