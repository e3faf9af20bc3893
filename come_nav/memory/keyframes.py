"""Key frames: images of where the robot has been, with poses and times, and the ways between them.

"Go to where you were at time t" needs an image and a chain of images that leads there. A frame is kept where the
robot has moved or turned enough. Images are kept compressed; when there are too many, those go whose neighbours in
the chain lie closest together, so that the whole drive stays covered, only more coarsely.

Poses come and go in odom as it is now; they are kept in map, and move with the robot's anchors (``Keyframes.move``).
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_choice, check_range
from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import Frame
from come_nav.memory.compressed_images import compress, decompress
from come_nav.memory.keyframe_state import KeptFrames
from come_nav.memory.keyframe_ways import least_missed, shortest_way
from come_nav.memory.map_frame import MapFrame
from come_nav.memory.poses import as_transform


@dataclass(frozen=True)
class KeyframesSettings:
    """Which frames are kept.

    Attributes:
        spacing_m: a frame is kept after this distance, m, > 0.
        spacing_rad: or after this turn, rad, > 0.
        max_count: most frames, >= 4.
        join_m: places this near to each other are joined into one way even if the robot never drove from one straight
            to the other, m, >= 0.
        join_rad: unless their headings differ by more than this, rad, >= 0.
        image_format: "jpeg" (small) or "png" (exact).
        jpeg_quality: 1 to 100.
    """

    spacing_m: float = 0.4
    spacing_rad: float = 0.5
    max_count: int = 1000
    join_m: float = 0.6
    join_rad: float = 3.15
    image_format: Literal["jpeg", "png"] = "jpeg"
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        for name in ("spacing_m", "spacing_rad"):
            check_range(f"keyframes.{name}", getattr(self, name), 0.0, open_low=True)
        for name in ("join_m", "join_rad"):
            check_range(f"keyframes.{name}", getattr(self, name), 0.0)
        check_range("keyframes.max_count", self.max_count, 4)
        check_choice("keyframes.image_format", self.image_format, ("jpeg", "png"))
        check_range("keyframes.jpeg_quality", self.jpeg_quality, 1, 100)


@dataclass(frozen=True)
class Keyframe:
    """One kept frame.

    Attributes:
        index: its place in the chain, valid until the next frame is kept.
        stamp_s: when it was taken.
        pose_odom_xyyaw: (3,) where base_link stood.
        rgb: (H, W, 3) uint8.
        compressed: the image as the JPEG or PNG file that is kept.
    """

    index: int
    stamp_s: float
    pose_odom_xyyaw: NDArray[np.float64]
    rgb: NDArray[np.uint8]
    compressed: bytes


_log = logging.getLogger(__name__)


class Keyframes:
    """Kept frames in the order of time. Bounded by ``max_count``.

    Attributes:
        revision: grows with every change, also of frames that make room for others or are moved.
    """

    def __init__(self, config: KeyframesSettings | None = None) -> None:
        self.config = config or KeyframesSettings()
        self.revision = 0
        self.clear()

    def clear(self) -> None:
        """Forget all frames."""
        self._kept = KeptFrames()
        self._leg = 0
        self.map_frame = MapFrame()
        self.rejected: Counter[str] = Counter()
        self.revision += 1

    def __len__(self) -> int:
        return len(self._kept.images)

    @property
    def stamps_s(self) -> NDArray[np.float64]:
        """Times (N,), increasing within a leg."""
        return np.array(self._kept.stamps_s, np.float64)

    @property
    def poses_xyyaw(self) -> NDArray[np.float64]:
        """Planar poses (N, 3) in the odom frame as it is now."""
        return self.map_frame.to_odom(np.array(self._kept.poses_xyyaw, np.float64).reshape(-1, 3))

    @property
    def nbytes(self) -> int:
        """Memory of the images in bytes."""
        return sum(len(image) for image in self._kept.images)

    def begin_leg(self) -> None:
        """Say that the robot may have been carried: no way leads from the last kept frame to the next one."""
        self._leg += 1
        self.revision += 1

    def observe(self, frame: Frame, T_odom_base: NDArray[Any]) -> bool:
        """Keep a frame if the robot has moved enough since the last kept one; return whether it was kept.

        ``T_odom_base`` is (4, 4) or planar (3,). Frames with an impossible pose or out of order are counted in
        ``rejected``.
        """
        transform = as_transform(T_odom_base)
        if transform is None or not np.isfinite(frame.stamp_s):
            self.rejected["bad_pose" if transform is None else "bad_stamp"] += 1
            return False
        pose = self.map_frame.to_map(se3.xyyaw_from_transform(transform))
        kept = self._kept
        if kept.images and kept.legs[-1] == self._leg:
            if frame.stamp_s <= kept.stamps_s[-1]:
                self.rejected["out_of_order"] += 1
                return False
            if not se2.is_apart(kept.poses_xyyaw[-1], pose, self.config.spacing_m, self.config.spacing_rad):
                return False
        kept.images.append(compress(frame.rgb, self.config.image_format, self.config.jpeg_quality))
        kept.stamps_s.append(float(frame.stamp_s))
        kept.poses_xyyaw.append(pose)
        kept.legs.append(self._leg)
        kept.anchors.append(self.map_frame.anchor)
        _make_room(kept, self.config)
        self.revision += 1
        return True

    def move(self, corrections_xyyaw: NDArray[np.float64], outside_xyyaw: NDArray[np.float64] | None = None) -> None:
        """Take where odom lies in map (A, 3) as each anchor of the robot has it, and move what was kept there.

        ``outside_xyyaw`` (3,) is where another localiser says that odom lies in its map, if one does.

        Raises:
            DataError: for corrections that are not finite.
        """
        motions = self.map_frame.update(corrections_xyyaw, outside_xyyaw)
        if motions is None:
            return
        self.revision += 1
        for index, anchor in enumerate(self._kept.anchors):
            if 0 <= anchor < len(motions) and motions[anchor].any():
                self._kept.poses_xyyaw[index] = se2.compose(motions[anchor], self._kept.poses_xyyaw[index])

    def __getitem__(self, index: int) -> Keyframe:
        """Return frame ``index``, decoded."""
        if not 0 <= index < len(self):
            raise IndexError(f"key frame {index} of {len(self)}")
        image = self._kept.images[index]
        pose = self.map_frame.to_odom(self._kept.poses_xyyaw[index]).copy()
        return Keyframe(index, self._kept.stamps_s[index], pose, decompress(image), image)

    def at_time(self, stamp_s: float) -> Keyframe | None:
        """Return the frame nearest in time, or None without frames: the goal "where you were at time t"."""
        return self[int(np.argmin(np.abs(self.stamps_s - stamp_s)))] if len(self) else None

    def nearest_pose(self, pose_odom_xyyaw: NDArray[Any], metres_per_rad: float = 0.5) -> Keyframe | None:
        """Return the frame nearest to a pose (3,), a radian counted as so many metres; None without frames."""
        if not len(self):
            return None
        delta = se2.relative(np.asarray(pose_odom_xyyaw, float)[None], self.poses_xyyaw)
        return self[int(np.argmin(np.hypot(delta[:, 0], delta[:, 1]) + metres_per_rad * np.abs(delta[:, 2])))]

    def chain(self, start: int, goal: int, metres_per_rad: float = 0.2) -> list[int] | None:
        """Return frames from ``start`` to ``goal``, both included, along the shortest known way; None if there is none.

        See :func:`come_nav.memory.keyframe_ways.shortest_way`. Raises DataError for an index that is no frame.
        """
        for index in (start, goal):
            if not 0 <= index < len(self):
                raise DataError(f"key frame {index} must be in [0, {len(self) - 1}]")
        join = (self.config.join_m, self.config.join_rad)
        return shortest_way(self.poses_xyyaw, np.array(self._kept.legs), join, start, goal, metres_per_rad)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything as plain arrays, e.g. for an npz file; poses in map."""
        return {**self._kept.packed(), "T_map_odom_xyyaw": self.map_frame.T_map_odom_xyyaw.copy()}

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Replace all frames by those of :meth:`state`; a new leg begins, because the robot may have been moved since.

        Raises:
            ShapeError: for missing arrays, or ones that do not agree.
        """
        kept, frame = KeptFrames.unpacked(state), self.map_frame
        self.clear()
        self._kept, self._leg = kept, max(kept.legs, default=-1) + 1
        frame.settle(max(kept.anchors, default=-1) + 1, state.get("T_map_odom_xyyaw", np.zeros(3)))
        self.map_frame = frame
        count = len(kept.images)
        _make_room(kept, self.config)
        if len(kept.images) < count:
            _log.warning(
                "%d of %d saved key frames are kept, and the next save holds no others: keyframes.max_count is %d",
                len(kept.images),
                count,
                self.config.max_count,
            )


def frame_keys(keyframes: Keyframes) -> list[tuple[int, float]]:
    """Return leg and time (s) of each frame, which no other frame of them has."""
    kept = keyframes._kept
    return [(int(leg), float(stamp_s)) for leg, stamp_s in zip(kept.legs, kept.stamps_s, strict=True)]


def _make_room(kept: KeptFrames, config: KeyframesSettings) -> None:
    """Drop frames beyond ``max_count``: those between whose neighbours the robot moved least."""
    while len(kept.images) > config.max_count:
        poses = np.array(kept.poses_xyyaw, np.float64)
        kept.drop(least_missed(poses, np.array(kept.legs), (config.spacing_m, config.spacing_rad)))
