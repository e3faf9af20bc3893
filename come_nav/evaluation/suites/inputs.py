"""What `come-nav evaluate` can evaluate: a recording on disk, or episodes that a suite drives in built-in worlds."""

from __future__ import annotations

import argparse
import hashlib
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav import __version__
from come_nav.config import Config
from come_nav.core.errors import ConfigError, DataError, suggest
from come_nav.core.geometry import se2
from come_nav.core.protocols import Recording
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.suites.memory import MEMORY_SUITES
from come_nav.evaluation.suites.planning_rows import Place
from come_nav.viz.maps import MapDrawing

if TYPE_CHECKING:
    from come_nav.sim.raycaster import Raycaster
    from come_nav.sim.worlds import World

PLANNING_WINDOWS, QUALITY_WINDOWS = 200, 500
EPISODE_S = 40.0
EPISODE_DRIVERS = ("tour", "wander")
TRUTH_TOPIC = "/ground_truth/odom"


@dataclass(frozen=True)
class Input:
    """Recordings to evaluate and what is known about them.

    Attributes:
        title: for the table and the report.
        recordings: (unique name, recording).
        fingerprint: JSON values that tell whether two inputs are the same.
        default_windows: number of windows where none is asked for.
        places: recording name -> built-in world, where it was made in one.
        groups: recording name -> group whose windows are not independent of each other; None for one recording.
        facts: for the report.
    """

    title: str
    recordings: list[tuple[str, Recording]]
    fingerprint: dict[str, Any]
    default_windows: int
    places: dict[str, Place] = field(default_factory=dict)
    groups: dict[str, str] | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def map_of(self, window: Window) -> MapDrawing | None:
        """Return the obstacles around a window in its start frame, or None where no map is known."""
        place = self.places.get(window.recording_id)
        if place is None:
            return None
        shapes, colours = zip(*place.obstacles, strict=True)
        return MapDrawing(shapes, colours).seen_from(place.poses_world_xyyaw[window.start])


def open_input(args: argparse.Namespace, config: Config, rate_hz: float) -> Input:
    """Open what the command line names: recordings, or the built-in worlds of a suite."""
    if not args.input:
        return SUITES[check_suite(args.suite)](args, config, rate_hz)
    return _joined([_open_recording(path, args, config, rate_hz) for path in args.input])


def check_suite(name: str) -> str:
    """Return ``name`` if there is such a suite; raise ConfigError with the nearest one otherwise."""
    known = (*SUITES, *MEMORY_SUITES)
    if name not in known:
        raise ConfigError(f"unknown suite '{name}'{suggest(name, known)}")
    return name


def parse_part(text: str | None) -> tuple[float, float]:
    """Return the fractions that ``0.6-1.0`` names; the whole where nothing is asked for."""
    match = re.fullmatch(r"([0-9.]+)-([0-9.]+)", (text or "0-1").strip())
    try:
        if match is None:
            raise ValueError
        return float(match.group(1)), float(match.group(2))
    except ValueError:
        raise ConfigError(f"--part must look like 0.6-1.0 (fractions of each recording), got '{text}'") from None


def parse_worlds(text: str) -> range:
    """Return the seeds that ``20000-20019`` or ``20003`` names."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text.strip())
    first = int(match.group(1)) if match else 0
    last = int(match.group(2) or first) if match else -1
    if last < first:
        raise ConfigError(f"--worlds must look like 20000-20019 or 20003, got '{text}'")
    return range(first, last + 1)


def _open_recording(path: str, args: argparse.Namespace, config: Config, rate_hz: float) -> Input:
    from come_nav.cli.recording_flags import parse_rate, recording_settings
    from come_nav.data import open_recording

    if args.rate is not None and parse_rate(args.rate) != rate_hz:
        raise ConfigError(
            f"--rate {args.rate}: an evaluation runs at the model's rate, {rate_hz:g} Hz; leave --rate out"
        )
    settings = recording_settings(argparse.Namespace(**vars(args) | {"rate": "all"})) | {"rate_hz": rate_hz}
    if args.suite in (None, "planning"):  # no plan looks at depth
        settings["depth_topic"] = args.depth_topic or "none"
    recording = open_recording(Path(path), **settings)
    if len(recording) == 0:
        raise DataError(f"{path}: holds no frame with a pose")
    place = _place_of(recording, path, config)
    stamps_s = np.asarray(recording.stamps_s)
    return Input(
        title=recording.name,
        recordings=[(recording.name, recording)],
        fingerprint={
            "recording": recording.name,
            "frames": len(recording),
            "first_stamp_s": float(stamps_s[0]),
            "last_stamp_s": float(stamps_s[-1]),
            "poses": digest(np.asarray(recording.poses_xyyaw)),
        },
        default_windows=50,
        places={} if place is None else {recording.name: place},
        facts={"input": str(path), "metadata": dict(recording.metadata)},
    )


def _joined(inputs: list[Input]) -> Input:
    """Return several recordings as one input; windows of one recording are not independent of each other."""
    if len(inputs) == 1:
        return inputs[0]
    names: list[str] = []
    for each in inputs:
        name = each.recordings[0][0]
        names.append(name if name not in names else f"{name} ({1 + len(names)})")
    return Input(
        title=", ".join(names),
        recordings=[(name, each.recordings[0][1]) for name, each in zip(names, inputs, strict=True)],
        fingerprint={"recordings": [each.fingerprint for each in inputs]},
        default_windows=sum(each.default_windows for each in inputs),
        places={name: place for name, each in zip(names, inputs, strict=True) for place in each.places.values()},
        groups={name: name for name in names},
        facts={name: each.facts for name, each in zip(names, inputs, strict=True)},
    )


def _place_of(recording: Recording, path: str, config: Config) -> Place | None:
    """Return the built-in world of a simulated bag, from its metadata and its ground truth; None for a real one."""
    seed = recording.metadata.get("world")
    start = recording.metadata.get("pose_world_start")
    if seed is None or start is None:
        return None
    from come_nav.sim.worlds import generate_world

    world = generate_world(int(seed))
    poses = np.asarray(recording.poses_xyyaw, float)
    true = _true_poses(path, np.asarray(recording.stamps_s))
    if true is None:  # without ground truth, odometry from the known start pose is the best there is
        first = poses[0] if len(poses) else np.zeros(3)
        true = se2.compose(np.asarray(start, float)[None], se2.relative(first[None], poses))
    return Place(raycaster_of(world, recording.intrinsics, config), true, world.polygons())


def _true_poses(path: str, stamps_s: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return true world poses (N, 3) at ``stamps_s``, or None where the bag has no ground truth at all of them."""
    from come_nav.data.timing.association import nearest_index
    from come_nav.data.trajectories import read_trajectory

    try:
        truth = read_trajectory(path, "bag", topic=TRUTH_TOPIC)
    except DataError:
        return None
    nearest = nearest_index(truth.stamps_s, stamps_s)
    return truth.poses_xyyaw[nearest] if np.abs(truth.stamps_s[nearest] - stamps_s).max() < 1e-3 else None


