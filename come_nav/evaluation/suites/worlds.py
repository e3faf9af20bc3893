"""Built-in worlds as inputs: drives with true poses, and the world around each of their frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.protocols import Recording, ViewRenderer
from come_nav.core.types import CameraIntrinsics
from come_nav.evaluation.suites.fingerprints import digest
from come_nav.navigation.loading import choose_device
from come_nav.sim.builtin import ideal_camera
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.splits import split_of
from come_nav.sim.worlds import World, generate_world

EPISODE_S = 40.0
EPISODE_DRIVERS = ("tour", "wander")


@dataclass(frozen=True)
class Place:
    """A built-in world that a recording was made in.

    Attributes:
        renderer: of the recording's camera in this world.
        poses_world_xyyaw: (N, 3) where the robot truly was at each frame.
        obstacles: polygons of the world in world coordinates with their colours, to draw.
    """

    renderer: ViewRenderer
    poses_world_xyyaw: NDArray[np.float64]
    obstacles: list[tuple[NDArray[np.float64], tuple[float, float, float]]]


@dataclass(frozen=True)
class Drives:
    """Drives through built-in worlds.

    Attributes:
        recordings: (unique name, recording).
        places: recording name -> its world.
        groups: recording name -> group whose windows are not independent of each other; None for a single world.
        fingerprint: JSON values that tell whether two sets of drives are the same.
        splits: which of train, validation and test the worlds belong to.
    """

    recordings: list[tuple[str, Recording]]
    places: dict[str, Place]
    groups: dict[str, str] | None
    fingerprint: dict[str, Any]
    splits: str


def drive_worlds(seeds: range, rate_hz: float, seed: int = 0, device: str = "auto") -> Drives:
    """Drive a tour and a walk in every world of ``seeds``; poses are the true ones."""
    recordings: list[tuple[str, Recording]] = []
    places, groups = {}, {}
    for world_seed in seeds:
        world = generate_world(world_seed)
        raycaster = raycaster_of(world, None, device)
        for driver in EPISODE_DRIVERS:
            episode = simulate_episode(world, driver, EPISODE_S, rate_hz, seed=seed)
            name = f"world {world_seed} {driver}"
            recordings.append((name, EpisodeRecording(episode, raycaster, use_truth=True)))
            places[name] = Place(raycaster, np.asarray(episode.poses_world_xyyaw, float), world.polygons())
            groups[name] = f"world {world_seed}"
    fingerprint = {
        "worlds": f"{seeds.start}-{seeds.stop - 1}",
        "episode_s": EPISODE_S,
        "drivers": list(EPISODE_DRIVERS),
        "poses": digest(np.concatenate([place.poses_world_xyyaw for place in places.values()])),
    }
    return Drives(recordings, places, groups if len(seeds) > 1 else None, fingerprint, splits_of(seeds))


def splits_of(seeds: range) -> str:
    """Return which splits worlds belong to, e.g. "test"."""
    return ", ".join(sorted({split_of(seed) for seed in seeds}))


def raycaster_of(world: World, intrinsics: CameraIntrinsics | None, device: str) -> Raycaster:
    """Return a renderer of one world with a camera, by default the one of 64 px that the suites' figures are of."""
    return Raycaster([world], intrinsics or ideal_camera(64), device=choose_device(device))


def words_of(seeds: range) -> str:
    """Return ``20000-20019`` or ``20003``."""
    return f"{seeds.start}-{seeds.stop - 1}" if len(seeds) > 1 else f"{seeds.start}"
