"""What composes beyond fixed weights: weights and gains fitted to what came true, and a likelihood without training."""
