"""Trajectory folders of NWM and GNM: ``0.jpg .. T-1.jpg`` and ``traj_data.pkl`` with position (T, 2) m and yaw (T,)."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.errors import DataError
from come_nav.core.files import printable
from come_nav.core.geometry import se2, se3
from come_nav.core.protocols import Recording
from come_nav.core.restricted_pickle import load_arrays
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.data.atomic_folder import atomic_folder
from come_nav.data.image_files import file_contents, read_rgb
from come_nav.data.timing.motion import NEVER_MOVES, frozen_frames, never_moves, pose_jumps
from come_nav.data.timing.stamps import Gap, find_gaps, median_rate_hz, resample, with_cuts

POSES_FILE = "traj_data.pkl"
JPEG_QUALITY = 95
DEFAULT_RATE_HZ = 4.0  # of NWM
RATE_TOLERANCE = 0.1  # a folder's own rate within this of the asked one is the asked one
GAP_PERIODS = 2.5  # one missing frame is no gap, two are


@dataclass(frozen=True)
class NwmReport:
    """What was left out while a folder was opened."""

    rate_hz: float
    warnings: tuple[str, ...]
    gaps: tuple[Gap, ...] = ()
    pose_jumps: tuple[int, ...] = ()


class NwmRecording:
    """core.protocols.Recording over a trajectory folder.

    NWM's own folders have no stamps: frame i is then at i / rate_hz. Those that come_nav writes have them: frames are
    where they were, of a faster folder those nearest to the rate are chosen, and a slower one keeps its own rate.
    """

    intrinsics: CameraIntrinsics | None = None
    T_base_camera: NDArray[np.float64] | None = None

    def __init__(self, folder: Path, rate_hz: float | None = DEFAULT_RATE_HZ) -> None:
        if rate_hz is not None:
            check_range("rate_hz", rate_hz, 0.0, 1000.0, open_low=True)
        self.path, self.name = folder, printable(folder.name)
        content = load_arrays(folder / POSES_FILE)
        poses_xyyaw = _poses(folder / POSES_FILE, content)
        count = len(poses_xyyaw)
        images = sum(1 for item in folder.glob("*.jpg") if item.stem.isdigit())
        missing = next((index for index in range(count) if not (folder / f"{index}.jpg").is_file()), None)
        if missing is not None:
            raise DataError(f"{folder}: {POSES_FILE} has {count} poses but {missing}.jpg is missing; copy all images")
        notes: list[str] = []
        if images > count:
            notes.append(f"{folder}: {images - count} images beyond the {count} poses are not used")
        stamps_s = _stamps(folder / POSES_FILE, content, count)
        if stamps_s is None:
            rate_hz = rate_hz or DEFAULT_RATE_HZ
            notes.append(f"{folder}: holds no stamps; its frames are taken to be {1.0 / rate_hz:g} s apart")
            stamps_s = np.arange(count) / rate_hz
        self._index, self.rate_hz = _chosen(stamps_s, rate_hz, notes)
        self.stamps_s: NDArray[np.float64] = stamps_s[self._index]
        self.poses_xyyaw = poses_xyyaw[self._index]
        self.T_odom_base = se3.transform_from_xyyaw(self.poses_xyyaw)
        cuts = _cuts(folder, self._index, self.stamps_s, self.T_odom_base, notes)
        self.gaps: tuple[Gap, ...] = with_cuts(
            find_gaps(self.stamps_s, GAP_PERIODS / self.rate_hz), self.stamps_s, cuts
        )
        jumps = tuple(pose_jumps(self.stamps_s, self.T_odom_base).tolist())
        self.report = NwmReport(self.rate_hz, tuple(notes), self.gaps, jumps)
        self.metadata: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.stamps_s)

    @property
    def segments(self) -> list[tuple[int, int]]:
        """Index ranges [first, last) without a gap inside."""
        return list(pairwise([0, *(gap.index + 1 for gap in self.gaps), len(self)]))

    def frame(self, index: int) -> Frame:
        """Read and decode one image; raise DataError naming the file if it is damaged."""
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return Frame(float(self.stamps_s[index]), read_rgb(self.path / f"{self._index[index]}.jpg"))

    def close(self) -> None:
        """Do nothing: no file stays open between frames."""

    def __enter__(self) -> NwmRecording:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def write_nwm_folder(
    path: str | os.PathLike[str],
    recording: Recording,
    *,
    overwrite: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> Path:
    """Write the frames as JPEG and the planar poses as traj_data.pkl; all of it or nothing.

    The pickle has ``stamps_s`` (T,) beside NWM's keys, so that rate and gaps come back; NWM itself ignores it.

    Raises:
        StorageError: ``path`` exists or cannot be written.
        DataError: the recording is empty or a frame cannot be read.
    """
    import cv2

    target = Path(path)
    if not len(recording):
        raise DataError(f"{recording.name}: holds no frames, so there is nothing to write")
    with atomic_folder(target, overwrite, lambda folder: (folder / POSES_FILE).is_file()) as folder:
        folder.mkdir()
        for index in range(len(recording)):
            bgr = cv2.cvtColor(recording.frame(index).rgb, cv2.COLOR_RGB2BGR)
            _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            (folder / f"{index}.jpg").write_bytes(data.tobytes())
            if progress is not None:
                progress(1)
        poses = np.asarray(recording.poses_xyyaw, np.float64)
        content = {"position": np.ascontiguousarray(poses[:, :2]), "yaw": np.ascontiguousarray(poses[:, 2])}
        content["stamps_s"] = np.array(recording.stamps_s, np.float64)
        (folder / POSES_FILE).write_bytes(pickle.dumps(content, protocol=4))
    return target


def _stamps(path: Path, content: dict[str, Any], count: int) -> NDArray[np.float64] | None:
    """Return the stamps (T,) that the folder holds, None without any."""
    if "stamps_s" not in content:
        return None
    try:
        stamps_s = np.asarray(content["stamps_s"], np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: stamps_s must be an array of numbers ({error})") from error
    if stamps_s.shape != (count,) or not np.isfinite(stamps_s).all() or (np.diff(stamps_s) <= 0).any():
        raise DataError(f"{path}: stamps_s must be {count} increasing seconds; write the folder again")
    return stamps_s


def _chosen(stamps_s: NDArray[np.float64], rate_hz: float | None, notes: list[str]) -> tuple[NDArray[np.int64], float]:
    """Return the frames that are used, and their rate."""
    every = np.arange(len(stamps_s), dtype=np.int64)
    own_hz = median_rate_hz(stamps_s) or rate_hz or DEFAULT_RATE_HZ
    if rate_hz is None:
        return every, own_hz
    if own_hz < rate_hz * (1.0 - RATE_TOLERANCE):
        notes.append(f"images come at {own_hz:.2f} Hz, below {rate_hz:g} Hz: every frame is kept")
        return every, own_hz
    if own_hz > rate_hz * (1.0 + RATE_TOLERANCE):
        return resample(stamps_s, rate_hz).index, rate_hz
    return every, rate_hz


def _cuts(
    folder: Path,
    index: NDArray[np.int64],
    stamps_s: NDArray[np.float64],
    T_odom_base: NDArray[np.float64],
    notes: list[str],
) -> list[int]:
    """Return the frames behind which the recording is cut: jumps of the pose, and all of a camera that froze."""
    jumps = pose_jumps(stamps_s, T_odom_base)
    if len(jumps):
        notes.append(f"{folder}: the pose jumps at {len(jumps)} places, first after frame {jumps[0]}; it is cut there")
    if never_moves(se3.xyyaw_from_transform(T_odom_base)):
        notes.append(NEVER_MOVES.format(folder))
    content = file_contents([folder / f"{number}.jpg" for number in index])
    frozen = np.flatnonzero(frozen_frames(content, se3.xyyaw_from_transform(T_odom_base)))
    if len(frozen):
        notes.append(
            f"{folder}: {len(frozen)} images repeat the one before while the robot moves, as of a camera that froze; "
            f"it is cut there, first before frame {frozen[0]}"
        )
    return sorted({*jumps.tolist(), *frozen.tolist(), *(frozen - 1).tolist()})


def _poses(path: Path, content: Any) -> NDArray[np.float64]:
    if not isinstance(content, dict) or "position" not in content or "yaw" not in content:
        keys = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{path}: needs the keys 'position' and 'yaw', holds {keys or 'nothing'}")
    try:
        position = np.asarray(content["position"], np.float64)
        yaw_rad = np.asarray(content["yaw"], np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: position and yaw must be arrays of numbers ({error})") from error
    if position.ndim != 2 or position.shape[1] not in (2, 3) or not len(position):
        raise DataError(f"{path}: position must be (T, 2), got {position.shape}")
    if yaw_rad.shape not in ((len(position),), (len(position), 1)):
        raise DataError(f"{path}: yaw must be ({len(position)},) or ({len(position)}, 1), got {yaw_rad.shape}")
    poses = np.concatenate([position[:, :2], yaw_rad.reshape(-1, 1)], axis=1)
    if not np.isfinite(poses).all():
        raise DataError(f"{path}: pose {int(np.argmin(np.isfinite(poses).all(axis=1)))} is NaN or infinite")
    poses[:, 2] = se2.wrap_angle(poses[:, 2])
    return poses
