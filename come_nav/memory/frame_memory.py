"""Frames of the whole episode, to be looked at again: those that show what lies ahead, however old they are.

A short-term memory holds the newest frames; what the robot saw before it came to where it is has left it. Here a frame
is kept wherever the robot has moved or turned enough, as small as the world model sees it, with its depth; and those
are found again whose view overlaps with the views that are wanted (:mod:`come_nav.memory.retrieval`).

Poses come and go in odom as it is now; they are kept in map, and move with the robot's anchors.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from come_nav.core.geometry import se2
from come_nav.core.types import Frame
from come_nav.memory.keyframe_ways import least_missed
from come_nav.memory.map_frame import MapFrame
from come_nav.memory.retrieval import FrameRetrieval
from come_nav.memory.retrieval_settings import FrameMemorySettings
from come_nav.memory.short_term import Remembered
from come_nav.memory.spatial.latent.features import depth_of_cells
from come_nav.memory.spatial.lifting import centred_window, fits

TURN_RAD = 0.8  # to either side, of the views that frames are chosen for


class FrameMemory:
    """Kept frames in the order of time. Bounded by ``max_frames``. One thread may observe while another looks.

    Attributes:
        rejected: how many frames could not be kept, by the reason.
    """

    def __init__(self, config: FrameMemorySettings | None = None, image_size: int = 64, aspect: float = 1.0) -> None:
        """Begin empty; frames are kept as a model sees them with images of ``image_size`` and ``aspect``."""
        self.config = config or FrameMemorySettings()
        self._image_size, self._aspect = image_size, aspect
        self._lock = threading.RLock()
        self.clear()

    def clear(self) -> None:
        """Forget all frames."""
        with self._lock:
            self.map_frame = MapFrame()
            self.rejected: Counter[str] = Counter()
            self._found = FrameRetrieval(self.config)
            self._frames: list[Frame] = []  # without their depth
            self._depths: list[NDArray[np.float16] | None] = []
            self._anchors: list[int] = []

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def poses_xyyaw(self) -> NDArray[np.float64]:
        """Planar poses (N, 3) in the odom frame as it is now."""
        return self.map_frame.to_odom(self._found.poses_xyyaw)

    @property
    def nbytes(self) -> int:
        """Memory of the frames in bytes."""
        depths = sum(0 if depth_m is None else depth_m.nbytes for depth_m in self._depths)
        return self._found.nbytes + depths + sum(frame.rgb.nbytes for frame in self._frames)

    def observe(self, seen: Remembered) -> bool:
        """Keep a frame of the short-term memory if the robot has moved enough; return whether it was kept."""
        camera, frame = seen.frame.intrinsics, seen.frame
        if camera is None or frame.T_base_camera is None or not fits(camera, frame.rgb.shape):
            self.rejected["no_calibration"] += 1
            return False
        pose, poses = self.map_frame.to_map(seen.pose_odom_xyyaw), self._found.poses_xyyaw
        if len(poses) and not se2.is_apart(poses[-1], pose, self.config.spacing_m, self.config.spacing_rad):
            return False
        kept = reduced(frame, self._image_size, self._aspect)
        with self._lock:
            self._found.add(kept, pose)
            self._frames.append(replace(kept, depth_m=None))
            self._depths.append(None if kept.depth_m is None else kept.depth_m.astype(np.float16))
            self._anchors.append(self.map_frame.anchor)
            self._make_room()
        return True

    def move(self, corrections_xyyaw: NDArray[np.float64], outside_xyyaw: NDArray[np.float64] | None = None) -> None:
        """Take where odom lies in map (A, 3) as each anchor of the robot has it, and move what was kept there.

        ``outside_xyyaw`` (3,) is where another localiser says that odom lies in its map, if one does.
        """
        with self._lock:
            motions = self.map_frame.update(corrections_xyyaw, outside_xyyaw)
            if motions is None or not self._frames:
                return
            poses, anchors = self._found.poses_xyyaw, np.array(self._anchors)
            rows = np.flatnonzero((anchors >= 0) & (anchors < len(motions)))
            poses[rows] = se2.compose(motions[anchors[rows]], poses[rows])
            self._found.move(poses)

    def showing(self, now: Remembered, count: int, before_s: float) -> list[tuple[Frame, NDArray[np.float64]]]:
        """Return at most ``count`` frames with their poses (3,) in odom, oldest first, that show what lies ahead.

        Args:
            now: the newest frame; without a calibration nothing is found.
            count: most frames.
            before_s: only frames older than this.
        """
        camera, extrinsics = now.frame.intrinsics, now.frame.T_base_camera
        if camera is None or extrinsics is None or not fits(camera, now.frame.rgb.shape):
            return []
        with self._lock:
            views, poses = self._views(now.pose_odom_xyyaw), self.poses_xyyaw
            answer = self._found.query(views, camera, extrinsics, count, now.stamp_s, before_s)
            return [(self._frame(index), poses[index].copy()) for index in sorted(answer.indices.tolist())]

    def _frame(self, index: int) -> Frame:
        depth = self._depths[index]
        return replace(self._frames[index], depth_m=None if depth is None else depth.astype(np.float32))

    def _views(self, pose_odom_xyyaw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the poses (6, 3) in map of the views that lie ahead of a pose in odom."""
        here = self.map_frame.to_map(np.asarray(pose_odom_xyyaw, np.float64))
        places = [se2.compose(here, np.array([0.0, 0.0, turn])) for turn in (-TURN_RAD, 0.0, TURN_RAD)]
        ahead = np.array([self.config.look_ahead_m, 0.0, 0.0])
        return np.stack([*places, *(se2.compose(place, ahead) for place in places)])

    def _make_room(self) -> None:
        while len(self._frames) > self.config.max_frames:
            poses, spacing = self._found.poses_xyyaw, (self.config.spacing_m, self.config.spacing_rad)
            index = least_missed(poses, np.zeros(len(poses), np.int64), spacing)
            self._found.drop(index)
            for kept in (self._frames, self._depths, self._anchors):
                del kept[index]


