"""Built-in worlds as inputs: drives with true poses, and the world around each of their frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.protocols import Recording, ViewRenderer
from come_nav.core.settings import to_mapping
from come_nav.core.types import CameraIntrinsics
from come_nav.evaluation.suites.fingerprints import digest
from come_nav.navigation.device import choose_device
from come_nav.sim.builtin import ideal_camera, raycaster_with_camera
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.settings import SensorSettings, preset_name
from come_nav.sim.splits import split_of
from come_nav.sim.world_sets import BUILT_IN, world_set
from come_nav.sim.worlds import World, generate_world

EPISODE_S = 40.0
EPISODE_DRIVERS = ("tour", "wander")
SMALL_PX = (64, 64)  # of the model's own images, which most figures are of


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


def drive_worlds(
    seeds: range,
    rate_hz: float,
    seed: int = 0,
    device: str = "auto",
    sensors: SensorSettings | None = None,
    set_name: str = BUILT_IN,
    camera_px: tuple[int, int] = SMALL_PX,
) -> Drives:
    """Drive a tour and a walk in every world of ``seeds``; poses are the true ones, frames as ``sensors`` take them.

    The camera has ``camera_px``. Frames come at the protocol's rate, none is lost: a camera is faster than that.
    """
    sensors = sensors or SensorSettings()
    recordings: list[tuple[str, Recording]] = []
    places, groups = {}, {}
    for world_seed in seeds:
        world = generate_world(world_seed, world_set(set_name))
        raycaster = drawn_raycaster(world, sensors, seed, device, camera_px)
        for driver in EPISODE_DRIVERS:
            episode = simulate_episode(world, driver, EPISODE_S, rate_hz, seed=seed)
            name = f"world {world_seed} {driver}"
            recordings.append((name, EpisodeRecording(episode, raycaster, use_truth=True, sensors=sensors)))
            places[name] = Place(raycaster, np.asarray(episode.poses_world_xyyaw, float), world.polygons())
            groups[name] = f"world {world_seed}"
    fingerprint = {
        "worlds": f"{seeds.start}-{seeds.stop - 1}",
        "episode_s": EPISODE_S,
        "drivers": list(EPISODE_DRIVERS),
        **({} if camera_px == SMALL_PX else {"camera_px": list(camera_px)}),
        "poses": digest(np.concatenate([place.poses_world_xyyaw for place in places.values()])),
        **surroundings_facts(sensors, set_name),
    }
    return Drives(recordings, places, groups if len(seeds) > 1 else None, fingerprint, splits_of(seeds))


def splits_of(seeds: range) -> str:
    """Return which splits worlds belong to, e.g. "test"."""
    return ", ".join(sorted({split_of(seed) for seed in seeds}))


def surroundings_facts(sensors: SensorSettings, set_name: str) -> dict[str, Any]:
    """Return what a fingerprint says about sensors and worlds; nothing of perfect ones and the built-in set."""
    facts: dict[str, Any] = {} if set_name == BUILT_IN else {"set_of_worlds": set_name}
    if sensors != SensorSettings():
        facts |= {"sensors": preset_name(sensors), "sensor_settings": to_mapping(sensors)}
    return facts


def surroundings_words(sensors: SensorSettings, set_name: str) -> str:
    """Return what a title says of sensors and worlds; nothing of perfect ones and the built-in set."""
    words = "" if set_name == BUILT_IN else f", {set_name}"
    return words if sensors == SensorSettings() else f"{words}, {preset_name(sensors)} sensors"


def drawn_raycaster(
    world: World, sensors: SensorSettings, seed: int, device: str, camera_px: tuple[int, int] = SMALL_PX
) -> Raycaster:
    """Return a renderer of one world with the camera that ``sensors`` draw for it.

    It has ``camera_px``; the small default stands for a short side of 64 px, whatever aspect is drawn.
    """
    size_px = None if camera_px == SMALL_PX else camera_px
    return raycaster_with_camera(world, sensors, seed, choose_device(device), size_px)


def raycaster_of(
    world: World,
    intrinsics: CameraIntrinsics | None,
    device: str,
    T_base_camera: NDArray[np.float64] | None = None,
) -> Raycaster:
    """Return a renderer of one world with a camera, by default the one of 64 px that the suites' figures are of."""
    camera = intrinsics or ideal_camera(64)
    if T_base_camera is None:
        return Raycaster([world], camera, device=choose_device(device))
    height_m, pitch_rad = float(T_base_camera[2, 3]), float(np.arcsin(np.clip(T_base_camera[2, 2], -1.0, 1.0)))
    return Raycaster([world], camera, height_m, choose_device(device), 0.0 if abs(pitch_rad) < 1e-6 else pitch_rad)


def words_of(seeds: range) -> str:
    """Return ``20000-20019`` or ``20003``."""
    return f"{seeds.start}-{seeds.stop - 1}" if len(seeds) > 1 else f"{seeds.start}"
