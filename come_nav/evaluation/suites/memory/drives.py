"""Drives with a memory phase and a test phase: tours of built-in worlds, or recordings with depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError, DataError
from come_nav.core.protocols import Recording
from come_nav.core.settings import to_mapping
from come_nav.evaluation.protocols.memory_visibility import MAX_SIDE
from come_nav.evaluation.protocols.memory_windows import (
    MemoryDrive,
    MemoryWindow,
    RevisitLimits,
    Revisits,
    choose_limits,
    choose_memory_windows,
    choose_of_each,
    find_revisits,
)
from come_nav.evaluation.protocols.protocol import ProtocolSettings
from come_nav.evaluation.suites.fingerprints import digest
from come_nav.evaluation.suites.inputs import Input, open_recordings
from come_nav.evaluation.suites.memory.corrected import corrects, localised
from come_nav.evaluation.suites.memory.settings import RECALL, MemorySuiteSettings
from come_nav.evaluation.suites.worlds import (
    SMALL_PX,
    Place,
    drawn_raycaster,
    splits_of,
    surroundings_facts,
    surroundings_words,
    words_of,
)
from come_nav.navigation.settings import NavigationSettings
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.sensors.odometry import OdometrySettings
from come_nav.sim.sensors.settings import preset_name
from come_nav.sim.world_sets import world_set
from come_nav.sim.worlds import generate_world

DEFAULT_WINDOWS = 400
MEMORY_FRAMES = 320
RECALL_TEST_FRAMES, SHORT_PLAN_TEST_FRAMES, LONG_PLAN_TEST_FRAMES = 240, 1600, 480
SHORT_PLAN_FRAMES = 8  # goals so near are seldom hidden from the context, so that drives must be longer
FEWEST_WINDOWS = 20  # of a recording, before its limits are relaxed
FEWEST_MEMORY_FRAMES = 16
TARGETS_PER_WINDOW = 8  # looked at, where a window may have any offset
DRIVER = "tour"


@dataclass(frozen=True)
class MemoryInput:
    """What a memory suite evaluates.

    Attributes:
        source: recordings, places and groups, as the other suites take them.
        drives: by name, in the order of the recordings.
        drift_percent: of the odometry that the robot believes.
        strict: whether windows must fulfil the limits as they are; recordings may relax them.
        notes: what a reader must know, one line each.
    """

    source: Input
    drives: dict[str, MemoryDrive]
    drift_percent: float
    strict: bool
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Selection:
    """Windows, the limits that they fulfil (one of several where there are kinds) and what there is to say of them."""

    windows: list[MemoryWindow]
    limits: tuple[RevisitLimits, ...]
    notes: list[str]

    @property
    def stored(self) -> Any:
        """The limits as JSON values, for what a record depends on."""
        found = [{key: value for key, value in to_mapping(each).items() if value is not None} for each in self.limits]
        return found[0] if len(found) == 1 else found


def open_memory_input(
    settings: MemorySuiteSettings, navigation: NavigationSettings, rate_hz: float, longest: int
) -> MemoryInput:
    """Open what ``settings`` name; ``longest`` is the largest offset of a target in frames."""
    if settings.source.part is not None:
        raise ConfigError("--part is of the other suites; the memory suites take --memory-part, e.g. 0-0.6")
    if settings.source.paths:
        return _recordings(settings, navigation, rate_hz)
    return _worlds(settings, navigation, rate_hz, longest)


def select_windows(
    found: MemoryInput,
    protocol: ProtocolSettings,
    offsets: range,
    count: int,
    progress: Callable[[str], object],
    kinds: tuple[RevisitLimits, ...] = (),
) -> Selection:
    """Look for windows in every drive and choose ``count`` of them; ``progress`` is told the name of each drive.

    With ``kinds`` as many of each are chosen, as far as the drives hold them.
    """
    revisits: list[Revisits] = []
    share = -(-count // len(found.drives))
    for name, drive in found.drives.items():
        most = RevisitLimits.max_context_share if found.strict and not kinds else np.inf
        frames = len(drive.recording) - drive.memory.stop
        stride = max(1, frames // (TARGETS_PER_WINDOW * share)) if len(offsets) > 1 else 1
        revisits.append(find_revisits(drive, offsets, protocol.context_frames, most_visible=most, stride=stride))
        progress(name)
    if kinds:
        limits, windows = kinds, choose_of_each(revisits, kinds, protocol, count)
    else:
        wanted = min(count, FEWEST_WINDOWS * len(revisits))
        limits = (RevisitLimits() if found.strict else choose_limits(revisits, wanted),)
        windows = choose_memory_windows(revisits, limits[0], protocol, count)
    if not windows:
        described = "; or ".join(each.describe() for each in limits)
        raise DataError(
            f"{found.source.title}: no target in the test phases was seen long before ({described}"
            "); raise --test-frames or take more --worlds"
        )
    return Selection(windows, limits, [*found.notes, *_notes(found, windows, count, limits, bool(kinds))])


def _notes(
    found: MemoryInput, windows: list[MemoryWindow], count: int, limits: tuple[RevisitLimits, ...], kinds: bool
) -> list[str]:
    notes = []
    if len(windows) < count:
        notes.append(f"{len(windows)} windows instead of {count}: there are no more; --test-frames makes drives longer")
    if not kinds and limits != (RevisitLimits(),):
        strict = f"the suite on built-in worlds asks for {RevisitLimits().describe()}"
        notes.append(f"limits relaxed to what the recording allows: {limits[0].describe()} ({strict})")
    per_drive = [sum(window.window.recording_id == name for window in windows) for name in found.drives]
    if len(per_drive) > 1:
        notes.append(f"windows per drive: {min(per_drive)} to {max(per_drive)}, on average {np.mean(per_drive):.1f}")
    return notes


def _worlds(settings: MemorySuiteSettings, navigation: NavigationSettings, rate_hz: float, longest: int) -> MemoryInput:
    """Drive one tour in every world: a memory phase, then a test phase."""
    seeds, suite = settings.source.worlds, settings.source.suite
    memory = int(check_range("--memory-frames", settings.memory_frames or MEMORY_FRAMES, FEWEST_MEMORY_FRAMES, 4000))
    asked = settings.test_frames or frames_to_test(suite, longest)
    test = int(check_range("--test-frames", asked, longest + 4, 20000))
    drift = check_range("--drift", settings.drift_percent, 0.0, 50.0)
    sensors = settings.source.sensors
    odometry = OdometrySettings.from_percent(drift) if drift else sensors.odometry
    camera_px = settings.source.camera_px
    corrected = corrects(camera_px, navigation)
    drives, places, groups = {}, {}, {}
    for seed in seeds:
        world = generate_world(seed, world_set(settings.source.world_set))
        raycaster = drawn_raycaster(world, sensors, navigation.seed, navigation.device, camera_px)
        episode = simulate_episode(world, DRIVER, (memory + test - 1) / rate_hz, rate_hz, navigation.seed, odometry)
        name = f"world {seed} {DRIVER}"
        truth = EpisodeRecording(episode, raycaster, use_truth=True, sensors=sensors)
        believed: Recording = truth if odometry.perfect else EpisodeRecording(episode, raycaster, sensors=sensors)
        remembered = None
        if corrected:
            believed, remembered = localised(believed, range(memory), navigation)
        drives[name] = MemoryDrive(name, believed, truth, range(memory), remembered)
        places[name] = Place(raycaster, np.asarray(episode.poses_world_xyyaw, float), world.polygons())
        groups[name] = f"world {seed}"
    camera = (
        {}
        if settings.source.camera_px == SMALL_PX
        else {"camera_px": list(settings.source.camera_px), "corrected": corrected}
    )
    poses = np.concatenate([drive.recording.poses_xyyaw for drive in drives.values()])
    source = Input(
        title=f"{suite} in built-in worlds {words_of(seeds)}"
        + (f", {drift:g} % drift" if drift else "")
        + (", corrected" if corrected else "")
        + surroundings_words(sensors, settings.source.world_set),
        recordings=[(name, drive.recording) for name, drive in drives.items()],
        fingerprint={
            "suite": suite,
            "worlds": f"{seeds.start}-{seeds.stop - 1}",
            "memory_frames": memory,
            "test_frames": test,
            "driver": DRIVER,
            "drift_percent": drift,
            **surroundings_facts(sensors, settings.source.world_set),
            "poses": digest(np.concatenate([*(place.poses_world_xyyaw for place in places.values()), poses])),
            **camera,
        },
        default_windows=DEFAULT_WINDOWS,
        places=places,
        groups=groups if len(seeds) > 1 else None,
        facts={"splits": splits_of(seeds), "sensors": preset_name(sensors), "set_of_worlds": settings.source.world_set},
    )
    return MemoryInput(source, drives, drift, strict=True)


def frames_to_test(suite: str, longest: int) -> int:
    """Return how long a test phase must be for some 20 windows in a world."""
    if suite == RECALL:
        return RECALL_TEST_FRAMES
    return SHORT_PLAN_TEST_FRAMES if longest <= SHORT_PLAN_FRAMES else LONG_PLAN_TEST_FRAMES


def _recordings(settings: MemorySuiteSettings, navigation: NavigationSettings, rate_hz: float) -> MemoryInput:
    """Split every recording: memory from its ``memory_part``, windows from what comes after it."""
    if settings.drift_percent:
        raise ConfigError("--drift is of the built-in worlds; a recording has its own odometry")
    first, last = settings.memory_part
    source = open_recordings(settings.source, rate_hz, navigation.device)
    drives = {}
    for name, recording in source.recordings:
        count = len(recording)
        memory = range(round(first * count), round(last * count))
        if len(memory) < FEWEST_MEMORY_FRAMES or memory.stop > count - 8:
            raise ConfigError(
                f"--memory-part {first:g}-{last:g} leaves {name} {len(memory)} frames to remember and "
                f"{count - memory.stop} to test; it needs at least {FEWEST_MEMORY_FRAMES} and 8"
            )
        drives[name] = MemoryDrive(name, recording, recording, memory)
    fingerprint = {**source.fingerprint, "memory_part": [first, last], "depth_side": MAX_SIDE}
    return MemoryInput(
        replace(source, fingerprint=fingerprint, title=f"{settings.source.suite}: {source.title}"),
        drives,
        0.0,
        strict=False,
    )