def reduced(frame: Frame, image_size: int, aspect: float) -> Frame:
    """Return what a model of square images of ``image_size`` sees of a calibrated frame, no larger than it uses it.

    The window of ``aspect`` = width / height is about ``image_size`` rows high; smaller images stay as they are. Depth
    is that of the pixel at each centre, as :func:`come_nav.world_model.depth_of_frames.measured_depth` reads it.
    Which pixels move is left out: networks look at all of them.
    """
    camera = frame.intrinsics
    assert camera is not None  # the caller has checked
    left, top, width, height = centred_window(camera.width, camera.height, aspect)
    rows, columns = _size(image_size, aspect)
    rows, columns = (height, width) if height <= rows else (rows, columns)
    window = np.ascontiguousarray(frame.rgb[top : top + height, left : left + width])
    image = torch.from_numpy(window).permute(2, 0, 1)[None].float()
    if (rows, columns) != (height, width):
        image = interpolate(image, (rows, columns), mode="bilinear", antialias=True, align_corners=False)
    rgb: NDArray[np.uint8] = image[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
    depth: NDArray[np.float32] | None = None
    if frame.depth_m is not None:
        depth = depth_of_cells(frame.depth_m[top : top + height, left : left + width], rows, columns, "nearest")
    small = camera.cropped(left, top, width, height).scaled(columns, rows)
    return replace(frame, rgb=rgb, depth_m=depth, intrinsics=small, moving=None)


def _size(image_size: int, aspect: float) -> tuple[int, int]:
    """Return the least rows, from ``image_size`` on, and columns that have ``aspect`` exactly, so that none is cut."""
    for rows in range(image_size, 2 * image_size):
        if abs(rows * aspect - round(rows * aspect)) < 1e-6:
            return rows, round(rows * aspect)
    return image_size, round(image_size * aspect)
