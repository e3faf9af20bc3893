"""The diffusion world model: autoencoder, noise schedule, sampler, composition of experts, rollout, checkpoints."""
