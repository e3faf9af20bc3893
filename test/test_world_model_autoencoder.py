"""The image autoencoder: shapes, scaling, modes and samples, and what its settings refuse."""

from __future__ import annotations

import pytest
import torch

from come_nav.core.errors import ConfigError, ShapeError
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings, ImageAutoencoder

SMALL = AutoencoderSettings(image_size=16, block_out_channels=(8, 8, 8), norm_num_groups=4)


@pytest.fixture(scope="module")
def autoencoder() -> ImageAutoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ImageAutoencoder(SMALL).eval()


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_built_in_shape_is_small_enough_to_ship() -> None:
    settings = AutoencoderSettings()
    assert (settings.downsampling, settings.latent_size) == (8, 8)
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in ImageAutoencoder(settings).parameters())
    assert count < 1_200_000


def test_stable_diffusion_shape_has_the_published_size() -> None:
    settings = AutoencoderSettings.stable_diffusion()
    assert (settings.latent_size, settings.scaling_factor) == (28, 0.18215)
    with torch.device("meta"):
        state = ImageAutoencoder(settings).kl.state_dict()
    assert len(state) == 248
    assert sum(tensor.numel() for tensor in state.values()) == pytest.approx(83.65e6, abs=5e3)


@torch.no_grad()
def test_images_to_latents_and_back(autoencoder: ImageAutoencoder) -> None:
    latents = autoencoder.encode(images(3))
    assert latents.shape == (3, 4, 4, 4)
    decoded = autoencoder.decode(latents * 1e4)
    assert decoded.shape == (3, 3, 16, 16)
    assert decoded.min() >= -1.0
    assert decoded.max() <= 1.0
    assert (autoencoder.decode_raw(latents * 1e4).abs() > 1.0).any() or decoded.abs().max() < 1.0


@torch.no_grad()
def test_mode_without_generator_and_samples_with_one(autoencoder: ImageAutoencoder) -> None:
    mean, logvar = autoencoder.moments(images(2))
    torch.testing.assert_close(autoencoder.encode(images(2)), mean)
    first, again, other = (autoencoder.encode(images(2), torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    spread = torch.stack([autoencoder.encode(images(1), torch.Generator().manual_seed(s)) for s in range(300)])
    assert (spread.std(0) / (0.5 * logvar[:1]).exp()).mean().item() == pytest.approx(1.0, abs=0.05)


@torch.no_grad()
def test_fitted_scaling_gives_unit_spread_and_keeps_images() -> None:
    torch.manual_seed(1)
    autoencoder = ImageAutoencoder(SMALL).eval()
    before = autoencoder.decode(autoencoder.encode(images(4)))
    factor = autoencoder.fit_scaling_factor(images(16, seed) for seed in range(3))
    assert factor == autoencoder.scaling_factor == autoencoder.settings.scaling_factor
    generator = torch.Generator().manual_seed(0)
    latents = torch.cat([autoencoder.encode(images(16, seed), generator) for seed in range(3)])
    assert latents.std().item() == pytest.approx(1.0, abs=0.02)
    torch.testing.assert_close(autoencoder.decode(autoencoder.encode(images(4))), before, rtol=1e-4, atol=1e-5)


def test_mistakes_are_told(autoencoder: ImageAutoencoder) -> None:
    with pytest.raises(ShapeError, match=r"images must have shape \(B 3 16 16\), got \(1, 3, 8, 8\)"):
        autoencoder.encode(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ConfigError, match=r"autoencoder\.block_out_channels must be multiples of norm_num_groups 16"):
        AutoencoderSettings(block_out_channels=(8, 16))
    with pytest.raises(ConfigError, match=r"autoencoder\.image_size must be a multiple of 8, got 60"):
        AutoencoderSettings(image_size=60)
    with pytest.raises(ConfigError, match="no images were given"):
        autoencoder.fit_scaling_factor([])
