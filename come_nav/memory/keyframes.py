"""Key frames: images of where the robot has been, with poses and times, and the ways between them.

"Go to where you were at time t" needs an image and a chain of images that leads there. A frame is kept where the
robot has moved or turned enough. Images are kept compressed; when there are too many, those go whose neighbours in
the chain lie closest together, so that the whole drive stays covered, only more coarsely.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_choice, check_range, check_shape
from come_nav.core.errors import DataError, ShapeError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import Frame
from come_nav.memory.poses import as_transform

ARRAYS = ("stamps_s", "poses_xyyaw", "legs", "images", "ends")


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
    """

    index: int
    stamp_s: float
    pose_odom_xyyaw: NDArray[np.float64]
    rgb: NDArray[np.uint8]


class Keyframes:
    """Kept frames in the order of time. Bounded by ``max_count``."""

    def __init__(self, config: KeyframesSettings | None = None) -> None:
        self.config = config or KeyframesSettings()
        self.clear()

    def clear(self) -> None:
        """Forget all frames."""
        self._images: list[bytes] = []
        self._stamps: list[float] = []
        self._poses: list[NDArray[np.float64]] = []
        self._legs: list[int] = []
        self._leg = 0
        self.rejected: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._images)

    @property
    def stamps_s(self) -> NDArray[np.float64]:
        """Times (N,), increasing within a leg."""
        return np.array(self._stamps, np.float64)

    @property
    def poses_xyyaw(self) -> NDArray[np.float64]:
        """Planar poses (N, 3) in the odom frame."""
        return np.array(self._poses, np.float64).reshape(-1, 3)

    @property
    def nbytes(self) -> int:
        """Memory of the images in bytes."""
        return sum(len(image) for image in self._images)

    def begin_leg(self) -> None:
        """Say that the robot may have been carried: no way leads from the last kept frame to the next one."""
        self._leg += 1

    def observe(self, frame: Frame, T_odom_base: NDArray[Any]) -> bool:
        """Keep a frame if the robot has moved enough since the last kept one; return whether it was kept.

        ``T_odom_base`` is (4, 4) or planar (3,). Frames with an impossible pose or out of order are counted in
        ``rejected``.
        """
        transform = as_transform(T_odom_base)
        if transform is None or not np.isfinite(frame.stamp_s):
            self.rejected["bad_pose" if transform is None else "bad_stamp"] += 1
            return False
        pose = se3.xyyaw_from_transform(transform)
        if self._images and self._legs[-1] == self._leg:
            if frame.stamp_s <= self._stamps[-1]:
                self.rejected["out_of_order"] += 1
                return False
            moved = se2.relative(self._poses[-1], pose)
            if np.hypot(moved[0], moved[1]) < self.config.spacing_m and abs(moved[2]) < self.config.spacing_rad:
                return False
        self._images.append(self._compress(frame.rgb))
        self._stamps.append(float(frame.stamp_s))
        self._poses.append(pose)
        self._legs.append(self._leg)
        if len(self._images) > self.config.max_count:
            self._drop(self._least_missed())
        return True

    def __getitem__(self, index: int) -> Keyframe:
        """Return frame ``index``, decoded."""
        if not 0 <= index < len(self):
            raise IndexError(f"key frame {index} of {len(self)}")
        return Keyframe(index, self._stamps[index], self._poses[index].copy(), _decompress(self._images[index]))

    def image_bytes(self, index: int) -> bytes:
        """Return the compressed image of frame ``index``."""
        return self._images[index]

    def at_time(self, stamp_s: float) -> Keyframe | None:
        """Return the frame nearest in time, or None without frames: the goal "where you were at time t"."""
        return self[int(np.argmin(np.abs(self.stamps_s - stamp_s)))] if len(self) else None

    def nearest_pose(self, pose_odom_xyyaw: NDArray[Any], metres_per_rad: float = 0.5) -> Keyframe | None:
        """Return the frame nearest to a pose (3,), a radian counted as so many metres; None without frames."""
        if not len(self):
            return None
        return self[int(np.argmin(self._distances(np.asarray(pose_odom_xyyaw, float), metres_per_rad)))]

    def chain(self, start: int, goal: int, metres_per_rad: float = 0.2) -> list[int] | None:
        """Return frames from ``start`` to ``goal``, both included, along the shortest known way; None if there is none.

        Frames are joined where the robot drove from one to the next, and where it came close to a place again. The
        length of a join is its distance, turns counted with ``metres_per_rad`` (Dijkstra's algorithm).

        Raises:
            DataError: for an index that is no frame.
        """
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import dijkstra

        for index in (start, goal):
            if not 0 <= index < len(self):
                raise DataError(f"key frame {index} must be in [0, {len(self) - 1}]")
        first, second, length = self._joins(metres_per_rad)
        graph = csr_matrix((length, (first, second)), shape=(len(self), len(self)))
        distance, before = dijkstra(graph, directed=False, indices=[start], return_predecessors=True)
        if not np.isfinite(distance[0, goal]):
            return None
        chain = [goal]
        while chain[-1] != start:
            chain.append(int(before[0, chain[-1]]))
        return chain[::-1]

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything as plain arrays, e.g. for an npz file."""
        return {
            "stamps_s": self.stamps_s,
            "poses_xyyaw": self.poses_xyyaw,
            "legs": np.array(self._legs, np.int64),
            "images": np.frombuffer(b"".join(self._images), np.uint8),
            "ends": np.cumsum([len(image) for image in self._images], dtype=np.int64),
        }

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Replace all frames by those of :meth:`state`; a new leg begins, because the robot may have been moved since.

        Raises:
            ShapeError: for missing arrays, or ones that do not agree.
        """
        if "pictures" in state:  # as version 0.1 called them
            state = {**state, "images": state["pictures"]}
        missing = [name for name in ARRAYS if name not in state]
        if missing:
            raise ShapeError(f"key frames need the arrays {', '.join(ARRAYS)}; {', '.join(missing)} is missing")
        count = check_shape("stamps_s", state["stamps_s"], "N")["N"]
        check_shape("poses_xyyaw", state["poses_xyyaw"], f"{count} 3")
        for name in ("legs", "ends"):
            check_shape(name, state[name], f"{count}")
        images = state["images"].tobytes()
        ends = [0, *(int(end) for end in state["ends"])]
        if ends != sorted(ends) or ends[-1] != len(images):
            raise ShapeError(f"the images of {count} key frames must fill {ends[-1]} bytes, got {len(images)}")
        self.clear()
        self._images = [images[ends[index] : ends[index + 1]] for index in range(count)]
        self._stamps = [float(stamp) for stamp in state["stamps_s"]]
        self._poses = [np.array(pose, np.float64) for pose in state["poses_xyyaw"]]
        self._legs = [int(leg) for leg in state["legs"]]
        self._leg = max(self._legs, default=-1) + 1
        while len(self) > self.config.max_count:
            self._drop(self._least_missed())

    def _distances(self, pose: NDArray[np.float64], metres_per_rad: float) -> NDArray[np.float64]:
        delta = se2.relative(pose[None], self.poses_xyyaw)
        distances: NDArray[np.float64] = np.hypot(delta[:, 0], delta[:, 1]) + metres_per_rad * np.abs(delta[:, 2])
        return distances

    def _joins(self, metres_per_rad: float) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
        """Return which frames (J,), (J,) are joined, and how long each join (J,) is."""
        from scipy.spatial import cKDTree

        poses, legs = self.poses_xyyaw, np.array(self._legs)
        driven = np.flatnonzero(legs[1:] == legs[:-1])
        close = cKDTree(poses[:, :2]).query_pairs(self.config.join_m, output_type="ndarray")
        turn = np.abs(se2.wrap_angle(poses[close[:, 0], 2] - poses[close[:, 1], 2]))
        close = close[turn <= self.config.join_rad]
        pairs = np.unique(np.concatenate([np.stack([driven, driven + 1], axis=1), np.sort(close, axis=1)]), axis=0)
        delta = se2.relative(poses[pairs[:, 0]], poses[pairs[:, 1]])
        length = np.hypot(delta[:, 0], delta[:, 1]) + metres_per_rad * np.abs(delta[:, 2])
        return pairs[:, 0], pairs[:, 1], np.maximum(length, 1e-6)  # a zero would be no join in a sparse matrix

    def _least_missed(self) -> int:
        """Return the frame between whose neighbours the robot moved least; the first and the last of a leg stay."""
        poses, legs = self.poses_xyyaw, np.array(self._legs)
        across = se2.relative(poses[:-2], poses[2:])
        gap = (
            np.hypot(across[:, 0], across[:, 1]) / self.config.spacing_m
            + np.abs(across[:, 2]) / self.config.spacing_rad
        )
        gap = np.where(legs[:-2] == legs[2:], gap, np.inf)
        return int(np.argmin(gap)) + 1 if np.isfinite(gap).any() else 0

    def _drop(self, index: int) -> None:
        for values in (self._images, self._stamps, self._poses, self._legs):
            del values[index]

    def _compress(self, rgb: NDArray[np.uint8]) -> bytes:
        import cv2

        bgr = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGR)
        options = [] if self.config.image_format == "png" else [cv2.IMWRITE_JPEG_QUALITY, self.config.jpeg_quality]
        done, data = cv2.imencode(".png" if self.config.image_format == "png" else ".jpg", bgr, options)
        if not done:
            raise DataError(f"an image of shape {rgb.shape} cannot be compressed as {self.config.image_format}")
        return bytes(data.tobytes())


def _decompress(image: bytes) -> NDArray[np.uint8]:
    import cv2

    bgr = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise DataError("a key frame's image is damaged; verify the memory it was loaded from")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
