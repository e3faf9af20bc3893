"""Trajectory folders of NWM and GNM: ``0.jpg .. T-1.jpg`` and ``traj_data.pkl`` with position (T, 2) m and yaw (T,)."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.protocols import Recording
from come_nav.core.restricted_pickle import load_arrays
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.data.atomic_folder import atomic_folder
from come_nav.data.timing.stamps import Gap

POSES_FILE = "traj_data.pkl"
JPEG_QUALITY = 95


@dataclass(frozen=True)
class NwmReport:
    """What was left out while a folder was opened."""

    rate_hz: float
    warnings: tuple[str, ...]
    gaps: tuple[Gap, ...] = ()


class NwmRecording:
    """core.protocols.Recording over a trajectory folder. The format has no stamps: frame i is at i / rate_hz."""

    intrinsics: CameraIntrinsics | None = None
    T_base_camera: NDArray[np.float64] | None = None

    def __init__(self, folder: Path, rate_hz: float = 4.0) -> None:
        check_range("rate_hz", rate_hz, 0.0, 1000.0, open_low=True)
        self.path, self.name, self.rate_hz = folder, folder.name, rate_hz
        self.poses_xyyaw = _read_poses(folder / POSES_FILE)
        count = len(self.poses_xyyaw)
        images = sum(1 for item in folder.glob("*.jpg") if item.stem.isdigit())
        missing = next((index for index in range(count) if not (folder / f"{index}.jpg").is_file()), None)
        if missing is not None:
            raise DataError(f"{folder}: {POSES_FILE} has {count} poses but {missing}.jpg is missing; copy all images")
        extra = (f"{folder}: {images - count} images beyond the {count} poses are not used",) if images > count else ()
        self.report = NwmReport(rate_hz, extra)
        self.gaps: tuple[Gap, ...] = ()
        self.stamps_s: NDArray[np.float64] = np.arange(count) / rate_hz
        self.T_odom_base = se3.transform_from_xyyaw(self.poses_xyyaw)
        self.metadata: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.stamps_s)

    @property
    def segments(self) -> list[tuple[int, int]]:
        """Index ranges [first, last) without a gap inside: always one."""
        return [(0, len(self))]

    def frame(self, index: int) -> Frame:
        """Read and decode one image; raise DataError naming the file if it is damaged."""
        import cv2

        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        bgr = cv2.imread(str(self.path / f"{index}.jpg"), cv2.IMREAD_COLOR)
        if bgr is None:
            raise DataError(f"{self.path / f'{index}.jpg'}: the image is damaged; copy it again")
        return Frame(float(self.stamps_s[index]), np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8))

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
        (folder / POSES_FILE).write_bytes(pickle.dumps(content, protocol=4))
    return target


def _read_poses(path: Path) -> NDArray[np.float64]:
    content = load_arrays(path)
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
