"""A quick look whether a loaded model works at all."""

from __future__ import annotations

import torch

from come_nav.core.errors import CheckpointError
from come_nav.world_model.model import DiffusionWorldModel


def probe(model: DiffusionWorldModel) -> None:
    """Encode grey images, predict one view one step ahead and decode it; raise CheckpointError unless all is finite."""
    grey = torch.zeros(model.context_frames, 3, model.image_size, model.image_size)
    context = model.context_from_images(grey, torch.zeros(model.context_frames, 3))
    generator = torch.Generator().manual_seed(0)
    latents = model.predict(context, torch.zeros(1, 3), torch.ones(1), generator)
    image = model.decode(latents)
    for name, tensor in (("encoder", context.latents), ("denoiser", latents), ("decoder", image)):
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"the model's {name} returns NaN or infinite values for a grey image; train it again")
