"""What a suite can evaluate: recordings on disk, or drives through built-in worlds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2
from come_nav.core.protocols import Recording
from come_nav.core.settings import from_mapping
from come_nav.data import open_recording
from come_nav.data.timing.association import nearest_index
from come_nav.data.trajectories import read_trajectory
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.suites.fingerprints import digest
from come_nav.evaluation.suites.worlds import SMALL_PX, Place, drive_worlds, raycaster_of, surroundings_words, words_of
from come_nav.sim.sensors.settings import SensorSettings, preset_name
from come_nav.sim.world_sets import BUILT_IN
from come_nav.sim.worlds import WorldSettings, generate_world
from come_nav.viz.maps import MapDrawing

DEFAULT_WINDOWS = {"planning": 200, "quality": 500}  # in built-in worlds
RECORDING_WINDOWS = 50  # of each recording
TRUTH_TOPIC = "/ground_truth/odom"


@dataclass(frozen=True)
class SourceSettings:
    """What is evaluated.

    Attributes:
        suite: its name, for titles and fingerprints.
        paths: recordings on disk; none means drives through built-in worlds.
        worlds: seeds of these.
        windows: how many; the suite's default where None.
        part: fractions (first, last) of each recording that windows lie in; the whole where None.
        choice: of the windows, even or random.
        recording: keyword arguments of ``come_nav.data.open_recording`` but for the rate.
        kinematics: of the robot whose plans are evaluated: differential, holonomic, car or auto (what the recordings
            tell); empty = as the robot's settings say.
        camera_px: width and height of the camera in built-in worlds; memory suites correct drift where it is as wide as
            localisation needs.
        rate_hz: that was asked for, infinite for every frame; it must be the model's. None asks for nothing.
        sensors: errors of the sensors in built-in worlds.
        world_set: name of the set of worlds.
    """

    suite: str = "planning"
    paths: tuple[str, ...] = ()
    worlds: range = range(20000, 20020)
    windows: int | None = None
    part: tuple[float, float] | None = None
    choice: str = "even"
    recording: Mapping[str, Any] = field(default_factory=dict)
    rate_hz: float | None = None
    kinematics: str = ""
    camera_px: tuple[int, int] = SMALL_PX
    sensors: SensorSettings = field(default_factory=SensorSettings)
    world_set: str = BUILT_IN


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


def open_input(settings: SourceSettings, rate_hz: float, seed: int = 0, device: str = "auto") -> Input:
    """Open the recordings that ``settings`` name, or drive in built-in worlds.

    Args:
        settings: what is evaluated.
        rate_hz: frames per second, the model's.
        seed: of the drives.
        device: where worlds are rendered.
    """
    if settings.paths:
        return open_recordings(settings, rate_hz, device)
    drives = drive_worlds(
        settings.worlds, rate_hz, seed, device, settings.sensors, settings.world_set, settings.camera_px
    )
    return Input(
        title=f"{settings.suite} in built-in worlds {words_of(settings.worlds)}"
        + surroundings_words(settings.sensors, settings.world_set),
        recordings=drives.recordings,
        fingerprint={"suite": settings.suite, **drives.fingerprint},
        default_windows=DEFAULT_WINDOWS[settings.suite],
        places=drives.places,
        groups=drives.groups,
        facts={"splits": drives.splits, "sensors": preset_name(settings.sensors), "set_of_worlds": settings.world_set},
    )


def open_recordings(settings: SourceSettings, rate_hz: float, device: str = "auto") -> Input:
    """Open all recordings that ``settings`` name as one input; raise ConfigError for another rate than the model's."""
    if settings.sensors != SensorSettings():
        raise ConfigError("--sensors is of the built-in worlds; a recording has its own sensors")
    if settings.world_set != BUILT_IN:
        raise ConfigError("--set-of-worlds is of the built-in worlds; a recording was made in one place")
    if settings.rate_hz is not None and settings.rate_hz != rate_hz:
        asked = "all" if math.isinf(settings.rate_hz) else f"{settings.rate_hz:g}"
        raise ConfigError(f"--rate {asked}: an evaluation runs at the model's rate, {rate_hz:g} Hz; leave --rate out")
    return _joined([_open_recording(path, settings.recording, rate_hz, device) for path in settings.paths])


def frames_of(horizons_s: tuple[float, ...], rate_hz: float) -> list[int]:
    """Return the protocol frames of some seconds; raise ConfigError for what is no whole frame >= 1."""
    frames = [seconds * rate_hz for seconds in horizons_s]
    if any(abs(value - round(value)) > 1e-6 or value < 1 for value in frames):
        text = ",".join(f"{seconds:g}" for seconds in horizons_s)
        raise ConfigError(f"--horizon takes seconds that are whole frames at {rate_hz:g} Hz (or a list), got '{text}'")
    return [round(value) for value in frames]


def one_horizon(horizons_s: tuple[float, ...], rate_hz: float) -> int:
    """Return the protocol frames of the one horizon of plans; raise ConfigError for several."""
    frames = frames_of(horizons_s, rate_hz)
    if len(frames) > 1:
        text = ",".join(f"{seconds:g}" for seconds in horizons_s)
        raise ConfigError(f"--horizon takes one number of seconds for memory-planning, got '{text}'; run each alone")
    return frames[0]


def _open_recording(path: str, settings: Mapping[str, Any], rate_hz: float, device: str) -> Input:
    recording = open_recording(Path(path), rate_hz=rate_hz, **settings)
    if len(recording) == 0:
        raise DataError(f"{path}: holds no frame with a pose")
    place = _place_of(recording, path, device)
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
        default_windows=RECORDING_WINDOWS,
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


def _place_of(recording: Recording, path: str, device: str) -> Place | None:
    """Return the built-in world of a simulated bag, from its metadata and its ground truth; None for a real one."""
    seed = recording.metadata.get("world")
    start = recording.metadata.get("pose_world_start")
    if seed is None or start is None:
        return None
    world = generate_world(int(seed), from_mapping(WorldSettings, recording.metadata.get("world_settings", {})))
    poses = np.asarray(recording.poses_xyyaw, float)
    true = _true_poses(path, np.asarray(recording.stamps_s))
    if true is None:  # without ground truth, odometry from the known start pose is the best there is
        first = poses[0] if len(poses) else np.zeros(3)
        true = se2.compose(np.asarray(start, float)[None], se2.relative(first[None], poses))
    return Place(raycaster_of(world, recording.intrinsics, device, recording.T_base_camera), true, world.polygons())


def _true_poses(path: str, stamps_s: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return true world poses (N, 3) at ``stamps_s``, or None where the bag has no ground truth at all of them."""
    try:
        truth = read_trajectory(path, "bag", topic=TRUTH_TOPIC)
    except DataError:
        return None
    nearest = nearest_index(truth.stamps_s, stamps_s)
    return truth.poses_xyyaw[nearest] if np.abs(truth.stamps_s[nearest] - stamps_s).max() < 1e-3 else None
