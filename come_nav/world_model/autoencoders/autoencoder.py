"""Images to latents and back: diffusers' AutoencoderKL or a lapped transform, with scaled latents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from come_nav.core.checks import check_choice, check_range, check_shape
from come_nav.core.errors import ConfigError
from come_nav.world_model.autoencoders.lapped import LappedTransform

if TYPE_CHECKING:
    from collections.abc import Iterable

NWM_SCALING_FACTOR = 0.18215
KINDS = ("kl", "lapped")
LAPPED_LOGVAR = -30.0  # a lapped transform is exact: its posterior has no spread


@dataclass(frozen=True)
class AutoencoderSettings:
    """Shape of an autoencoder; the defaults are a small convolutional one (64 px to 4x8x8, 1.0 M parameters).

    Attributes:
        kind: "kl" is diffusers' AutoencoderKL (NWM); "lapped" a linear transform with overlapping windows, which
            a model that is trained in minutes can afford (see :mod:`come_nav.world_model.autoencoders.lapped`).
        image_size: rows and columns of the images, pixels.
        latent_channels: C.
        block_size: pixels per latent cell along one axis; lapped only.
        block_out_channels: widths from the image side inwards; n widths shrink the image by 2^(n-1). This and the
            following three are for "kl" only.
        layers_per_block: residual blocks per width.
        norm_num_groups: groups of every group normalisation; must divide every width.
        mid_block_attention: self-attention in the innermost block.
        scaling_factor: latents are multiplied by it after encoding, so that they have unit spread.
    """

    image_size: int = 64
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (32, 32, 64, 64)
    layers_per_block: int = 1
    norm_num_groups: int = 16
    mid_block_attention: bool = True
    scaling_factor: float = 1.0
    kind: Literal["kl", "lapped"] = "kl"
    block_size: int = 8

    def __post_init__(self) -> None:
        check_choice("autoencoder.kind", self.kind, KINDS)
        check_range("autoencoder.block_size", self.block_size, 2)
        check_range("autoencoder.latent_channels", self.latent_channels, 1)
        check_range("autoencoder.layers_per_block", self.layers_per_block, 1)
        check_range("autoencoder.scaling_factor", self.scaling_factor, 0.0, open_low=True)
        if not self.block_out_channels or any(width % self.norm_num_groups for width in self.block_out_channels):
            raise ConfigError(
                f"autoencoder.block_out_channels must be multiples of norm_num_groups {self.norm_num_groups}, "
                f"got {list(self.block_out_channels)}"
            )
        if self.image_size < self.downsampling or self.image_size % self.downsampling:
            raise ConfigError(
                f"autoencoder.image_size must be a multiple of {self.downsampling}, got {self.image_size}"
            )

    @property
    def downsampling(self) -> int:
        """Pixels per latent cell along one axis."""
        if self.kind == "lapped":
            return self.block_size
        return int(2 ** (len(self.block_out_channels) - 1))

    @property
    def latent_size(self) -> int:
        """Rows and columns of the latent grid."""
        return self.image_size // self.downsampling

    @classmethod
    def stable_diffusion(cls) -> AutoencoderSettings:
        """Return the shape of stabilityai/sd-vae-ft-ema at NWM's 224 px."""
        return cls(224, 4, (128, 256, 512, 512), 2, 32, True, NWM_SCALING_FACTOR)


class ImageAutoencoder(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] to scaled latents (B, C, h, w) and back."""

    def __init__(self, settings: AutoencoderSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or AutoencoderSettings()
        if self.settings.kind == "lapped":
            self.lapped = LappedTransform(self.settings.latent_channels, self.settings.block_size)
        else:
            self.kl: Any = _autoencoder_kl(self.settings)

    @property
    def network(self) -> nn.Module:
        """The part with the weights, whose tensor names a checkpoint holds."""
        return self.lapped if self.settings.kind == "lapped" else self.kl

    @property
    def scaling_factor(self) -> float:
        """Factor from raw to scaled latents."""
        return self.settings.scaling_factor

    def set_scaling_factor(self, scaling_factor: float) -> None:
        """Set the factor from raw to scaled latents."""
        self.settings = replace(self.settings, scaling_factor=scaling_factor)

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (B, C, h, w) of the unscaled posterior (for training)."""
        size = self.settings.image_size
        check_shape("images", images, f"B 3 {size} {size}")
        if self.settings.kind == "lapped":
            mean = self.lapped.encode(images)
            return mean, torch.full_like(mean, LAPPED_LOGVAR)
        posterior = self.kl.encode(images).latent_dist
        return posterior.mean, posterior.logvar

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return scaled latents (B, C, h, w): the posterior's mode, or a sample where a generator is given."""
        mean, logvar = self.moments(images)
        if generator is not None:
            noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)
            mean = mean + (0.5 * logvar).exp() * noise
        return mean * self.scaling_factor

    def decode_raw(self, latents: Tensor) -> Tensor:
        """Return images (B, 3, H, W) of scaled latents, not clipped (for training)."""
        if self.settings.kind == "lapped":
            return self.lapped.decode(latents / self.scaling_factor)
        images: Tensor = self.kl.decode(latents / self.scaling_factor).sample
        return images

    def decode(self, latents: Tensor) -> Tensor:
        """Return images (B, 3, H, W) in [-1, 1] of scaled latents (B, C, h, w)."""
        return self.decode_raw(latents).clamp(-1.0, 1.0)

    @torch.no_grad()
    def fit_scaling_factor(self, batches: Iterable[Tensor]) -> float:
        """Set the scaling factor to 1 / standard deviation of the latents of image batches; return it."""
        total, total_squares, count = 0.0, 0.0, 0
        for images in batches:
            mean, logvar = (part.double() for part in self.moments(images))
            total += float(mean.sum())
            total_squares += float((mean.square() + logvar.exp()).sum())
            count += mean.numel()
        if count == 0:
            raise ConfigError("autoencoder.scaling_factor cannot be fitted: no images were given")
        variance = total_squares / count - (total / count) ** 2
        self.set_scaling_factor(variance**-0.5)
        return self.scaling_factor


def _autoencoder_kl(settings: AutoencoderSettings) -> nn.Module:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(settings.block_out_channels)
    network: nn.Module = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=settings.block_out_channels,
        layers_per_block=settings.layers_per_block,
        latent_channels=settings.latent_channels,
        norm_num_groups=settings.norm_num_groups,
        sample_size=settings.image_size,
        scaling_factor=settings.scaling_factor,
        mid_block_add_attention=settings.mid_block_attention,
    )
    return network
