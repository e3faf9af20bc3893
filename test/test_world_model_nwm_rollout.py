"""The three ways of a rollout: they agree where they must, and cost what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_world_model_model import FRAMES, rgb_frames, seeded, small_model

from come_nav.core.errors import ConfigError
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.nwm.rollout import NwmImaginer, RolloutPath, micro_batch_for
from come_nav.world_model.sampling.settings import SamplerSettings

STEPS, CANDIDATES = 4, 3
POSES = torch.tensor([[0.0, 0.0, 0.1], [0.2, 0.05, 0.3], [0.4, 0.1, 0.4]])


@pytest.fixture(scope="module")
def model() -> DiffusionWorldModel:
    return small_model(sampler=SamplerSettings("ddim", 2))


def paths() -> torch.Tensor:
    step = torch.tensor([[0.2, 0.0, 0.05], [0.1, 0.05, -0.1], [0.0, 0.0, 0.3]])
    return step[:, None] * torch.arange(1.0, STEPS + 1)[None, :, None]


def imaginer(
    model: DiffusionWorldModel, path: RolloutPath, sample_latents: bool = True, decode: bool = True
) -> NwmImaginer:
    return NwmImaginer(model, model.images_from_rgb(rgb_frames()), POSES, path, decode, sample_latents)


@pytest.mark.parametrize(
    ("path", "encodes", "decodes"),
    [
        ("pixels", FRAMES * CANDIDATES * STEPS, CANDIDATES * STEPS),
        ("moments", FRAMES + CANDIDATES * (STEPS - 1), CANDIDATES * STEPS),
        ("latents", FRAMES, CANDIDATES),
    ],
)
def test_calls_are_counted_in_samples(
    model: DiffusionWorldModel, path: RolloutPath, encodes: int, decodes: int
) -> None:
    found = imaginer(model, path)
    result = found.imagine(paths(), seeded())
    assert (found.counts.forwards, found.counts.encodes, found.counts.decodes) == (
        CANDIDATES * STEPS * 2,
        encodes,
        decodes,
    )
    assert result.images is not None
    assert result.latents is not None
    assert result.images.shape == (CANDIDATES, 3, 16, 16)
    assert result.latents.shape == (CANDIDATES, 4, 4, 4)
    found.imagine(paths(), seeded())  # the context of a window is encoded once
    assert found.counts.encodes == 2 * encodes - (FRAMES if path != "pixels" else 0)


def test_kept_moments_equal_encoding_anew(model: DiffusionWorldModel) -> None:
    """With the posterior's mode there is no chance in the latents, so the two ways must agree exactly."""
    first, second = (
        imaginer(model, path, sample_latents=False).imagine(paths(), seeded()) for path in ("pixels", "moments")
    )
    torch.testing.assert_close(first.images, second.images, rtol=1e-4, atol=1e-5)
    sampled = imaginer(model, "moments").imagine(paths(), seeded())
    assert not torch.allclose(sampled.latents, second.latents)


def test_kept_moments_have_the_distribution_of_encoding_anew(model: DiffusionWorldModel) -> None:
    """Mean and spread over many draws of one rollout step agree within their standard errors."""
    path = paths()[:1, :2].expand(400, 2, 3)
    draws = [
        imaginer(model, way).imagine(path, seeded(seed)).latents.flatten(1)
        for seed, way in enumerate(("pixels", "moments"))
    ]
    error = (draws[0].var(0) / 400 + draws[1].var(0) / 400).sqrt()
    assert ((draws[0].mean(0) - draws[1].mean(0)).abs() < 5 * error).all()
    torch.testing.assert_close(draws[0].std(0), draws[1].std(0), rtol=0.25, atol=1e-3)


def test_latents_equal_the_models_own_rollout(model: DiffusionWorldModel) -> None:
    images = model.images_from_rgb(rgb_frames())
    context = model.context_from_images(images, POSES)
    expected = model.rollout(context, paths(), seeded())
    found = imaginer(model, "latents", sample_latents=False)
    torch.testing.assert_close(found.imagine(paths(), seeded()).latents, expected[:, -1])
    views = found.views(paths(), seeded(), keep=(0, 3))
    torch.testing.assert_close(views[:, 0], model.decode(expected[:, 0]), rtol=1e-4, atol=1e-5)
    assert imaginer(model, "latents", decode=False).imagine(paths(), seeded()).images is None


@pytest.mark.parametrize("path", ["pixels", "moments", "latents"])
def test_views_with_a_stride(model: DiffusionWorldModel, path: RolloutPath) -> None:
    found = imaginer(model, path, sample_latents=False)
    views = found.views(paths(), seeded(), stride=2, keep=(0, 1))
    assert views.shape == (CANDIDATES, 2, 3, 16, 16)
    assert found.counts.forwards == CANDIDATES * 2 * 2
    every = imaginer(model, path, sample_latents=False).views(paths(), seeded(), stride=2, keep=(-1,))
    torch.testing.assert_close(views[:, 1:], every, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", ["pixels", "moments", "latents"])
def test_one_jump_is_one_prediction_of_the_end(model: DiffusionWorldModel, path: RolloutPath) -> None:
    images = model.images_from_rgb(rgb_frames())
    found = NwmImaginer(model, images, POSES, path, sample_latents=False, stride=STEPS)
    latents = found.imagine(paths(), seeded()).latents
    context = model.context_from_images(images, POSES)
    expected = model.predict(context, paths()[:, -1], torch.full((CANDIDATES,), float(STEPS)), seeded())
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)
    assert (found.counts.forwards, found.counts.encodes) == (
        CANDIDATES * 2,
        FRAMES * (CANDIDATES ** (path == "pixels")),
    )
    torch.testing.assert_close(found.views(paths(), seeded())[:, 0], model.decode(latents), rtol=1e-4, atol=1e-5)


def test_a_stride_that_misses_the_end_is_told(model: DiffusionWorldModel) -> None:
    images = model.images_from_rgb(rgb_frames())
    with pytest.raises(ConfigError, match="rollout stride must divide the 4 frames of a path, got 3"):
        NwmImaginer(model, images, POSES, stride=3).imagine(paths(), seeded())
    with pytest.raises(ConfigError, match="rollout stride must be"):
        NwmImaginer(model, images, POSES, stride=0)


def test_first_step_is_the_same_on_every_path(model: DiffusionWorldModel) -> None:
    one = [
        imaginer(model, path, sample_latents=False).imagine(paths()[:, :1], seeded()).latents
        for path in ("pixels", "moments", "latents")
    ]
    torch.testing.assert_close(one[0], one[1])
    torch.testing.assert_close(one[0], one[2], rtol=1e-4, atol=1e-5)


def test_micro_batches_follow_the_free_memory(model: DiffusionWorldModel) -> None:
    sizes = [micro_batch_for(model, free) for free in (0, 10**7, 10**9, 10**12)]
    assert sizes[0] == 1
    assert sizes == sorted(sizes)
    assert sizes[-1] == 256
    model.inference = replace(model.inference, micro_batch=2)
    split = imaginer(model, "pixels", sample_latents=False).imagine(paths(), seeded())
    assert split.images is not None
    assert len(split.images) == CANDIDATES
    model.inference = replace(model.inference, micro_batch=128)


def test_unknown_path_is_told(model: DiffusionWorldModel) -> None:
    with pytest.raises(ConfigError, match="rollout path must be one of pixels, moments, latents"):
        imaginer(model, "frames")
