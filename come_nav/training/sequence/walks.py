"""Encoded walks: every view of a world once, and which one each frame of its walk is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from come_nav.core.files import atomic_path
from come_nav.core.geometry import se2
from come_nav.core.settings import to_mapping
from come_nav.sim.builtin import ideal_camera, raycaster_with_camera
from come_nav.sim.episodes import Episode, EpisodeRecording, simulate_episode
from come_nav.sim.mazes.walks import distinct_poses, walked_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.settings import DEFAULT_SENSORS, SensorSettings, sensor_settings
from come_nav.sim.world_sets import world_set
from come_nav.sim.worlds import World, generate_world
from come_nav.training.data.sharding import shard
from come_nav.training.data.windows import Encode, step_generator
from come_nav.training.sequence.settings import SequenceDataSettings
from come_nav.world_model.images import images_from_rgb

BATCH_STREAM = 80
VIEWS_PER_CALL = 128


@dataclass
class SequenceBatch:
    """Sequences in a row.

    Attributes:
        latents: (B, T, C, h, w) clean.
        poses_xyyaw: (B, T, 3) in the frame of each sequence's first frame, m and rad.
        actions_xyyaw: (B, T, 3) in the base of the frame before; zero for the first.
        views: (B, T) numbers of the views: equal numbers were seen from the same pose.
    """

    latents: Tensor
    poses_xyyaw: Tensor
    actions_xyyaw: Tensor
    views: Tensor

    def to(self, device: str | torch.device) -> SequenceBatch:
        """Return the batch on another device."""
        return SequenceBatch(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass
class WalkBank:
    """Walks of equal length.

    Attributes:
        latents: (V, C, h, w) float16 of all views.
        poses_xyyaw: (W, N, 3) float64 of the frames of W walks, in each world.
        views: (W, N) which view each frame is.
    """

    latents: Tensor
    poses_xyyaw: Tensor
    views: Tensor

    @classmethod
    def concatenate(cls, banks: Sequence[WalkBank]) -> WalkBank:
        """Return one bank of the walks of several."""
        starts = np.cumsum([0, *(len(bank.latents) for bank in banks)])
        return cls(
            torch.cat([bank.latents for bank in banks]),
            torch.cat([bank.poses_xyyaw for bank in banks]),
            torch.cat([bank.views + int(start) for bank, start in zip(banks, starts, strict=False)]),
        )

    def cut(self, walks: Tensor, index: Tensor) -> SequenceBatch:
        """Return frames ``index`` (B, T) of walks (B,)."""
        poses, views = self.poses_xyyaw[walks[:, None], index], self.views[walks[:, None], index]
        places, moved = se2.relative(poses[:, :1], poses), se2.motions(poses)
        return SequenceBatch(self.latents[views].float(), places.float(), moved.float(), views)


class SequenceSamples(torch.utils.data.IterableDataset[SequenceBatch]):
    """Batches of ``steps``; batch k depends only on (seed, k), and a process takes its rows of it.

    Args:
        bank: what is drawn from.
        frames: length of the sequences.
        batch_size: over all processes.
        seed: of the run.
        steps: first and last step.
        share: rank of this process, and how many there are.
        scattered: share of the sequences whose frames are drawn from all of a walk, in their order.
        frames_at: the length of a step's sequences, where they are not all of ``frames``.
    """

    def __init__(
        self,
        bank: WalkBank,
        frames: int,
        batch_size: int,
        seed: int,
        steps: range,
        share: tuple[int, int] = (0, 1),
        scattered: float = 0.0,
        frames_at: Callable[[int], int] | None = None,
    ) -> None:
        super().__init__()
        self.bank, self.frames, self.batch_size = bank, frames, batch_size
        self.seed, self.steps, self.share, self.scattered = seed, steps, share, scattered
        self.frames_at = frames_at

    def __iter__(self) -> Iterator[SequenceBatch]:
        for step in self.steps:
            generator = step_generator(self.seed, BATCH_STREAM, step)
            frames = self.frames if self.frames_at is None else self.frames_at(step)
            walks = torch.randint(len(self.bank.views), (self.batch_size,), generator=generator)
            starts = torch.randint(self.bank.views.shape[1] - frames + 1, (self.batch_size,), generator=generator)
            index = starts[:, None] + torch.arange(frames)
            if self.scattered:
                index = self._scattered(index, generator)
            rows = shard(self.batch_size, *self.share)
            yield self.bank.cut(walks[rows], index[rows])

    def _scattered(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Return the frames (B, T) of sequences, those of some of them drawn anew from the whole walk."""
        chances = torch.rand(len(index), self.bank.views.shape[1], generator=generator)
        drawn = chances.topk(index.shape[1]).indices.sort().values
        chosen = torch.rand(len(index), 1, generator=generator) < self.scattered
        return torch.where(chosen, drawn, index)


