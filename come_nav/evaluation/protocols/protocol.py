"""The planning protocol of NWM: a few context frames, a goal frame two seconds later, one open-loop plan per window."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.checks import check_choice, check_range
from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2
from come_nav.core.protocols import Recording
from come_nav.core.types import Frame, footprint_extrinsics

CHOICES = ("even", "random")
SEED_WORDS = {"image": "picture"}  # other words would draw other noise than published figures stand on
_GAP_STEPS = 2.5  # a step longer than this many median steps is a hole that no window may cross


@dataclass(frozen=True)
class ProtocolSettings:
    """What a window is.

    Attributes:
        context_frames: frames that the model sees, the newest at the start pose, >= 2 (two give a velocity).
        horizon_steps: waypoints of a plan, >= 1.
        rate_hz: waypoints per second, > 0; the goal is the frame ``horizon_steps / rate_hz`` seconds ahead.
        choice: ``even`` spreads the windows over the recording, ``random`` draws them with ``seed``.
        seed: of the random choice, of every plan and of the bootstrap.
        part: fractions (first, last) of each recording's frames; a window, its context and goal included, lies inside.
    """

    context_frames: int = 4
    horizon_steps: int = 8
    rate_hz: float = 4.0
    choice: str = "even"
    seed: int = 0
    part: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_range("context_frames", self.context_frames, 2)
        check_range("horizon_steps", self.horizon_steps, 1)
        check_range("rate_hz", self.rate_hz, 0.0, 1000.0, open_low=True)
        check_choice("choice", self.choice, CHOICES)
        check_range("seed", self.seed, 0)
        first, last = self.part
        if not 0.0 <= first < last <= 1.0:
            raise ConfigError(f"part must be fractions 0 <= first < last <= 1, got {first:g}-{last:g}")

    @property
    def horizon_s(self) -> float:
        """Time from the start to the goal."""
        return self.horizon_steps / self.rate_hz

    def frames_of(self, count: int) -> range:
        """Return the indices that ``part`` leaves of a recording of ``count`` frames.

        Training cuts at the same frames (``data.recording_use``), so that 0-0.6 and 0.6-1 share none.
        """
        return range(*(round(fraction * count) for fraction in self.part))


@dataclass(frozen=True)
class Window:
    """One planning problem: stand at frame ``start``, reach the view of frame ``goal``.

    Attributes:
        recording: where the frames come from.
        recording_id: unique name of the recording in this evaluation.
        context: indices of the context frames, oldest first; the last is the start.
        goal: index of the goal frame.
        dt_s: time between waypoints, so that the last waypoint is reached at the goal frame's own stamp.
        rel_frames: time of the goal after the start, in frames of the protocol rate.
        driven_xyyaw: (T, 3) truth: the pose really reached at each waypoint's time, in the start frame.
        context_xyyaw: (C, 3) poses of the context frames in the start frame (the last is zero).
        context_stamps_s: (C,) their times relative to the start (the last is zero).
        seed: of the evaluation.
    """

    recording: Recording = field(repr=False)
    recording_id: str
    context: tuple[int, ...]
    goal: int
    dt_s: float
    rel_frames: float
    driven_xyyaw: NDArray[np.float64] = field(repr=False)
    context_xyyaw: NDArray[np.float64] = field(repr=False)
    context_stamps_s: NDArray[np.float64] = field(repr=False)
    seed: int = 0

    @property
    def start(self) -> int:
        """Index of the newest context frame."""
        return self.context[-1]

    @property
    def start_odom_xyyaw(self) -> NDArray[np.float64]:
        """Pose (3,) of the start frame in the recording's odom frame."""
        return np.asarray(self.recording.poses_xyyaw[self.start], float)

    @property
    def stamp_s(self) -> float:
        """Time of the start."""
        return float(self.recording.stamps_s[self.start])

    @property
    def initial_twist(self) -> NDArray[np.float64]:
        """Twist (3,) vx m/s, vy m/s, w rad/s of the last context motion."""
        before, now = self.context_xyyaw[-2], self.context_xyyaw[-1]
        step_s = float(self.context_stamps_s[-1] - self.context_stamps_s[-2])
        return np.array(se2.planar_twist_between(before, now, step_s))

    def context_frames(self) -> list[Frame]:
        """Read the context frames, oldest first."""
        return [self.recording.frame(index) for index in self.context]

    def over_footprint(self, frames: Sequence[Frame], indices: Sequence[int] | None = None) -> list[Frame]:
        """Return frames of the recording (the context's, or ``indices``) with their cameras over their planar poses."""
        poses = np.asarray(self.recording.T_odom_base, float)[list(self.context if indices is None else indices)]
        return [frame.over_footprint(pose) for frame, pose in zip(frames, poses, strict=True)]

    def goal_frame(self) -> Frame:
        """Read the goal frame."""
        return self.recording.frame(self.goal)

    def generator(self, purpose: str = "plan", device: str | torch.device = "cpu") -> torch.Generator:
        """Return a generator whose seed depends on the evaluation's seed, this window and ``purpose`` alone.

        Rows are therefore paired (they draw the same numbers) and the order of windows does not matter.
        """
        words = f"{self.seed}/{self.recording_id}/{self.start}/{SEED_WORDS.get(purpose, purpose)}"
        number = int.from_bytes(hashlib.sha256(words.encode("utf-8", "surrogateescape")).digest()[:7], "big")
        return torch.Generator(device=device).manual_seed(number)


