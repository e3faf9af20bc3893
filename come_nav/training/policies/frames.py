"""Frames of drives at the policy's size with their poses: rendered or decoded once, kept in the run folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from come_nav.core.errors import DataError
from come_nav.core.files import atomic_path
from come_nav.core.geometry import se2
from come_nav.core.protocols import Recording
from come_nav.policies.images import pixels
from come_nav.policies.settings import PolicySettings
from come_nav.sim.episodes import simulate_episode
from come_nav.sim.sensors.mounting import MountedCamera
from come_nav.sim.worlds import generate_world
from come_nav.training.data.recording_bank import stretch_ends
from come_nav.training.data.sensing import renderer_of
from come_nav.training.data.sim_bank import taken_in_turn, training_camera
from come_nav.training.policies.settings import PolicyDataSettings
from come_nav.world_model.images import rgb_from_images

VIEWS_PER_CALL = 64
SLOWEST = 0.8  # of the rate that a policy counts in
MIN_SPACING_M = 0.01  # of a recording that moves at all

_log = logging.getLogger(__name__)


@dataclass
class FrameBank:
    """Frames of one or more drives.

    Attributes:
        images: (F, 3, H, W) uint8.
        poses_xyyaw: (F, 3) in the odom frame of each drive.
        first, last: (F,) ends of the stretch without a gap that each frame lies in.
        spacing_m: (F,) metres that count as 1.
    """

    images: Tensor
    poses_xyyaw: Tensor
    first: Tensor
    last: Tensor
    spacing_m: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def concatenate(cls, banks: Sequence[FrameBank]) -> FrameBank:
        """Return all frames in one bank; stretches keep apart."""
        starts = np.cumsum([0, *(len(bank) for bank in banks)])
        first = torch.cat([bank.first + int(start) for bank, start in zip(banks, starts, strict=False)])
        last = torch.cat([bank.last + int(start) for bank, start in zip(banks, starts, strict=False)])
        images, poses, spacing = (
            torch.cat([getattr(bank, name) for bank in banks]) for name in ("images", "poses_xyyaw", "spacing_m")
        )
        return cls(images, poses, first, last, spacing)

    def with_spacing(self, spacing_m: float) -> FrameBank:
        """Return the same frames with another unit."""
        return replace(self, spacing_m=torch.full_like(self.spacing_m, spacing_m))

    def usable(self, context: int, ahead: int) -> Tensor:
        """Return the frames (N,) with ``context`` frames before and ``ahead`` frames after them in their stretch."""
        index = torch.arange(len(self))
        return index[(index - context >= self.first) & (index + ahead <= self.last)]


def mean_spacing_m(bank: FrameBank) -> float:
    """Return the mean distance, m, between neighbouring frames of one stretch; raise DataError where none moves."""
    step = torch.diff(bank.poses_xyyaw[:, :2], dim=0).norm(dim=1)
    same = bank.first[1:] == bank.first[:-1]
    spacing = float(step[same].mean()) if bool(same.any()) else 0.0
    if spacing < MIN_SPACING_M:
        raise DataError(f"{len(bank)} frames move by {spacing:.3f} m from one to the next; nothing is to be learned")
    return spacing


def kept(path: Path, make: Callable[[], FrameBank]) -> FrameBank:
    """Return the bank in ``path``, which is made and written first where it is not there."""
    if not path.exists():
        bank = make()
        with atomic_path(path) as temporary:
            save_file({name: value.contiguous() for name, value in vars(bank).items()}, temporary)
    return FrameBank(**load_file(path))


def world_frames(
    seeds: Sequence[int], data: PolicyDataSettings, policy: PolicySettings, device: str, progress: bool = True
) -> FrameBank:
    """Return one drive through each world of ``seeds``; their spacing is the mean step of all of them."""
    banks = []
    for number, seed in enumerate(tqdm(seeds, desc="render worlds", unit="world", disable=not progress)):
        driver, look = taken_in_turn(data.drivers, data.sets_of_worlds, number)
        world = generate_world(seed, look)
        episode = simulate_episode(world, driver, data.episode_s, policy.rate_hz, seed)
        poses = torch.as_tensor(episode.poses_world_xyyaw, dtype=torch.float32)
        renderer = renderer_of(world, MountedCamera(training_camera(data.camera_px)), device)
        images = [
            image
            for chunk in poses.split(VIEWS_PER_CALL)
            for image in rgb_from_images(renderer.render(chunk.to(device))[0])
        ]
        banks.append(_bank(images, policy, poses, stretch_ends((), 0, len(poses))))
    bank = FrameBank.concatenate(banks)
    return bank.with_spacing(mean_spacing_m(bank))


def recording_frames(
    path: str,
    use: tuple[float, float],
    data: PolicyDataSettings,
    policy: PolicySettings,
    spacing_m: float | None = None,
    progress: bool = True,
) -> FrameBank:
    """Return a part of a bag or folder; frames that cannot be decoded part the stretch that they lie in.

    Raises:
        DataError: it cannot be read, holds too little, or does not move.
    """
    from come_nav.data import open_recording

    recording = open_recording(path, rate_hz=policy.rate_hz, **data.recording_flags)
    _check_rate(path, recording, policy)
    start, stop = (round(fraction * len(recording)) for fraction in use)
    images: list[NDArray[np.uint8]] = []
    damaged: list[int] = []
    black = np.zeros((policy.image_height, policy.image_width, 3), np.uint8)
    for index in tqdm(range(start, stop), desc=f"read {recording.name}", unit="frame", disable=not progress):
        try:
            images.append(recording.frame(index).rgb)
        except DataError as error:
            _log.warning("%s: frame %d is left out: %s", recording.name, index, error)
            damaged.append(index - start)
            images.append(black)
    if len(images) - len(damaged) < 2:
        raise DataError(f"{path}: {len(images) - len(damaged)} frames can be decoded in the part {use} of it")
    poses_xyyaw = np.asarray(recording.poses_xyyaw[start:stop], np.float64)
    # relative first: float32 has no centimetres far from a map's origin
    poses = torch.as_tensor(se2.relative(poses_xyyaw[:1], poses_xyyaw), dtype=torch.float32)
    gaps = getattr(recording, "segments", ())
    bank = _bank(images, policy, poses, stretch_ends(gaps, start, stop - start, damaged))
    try:
        return bank.with_spacing(mean_spacing_m(bank) if spacing_m is None else spacing_m)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _check_rate(path: str, recording: Recording, policy: PolicySettings) -> None:
    """Refuse a recording slower than a policy: it counts frames, so that its distances would mean other times."""
    steps_s = np.diff(np.asarray(recording.stamps_s, np.float64))
    rate_hz = 1.0 / float(np.median(steps_s)) if len(steps_s) else policy.rate_hz
    if rate_hz < SLOWEST * policy.rate_hz:
        raise DataError(
            f"{path}: images come at {rate_hz:.2f} Hz, and the policy counts frames at {policy.rate_hz:g} Hz; "
            f"leave this recording out, or train at its rate: --set policy.rate_hz={rate_hz:.2f}"
        )


def _bank(
    images: Sequence[NDArray[np.uint8]], policy: PolicySettings, poses: Tensor, ends: tuple[Tensor, Tensor]
) -> FrameBank:
    return FrameBank(pixels(images, policy).contiguous(), poses, *ends, torch.ones(len(images)))