def _planning_suite(args: argparse.Namespace, config: Config, rate_hz: float) -> Input:
    return drive_worlds("planning", PLANNING_WINDOWS, args.worlds, config, rate_hz)


def _quality_suite(args: argparse.Namespace, config: Config, rate_hz: float) -> Input:
    return drive_worlds("quality", QUALITY_WINDOWS, args.worlds, config, rate_hz)


def drive_worlds(suite: str, default_windows: int, worlds: str, config: Config, rate_hz: float) -> Input:
    """Drive a tour and a walk in every world that ``worlds`` names; poses are the true ones."""
    from come_nav.sim.episodes import EpisodeRecording, simulate_episode
    from come_nav.sim.splits import split_of
    from come_nav.sim.worlds import generate_world

    seeds = parse_worlds(worlds)
    recordings: list[tuple[str, Recording]] = []
    places, groups = {}, {}
    for seed in seeds:
        world = generate_world(seed)
        raycaster = raycaster_of(world, None, config)
        for driver in EPISODE_DRIVERS:
            episode = simulate_episode(world, driver, EPISODE_S, rate_hz, seed=config.seed)
            place = Place(raycaster, np.asarray(episode.poses_world_xyyaw, float), world.polygons())
            name = f"world {seed} {driver}"
            recordings.append((name, EpisodeRecording(episode, raycaster, use_truth=True)))
            places[name], groups[name] = place, f"world {seed}"
    return Input(
        title=f"{suite} in built-in worlds {worlds}",
        recordings=recordings,
        fingerprint={
            "suite": suite,
            "worlds": f"{seeds.start}-{seeds.stop - 1}",
            "episode_s": EPISODE_S,
            "drivers": list(EPISODE_DRIVERS),
            "poses": digest(np.concatenate([place.poses_world_xyyaw for place in places.values()])),
        },
        default_windows=default_windows,
        places=places,
        groups=groups if len(seeds) > 1 else None,
        facts={"splits": ", ".join(sorted({split_of(seed) for seed in seeds}))},
    )


# name -> what builds it; a further suite is one more line here
SUITES: dict[str, Callable[[argparse.Namespace, Config, float], Input]] = {
    "planning": _planning_suite,
    "quality": _quality_suite,
}


def raycaster_of(world: World, intrinsics: CameraIntrinsics | None, config: Config) -> Raycaster:
    """Return a renderer of one world with a camera, the built-in one by default."""
    from come_nav.navigation.loading import choose_device
    from come_nav.sim.raycaster import Raycaster

    camera = intrinsics or CameraIntrinsics.from_field_of_view(64, 64, np.pi / 2)
    return Raycaster([world], camera, device=choose_device(config.device))


def model_fingerprint(name: str) -> dict[str, str]:
    """Return name and sha256 of a model's weights (of all weight files, in the order of their names)."""
    path = find_resource("models", name)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            while block := handle.read(1 << 22):
                digest.update(block)
    return {"name": Path(name).name, "sha256": digest.hexdigest()}


def machine_facts() -> dict[str, Any]:
    """Return versions and device: worth knowing, but not part of what makes two evaluations the same."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    versions = {"come_nav": __version__, "torch": torch.__version__, "numpy": np.__version__}
    return {"versions": {**versions, "python": platform.python_version()}, "device_name": device}


def digest(poses: NDArray[np.float64]) -> str:
    """Return a short name of poses, to the tenth of a millimetre, so that platforms agree."""
    return hashlib.sha256(np.round(poses, 4).astype("<f8").tobytes()).hexdigest()[:16]