def make_walks(
    seeds: Sequence[int], data: SequenceDataSettings, rate_hz: float, encode: Encode, device: str, progress: bool = True
) -> WalkBank:
    """Return one encoded walk through each world of ``seeds``."""
    settings, sensors = world_set(data.set_of_worlds), sensor_settings(data.sensors)
    banks = []
    for number, seed in enumerate(tqdm(seeds, desc="walk through worlds", unit="world", disable=not progress)):
        world = generate_world(seed, settings)
        episode = _episode(world, number, data, rate_hz)
        poses = episode.poses_world_xyyaw
        if sensors == SensorSettings():  # no two views of a pose differ
            views, numbers = distinct_poses(poses)
            found = _rendered(world, views, device)
        else:
            found, numbers = _sensed(world, episode, sensors, device), np.arange(len(poses))
        latents = torch.cat([encode(images.to(device)).half().cpu() for images in found])
        banks.append(WalkBank(latents, torch.from_numpy(poses)[None], torch.from_numpy(numbers)[None]))
    return WalkBank.concatenate(banks)


def _rendered(world: World, poses_xyyaw: NDArray[np.float64], device: str) -> Iterator[Tensor]:
    """Yield the views (N, 3, S, S) in [-1, 1] from poses (V, 3), as perfect sensors deliver them."""
    renderer = Raycaster([world], ideal_camera(), device=device)
    for chunk in torch.from_numpy(poses_xyyaw).to(device).split(VIEWS_PER_CALL):
        yield renderer.render(chunk)[0]


def _sensed(world: World, episode: Episode, sensors: SensorSettings, device: str) -> Iterator[Tensor]:
    """Yield the frames (N, 3, S, S) in [-1, 1] of a drive as the camera that ``sensors`` draw for it delivers them."""
    renderer = raycaster_with_camera(world, sensors, episode.seed, device)
    recording = EpisodeRecording(episode, renderer, use_truth=True, sensors=sensors)
    size = ideal_camera().width
    for first in range(0, len(recording), VIEWS_PER_CALL):
        frames = range(first, min(len(recording), first + VIEWS_PER_CALL))
        yield images_from_rgb([recording.frame(index).rgb for index in frames], size)


def spread_views(seeds: Sequence[int], data: SequenceDataSettings, rate_hz: float, each: int) -> Tensor:
    """Return views (N, 3, H, W) in [-1, 1] spread over the walks through the worlds of ``seeds``, ``each`` of one."""
    settings, camera = world_set(data.set_of_worlds), ideal_camera()
    images = []
    for number, seed in enumerate(seeds):
        world = generate_world(seed, settings)
        poses = _episode(world, number, data, rate_hz).poses_world_xyyaw
        chosen = np.unique(np.linspace(0, len(poses) - 1, each).astype(int))
        images.append(Raycaster([world], camera).render(torch.from_numpy(poses[chosen]))[0])
    return torch.cat(images)


def kept_walks(path: Path, make: Callable[[], WalkBank]) -> WalkBank:
    """Return the bank in ``path``, which is made and written first where it is not there."""
    if not path.exists():
        bank = make()
        with atomic_path(path) as temporary:
            save_file({name: value.contiguous() for name, value in vars(bank).items()}, temporary)
    return WalkBank(**load_file(path))


def walks_name(part: str, seeds: Sequence[int], data: SequenceDataSettings, rate_hz: float, autoencoder: str) -> str:
    """Return the name of the file of walks: other walks or another autoencoder have another one."""
    facts: dict[str, Any] = {name: value for name, value in to_mapping(data).items() if name != "cache_folder"}
    if facts["sensors"] == DEFAULT_SENSORS:  # walks of before sensors had a name
        del facts["sensors"]
    facts |= {"rate_hz": rate_hz, "autoencoder": autoencoder, "seeds": [seeds[0], len(seeds)]}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    return f"{part}_{digest}.safetensors"


def _episode(world: World, number: int, data: SequenceDataSettings, rate_hz: float) -> Episode:
    if world.settings.kind == "maze":
        return walked_episode(world, data.walk_frames, world.seed)
    driver = data.drivers[number % len(data.drivers)]
    return simulate_episode(world, driver, (data.walk_frames - 1) / rate_hz, rate_hz, world.seed)
