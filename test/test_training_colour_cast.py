"""Colours of drives in training: closed forms of a cast, and that all images of a drive have the same one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_samples import ALL_INPUTS, CONFIG, DRIVES, MACHINE

from come_nav.core.errors import ConfigError
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.colour_cast import (
    CHANNEL_SHARE,
    LOG2_GAIN,
    LOG_GAMMA,
    LUMA,
    SATURATION,
    ColourCast,
    _turned_hue,
)
from come_nav.sim.worlds import generate_world
from come_nav.training.data.memory_views import PastDrive, fill_memory
from come_nav.training.data.sensing import MEMORY_SEED, DriveSenses, DriveSensors
from come_nav.training.data.sim_bank import encode_drive, make_drive, random_free_poses, training_camera
from come_nav.training.run import Run
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder

SEED = 12


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2.0 - 1.0


def test_a_spread_of_nothing_changes_nothing() -> None:
    torch.testing.assert_close(ColourCast.draw(0.0, SEED)(images()), images(), atol=2e-6, rtol=0.0)


def test_a_gain_and_a_gamma_are_those_of_their_formula() -> None:
    cast = ColourCast(gamma=2.0, matrix=torch.eye(3) * 0.5)
    torch.testing.assert_close(cast(images()), ((images() + 1) / 2) ** 2 - 1.0)
    assert cast(torch.ones(1, 3, 1, 1)).max() == 0.0
    assert ColourCast(1.0, torch.eye(3) * 9.0)(images()).max() == 1.0  # the sensor is full


@given(angle_rad=st.floats(-3.2, 3.2))
def test_turning_the_hue_keeps_grey_and_luma(angle_rad: float) -> None:
    turn = _turned_hue(angle_rad)
    torch.testing.assert_close(turn @ torch.ones(3), torch.ones(3), atol=2e-3, rtol=0.0)  # YIQ's rows are rounded
    torch.testing.assert_close(torch.tensor(LUMA) @ turn, torch.tensor(LUMA), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(turn @ _turned_hue(-angle_rad), torch.eye(3), atol=1e-5, rtol=0.0)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), spread=st.floats(0.0, 1.0))
def test_what_is_drawn_stays_in_its_range(seed: int, spread: float) -> None:
    cast = ColourCast.draw(spread, seed)
    assert abs(torch.tensor(cast.gamma).log()) <= spread * LOG_GAMMA + 1e-6
    grey = cast.matrix @ torch.ones(3)  # of a grey of 1: gain and channels alone
    most, channel = 2.0 ** (spread * LOG2_GAIN), spread * CHANNEL_SHARE
    assert bool((grey <= 1.01 * most * (1.0 + channel)).all()) and bool((grey >= 0.99 / most * (1.0 - channel)).all())


def test_hues_go_all_round_and_saturation_between_its_ends() -> None:
    """In the plane of colours a cast turns and scales; channels and gain are divided out by what they make of grey."""
    angles, scales = [], []
    to_iq = torch.tensor([[0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    red = torch.tensor([1.0, 0.0, 0.0])
    for seed in range(300):
        matrix = ColourCast.draw(1.0, seed).matrix
        matrix = matrix / (matrix @ torch.ones(3))[:, None]
        i, q = (to_iq @ (matrix @ red)).tolist()
        i_red, q_red = (to_iq @ red).tolist()
        angles.append(math.atan2(q, i) - math.atan2(q_red, i_red))
        scales.append(math.hypot(i, q) / math.hypot(i_red, q_red))
    quarters = np.histogram(np.mod(angles, 2 * math.pi), bins=4, range=(0, 2 * math.pi))[0]
    assert quarters.min() > 45  # of 75 on average, whose standard deviation is 7.5
    assert SATURATION[0] - 0.01 <= min(scales) < 0.15 and 1.4 < max(scales) <= SATURATION[1] + 0.01


@dataclass(frozen=True)
class FixedLens(DriveSenses):
    """Realistic senses with a share of their vignetting, and colours as they are."""

    lens: float = 1.0

    def sensors_of(self, intrinsics: CameraIntrinsics, seed: int, before: bool = False) -> DriveSensors:
        cast = ColourCast(1.0, torch.eye(3), self.lens)
        return DriveSensors("realistic", intrinsics, seed + MEMORY_SEED * before, self.rate_hz, cast=cast)


def shown_views(spread: float, lens: float | None = None) -> tuple[torch.Tensor, int]:
    """Images (F + F Q, 3, S, S) of a drive's frames and branches, and the drive's seed; ``lens``: its vignetting."""
    data = replace(DRIVES, memory_s=0.0)
    drive = make_drive(5, 0, data, 4.0)
    shown: list[torch.Tensor] = []

    def encode(views: torch.Tensor) -> torch.Tensor:
        shown.append(views.clone())
        return views[:, :, ::8, ::8]

    senses = DriveSenses(sensors="realistic", colour_spread=spread)
    if lens is not None:
        senses = FixedLens(lens=lens)
    encode_drive(drive, training_camera(32), data, encode, "cpu", "cpu", senses)
    return torch.cat(shown), drive.seed


def test_all_views_of_a_drive_have_its_cast() -> None:
    (plain, seed), (cast, _) = shown_views(0.0, lens=ColourCast.draw(0.7, 5).vignetting), shown_views(0.7)
    assert seed == 5
    torch.testing.assert_close(cast, ColourCast.draw(0.7, seed)(plain))
    assert (cast - plain).abs().mean() > 0.02


def test_lenses_differ_from_drive_to_drive_and_none_is_worse_than_the_presets() -> None:
    shares = torch.tensor([ColourCast.draw(1.0, seed).vignetting for seed in range(200)])
    assert 0.0 <= float(shares.min()) < 0.05 and 0.95 < float(shares.max()) <= 1.0
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.06)  # three standard errors
    assert ColourCast.draw(0.0, SEED).vignetting == 1.0


def test_the_memory_before_a_drive_has_the_colours_of_the_drive() -> None:
    world = generate_world(3)
    poses = random_free_poses(world, 4, torch.Generator().manual_seed(0))
    renderer = Raycaster([world], training_camera(32))
    past, drawn = PastDrive(poses, poses, True, SEED), ColourCast.draw(0.7, SEED)
    senses = FixedLens(lens=drawn.vignetting), DriveSenses(sensors="realistic", colour_spread=0.7)
    plain, cast = (fill_memory(renderer, past, "cpu", own).point_features for own in senses)
    as_image = torch.from_numpy(plain).float().T[None, :, None]  # (1, 3, 1, N)
    expected = drawn(as_image)[0, :, 0].T
    assert float((torch.from_numpy(cast).float() - expected).abs().mean()) < 0.01  # points are means of pixels


def test_validation_shows_the_colours_of_the_worlds(tmp_path: Path) -> None:
    found = []
    for spread in (0.0, 0.7):
        data = replace(
            DRIVES, memory_s=0.0, keep_images=True, colour_spread=spread, cache_folder=str(tmp_path / "banks")
        )
        config = replace(ALL_INPUTS, data=data)
        run = Run(config, tmp_path / str(spread), MACHINE)
        made = run.data(ImageAutoencoder(config.autoencoder_model), None)
        found.append([made.worlds_bank(name, range(10000, 10001)).images for name in ("validation", "worlds")])
    (as_it_is, trained), (validating, cast) = found
    assert torch.equal(as_it_is, validating)
    assert not torch.equal(trained, cast)


def test_a_spread_beyond_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.colour_spread"):
        replace(DRIVES, colour_spread=1.5)


def test_a_spread_that_nothing_would_apply_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.colour_spread.*data\.cameras"):
        replace(CONFIG, data=replace(CONFIG.data, colour_spread=0.5))