def extrinsics_over_footprint(recording: Recording, indices: Sequence[int]) -> NDArray[np.float64] | None:
    """Return how the camera was mounted over the planar pose at frames (N, 4, 4); None where it is not known."""
    if recording.T_base_camera is None:
        return None
    return footprint_extrinsics(np.asarray(recording.T_odom_base, float)[list(indices)], recording.T_base_camera)


def possible_starts(recording: Recording, config: ProtocolSettings) -> list[tuple[int, int]]:
    """Return (start, goal) of every window that fits in the recording without crossing a gap."""
    stamps_s = np.asarray(recording.stamps_s, float)
    if len(stamps_s) < 2:
        return []
    median_s = float(np.median(np.diff(stamps_s)))
    segment = segments_of_recording(recording)
    part = config.frames_of(len(stamps_s))
    found = []
    for start in range(part.start + config.context_frames - 1, part.stop - 1):
        goal_s = stamps_s[start] + config.horizon_s
        goal = start + 1 + int(np.argmin(np.abs(stamps_s[start + 1 : part.stop] - goal_s)))
        whole = segment[start - config.context_frames + 1] == segment[goal]
        if whole and abs(stamps_s[goal] - goal_s) <= 0.5 * median_s + 1e-6:
            found.append((start, goal))
    return found


