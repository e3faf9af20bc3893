"""A lapped block transform: the small model's autoencoder, linear and trained, with filters that overlap.

Each latent cell is a weighted sum of a window twice its own size, and back (lapped transforms: Malvar 1992). The
filters start as the principal components of image blocks, which is the best linear code without overlap, and are then
trained with the windows grown. It costs about one thousandth of a convolutional autoencoder of the same latent size;
that is why hundreds of rendered candidate views can be encoded within a plan.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from come_nav.core.errors import ConfigError


class LappedTransform(nn.Module):
    """Images (B, 3, H, W) to latents (B, C, H / block, W / block) and back."""

    def __init__(self, latent_channels: int, block_size: int) -> None:
        super().__init__()
        if block_size % 2 or latent_channels > 3 * block_size**2:
            raise ConfigError(
                f"a lapped transform needs an even block_size and at most 3 * block_size^2 channels, got block_size "
                f"{block_size} and {latent_channels} channels"
            )
        window, margin = 2 * block_size, block_size // 2
        self.block_size = block_size
        self.analysis = nn.Conv2d(3, latent_channels, window, stride=block_size, padding=margin)
        self.synthesis = nn.ConvTranspose2d(latent_channels, 3, window, stride=block_size, padding=margin)

    def encode(self, images: Tensor) -> Tensor:
        """Return unscaled latents (B, C, h, w)."""
        latents: Tensor = self.analysis(images)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Return images (B, 3, H, W), not clipped."""
        images: Tensor = self.synthesis(latents)
        return images

    @torch.no_grad()
    def start_from_components(self, images: Tensor, flattening: float = 0.5) -> None:
        """Set the filters to the principal components of the blocks of ``images`` (N, 3, H, W) in [-1, 1].

        Args:
            images: at least as many blocks as 3 * block_size^2.
            flattening: 0 keeps each component's own spread, as an orthonormal transform does; 1 gives all spread one.
                Between them, coarse components count more than fine ones in the diffusion loss, yet not alone.
        """
        block = self.block_size
        vectors = unfold(images, block, stride=block).transpose(1, 2).flatten(0, 1).double()
        colour = vectors.unflatten(1, (3, -1)).mean((0, 2))
        mean = colour.repeat_interleave(block**2)
        centred = vectors - mean
        basis, variance, _ = torch.linalg.svd(centred.T @ centred / len(vectors))
        channels = self.analysis.out_channels
        basis, spread = basis[:, :channels], variance[:channels].sqrt().clamp_min(1e-4)
        gain = spread.pow(-flattening)
        inner = slice(block // 2, block // 2 + block)
        for layer, scaled in ((self.analysis, basis * gain), (self.synthesis, basis / gain)):
            layer.weight.zero_()
            layer.weight[:, :, inner, inner] = scaled.T.reshape(channels, 3, block, block).float()
        self.analysis.bias.copy_(-(mean @ (basis * gain)).float())  # type: ignore[union-attr]
        self.synthesis.bias.copy_(colour.float())  # type: ignore[union-attr]