def segments_of(stamps_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the number (N,) of the stretch without a gap that each frame lies in."""
    steps_s = np.diff(stamps_s)
    gaps = steps_s > _GAP_STEPS * np.median(steps_s) if len(steps_s) else steps_s > 0.0
    return np.concatenate([np.zeros(min(1, len(stamps_s)), np.int64), np.cumsum(gaps)])


def segments_of_recording(recording: Recording) -> NDArray[np.int64]:
    """Return the number (N,) of the stretch that each frame lies in, cut at gaps and where the reader cut it."""
    stamps_s = np.asarray(recording.stamps_s, float)
    number = segments_of(stamps_s)
    for first, _ in getattr(recording, "segments", [])[1:]:  # also where the pose jumps or the camera froze
        if 0 < first < len(number) and number[first] == number[first - 1]:
            number[first:] += 1
    return number


def choose_windows(
    recordings: Sequence[tuple[str, Recording]], config: ProtocolSettings, count: int | None
) -> list[Window]:
    """Choose ``count`` windows, spread as evenly as possible over the recordings; None takes every window.

    Args:
        recordings: (unique name, recording); windows come in this order.
        config: what a window is.
        count: how many; fewer come back when the recordings hold fewer.

    Raises:
        DataError: when a recording holds no window at all, saying how many frames one needs.
    """
    if count is not None:
        check_range("windows", count, 1)
    starts = [possible_starts(recording, config) for _, recording in recordings]
    for (name, recording), found in zip(recordings, starts, strict=True):
        if not found:
            raise DataError(_too_short(name, recording, config))
    shares = shares_of([len(found) for found in starts], count)
    windows = []
    for (name, recording), found, share in zip(recordings, starts, shares, strict=True):
        for index in _pick(len(found), share, config, name):
            windows.append(make_window(name, recording, *found[index], config))
    return windows


def make_window(name: str, recording: Recording, start: int, goal: int, config: ProtocolSettings) -> Window:
    """Build the window of ``recording`` that starts at frame ``start`` and ends at frame ``goal``."""
    context = np.arange(start - config.context_frames + 1, start + 1)
    stamps_s, poses = np.asarray(recording.stamps_s, float), np.asarray(recording.poses_xyyaw, float)
    span_s = float(stamps_s[goal] - stamps_s[start])
    dt_s = span_s / config.horizon_steps
    local = se2.relative(poses[start][None], poses[start : goal + 1])
    times_s = stamps_s[start : goal + 1] - stamps_s[start]
    wanted_s = dt_s * np.arange(1, config.horizon_steps + 1)
    columns = [local[:, 0], local[:, 1], np.unwrap(local[:, 2])]
    driven = np.stack([np.interp(wanted_s, times_s, column) for column in columns], axis=1)
    driven[:, 2] = se2.wrap_angle(driven[:, 2])
    return Window(
        recording=recording,
        recording_id=name,
        context=tuple(int(index) for index in context),
        goal=goal,
        dt_s=dt_s,
        rel_frames=span_s * config.rate_hz,
        driven_xyyaw=driven,
        context_xyyaw=se2.relative(poses[start][None], poses[context]),
        context_stamps_s=stamps_s[context] - stamps_s[start],
        seed=config.seed,
    )


def waypoint_spacing_m(windows: Sequence[Window]) -> float:
    """Return the mean distance in metres between waypoints really driven: the unit of NWM's figures."""
    steps = [np.diff(window.driven_xyyaw[:, :2], axis=0, prepend=np.zeros((1, 2))) for window in windows]
    return float(np.linalg.norm(np.concatenate(steps), axis=1).mean())


def shares_of(available: list[int], count: int | None) -> list[int]:
    """Deal ``count`` windows out one by one in turn, never more than a recording has."""
    if count is None or count >= sum(available):
        return available
    shares = [0] * len(available)
    while count > 0:
        open_recordings = [index for index, limit in enumerate(available) if shares[index] < limit]
        for index in open_recordings[:count]:
            shares[index] += 1
        count -= min(count, len(open_recordings))
    return shares


def _pick(available: int, share: int, config: ProtocolSettings, name: str) -> list[int]:
    if share >= available:
        return list(range(available))
    if config.choice == "random":
        digest = hashlib.sha256(f"{config.seed}/{name}/windows".encode()).digest()
        drawn = np.random.default_rng(int.from_bytes(digest[:8], "big")).permutation(available)[:share]
        return sorted(int(index) for index in drawn)
    # The middles of `share` equal parts: two windows are as far apart as the recording allows.
    return [int((2 * part + 1) * available / (2 * share)) for part in range(share)]


def _too_short(name: str, recording: Recording, config: ProtocolSettings) -> str:
    part = config.frames_of(len(recording))
    frames = len(part)
    needed_s = config.horizon_s + (config.context_frames - 1) / config.rate_hz
    length_s = float(recording.stamps_s[part[-1]] - recording.stamps_s[part[0]]) if frames else 0.0
    where = "" if config.part == (0.0, 1.0) else f" in its part {config.part[0]:g}-{config.part[1]:g}"
    return (
        f"{name}: no window fits: {frames} frames over {length_s:.1f} s{where}, but a window needs "
        f"{config.context_frames} context frames and {config.horizon_s:g} s ahead without a gap (about {needed_s:g} s)"
        "; record longer or lower --horizon"
    )
