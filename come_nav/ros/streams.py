"""Joins camera, depth, calibration and odometry by the stamps in their headers, whatever order they arrive in."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.types import Frame, Odometry
from come_nav.data.bags.calibration import read_lens
from come_nav.data.bags.images import Depth, decode_colour, decode_depth
from come_nav.data.cameras.depth_alignment import DepthView, align_depth
from come_nav.data.cameras.lens import Lens
from come_nav.data.timing.odometry_track import CLOCK_JUMP_S, OdometryTrack


@dataclass(frozen=True)
class Matched:
    """Messages of one instant, still undecoded."""

    stamp_s: float
    image: Any
    depth: Any | None
    info: Any | None
    odometry: Odometry


class Synchroniser:
    """Releases an image once odometry (and depth, where it is wanted) of its time is there.

    Images are released in order. One that waits longer than ``patience_s`` of stamps for its depth goes without if
    ``depth`` is "optional" and is dropped if it is "required"; without odometry it is dropped. Reasons are counted.
    """

    def __init__(self, depth: str = "none", slop_s: float = 0.05, patience_s: float = 0.6, capacity: int = 32) -> None:
        self._depth_mode, self._slop_s, self._patience_s = depth, slop_s, patience_s
        self._images: deque[tuple[float, Any]] = deque()
        self._depths: deque[tuple[float, Any]] = deque(maxlen=capacity)
        self._capacity = capacity
        self._info: Any | None = None
        self.track = OdometryTrack()
        self.dropped: Counter[str] = Counter()

    def add_image(self, stamp_s: float, message: Any) -> None:
        """Take a colour image."""
        if self._images and stamp_s < self._images[-1][0] - CLOCK_JUMP_S:
            self._images.clear()
            self._depths.clear()
        self._images.append((stamp_s, message))
        if len(self._images) > self._capacity:
            self._images.popleft()
            self.dropped["no odometry" if self.track.newest is None else "queue full"] += 1

    def add_depth(self, stamp_s: float, message: Any) -> None:
        """Take a depth image."""
        self._depths.append((stamp_s, message))

    def set_info(self, message: Any) -> None:
        """Take the newest calibration."""
        self._info = message

    def add_odometry(self, odometry: Odometry) -> bool:
        """Take odometry; return True when the clock jumped back."""
        return self.track.add(odometry)

    @property
    def due(self) -> bool:
        """Whether an image waits whose odometry has come."""
        newest = self.track.newest
        return bool(self._images) and newest is not None and newest.stamp_s >= self._images[0][0]

    def clear(self) -> None:
        """Forget what waits; the counters and the calibration stay."""
        self._images.clear()
        self._depths.clear()
        self.track.clear()

    def ready(self) -> Iterator[Matched]:
        """Yield what is complete, oldest first."""
        while self._images:
            stamp_s, image = self._images[0]
            newest = self.track.newest
            if newest is None or (newest.stamp_s < stamp_s and stamp_s - newest.stamp_s < CLOCK_JUMP_S):
                return  # odometry of this time is still to come
            odometry = self.track.at(stamp_s)
            if odometry is None:
                self._images.popleft()
                self.dropped["no odometry"] += 1
                continue
            depth = self._depth_near(stamp_s)
            waited_s = max(newest.stamp_s, self._images[-1][0]) - stamp_s
            if depth is None and self._depth_mode != "none" and waited_s < self._patience_s:
                return
            self._images.popleft()
            if depth is None and self._depth_mode == "required":
                self.dropped["no depth"] += 1
                continue
            yield Matched(stamp_s, image, depth, self._info, odometry)

    def _depth_near(self, stamp_s: float) -> Any | None:
        near = [entry for entry in self._depths if abs(entry[0] - stamp_s) <= self._slop_s]
        return min(near, key=lambda entry: abs(entry[0] - stamp_s))[1] if near else None


def message_type_name(message: Any) -> str:
    """Return the ROS name of an image message's type."""
    compressed = not hasattr(message, "encoding")
    return "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image"


class LiveLens:
    """The lens of one camera, read anew only when CameraInfo changes: the maps that straighten images are costly."""

    def __init__(self, topic: str = "camera_info", rectified: bool = False) -> None:
        """Name the topic for messages; images that are ``rectified`` have the matrix P and no distortion."""
        self._topic, self._rectified = topic, rectified
        self._key: Any = None
        self._lens: Lens | None = None

    def of(self, info: Any | None, size: tuple[int, int], warnings: list[str]) -> Lens | None:
        """Return the lens of images of ``size`` (width, height), None where they are not calibrated."""
        if info is None:
            return None
        numbers = tuple(np.asarray(values, float).tobytes() for values in (info.k, info.p, info.d))
        roi = (info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height)
        key = (size, info.width, info.height, info.distortion_model, roi, numbers)
        if key != self._key:
            self._lens = read_lens(info, size, self._topic, warnings, rectified=self._rectified)
            self._key = key
        return self._lens


def decode_frame(
    matched: Matched,
    T_base_camera: NDArray[np.float64] | None,
    warnings: list[str],
    lens: LiveLens | None = None,
    T_colour_depth: NDArray[np.float64] | None = None,
) -> Frame:
    """Return the frame of matched messages, as a pinhole camera would have seen it.

    Args:
        matched: messages of one instant.
        T_base_camera: (4, 4) pose of the optical frame in base_link, None where unknown.
        warnings: notes are appended.
        lens: of the camera; kept between frames.
        T_colour_depth: (4, 4) of the transforms between the frames of both images, None where they are unknown.

    Raises:
        DataError: for an encoding that is not supported, sizes that do not agree, damaged bytes, or depth that does not
            lie in the colour image.
    """
    rgb = decode_colour(matched.image, message_type_name(matched.image))
    height, width = rgb.shape[:2]
    found = (lens or LiveLens()).of(matched.info, (width, height), warnings)
    frame_id = str(matched.image.header.frame_id).lstrip("/")
    depth_m = None
    if matched.depth is not None:
        depth_m = decode_depth(matched.depth, message_type_name(matched.depth))
        if depth_m.shape != rgb.shape[:2]:
            raise DataError(
                f"depth is {depth_m.shape[1]}x{depth_m.shape[0]} but the image is {rgb.shape[1]}x{rgb.shape[0]}; "
                "subscribe to depth that is aligned to colour"
            )
        depth_m = _aligned(depth_m, frame_id, str(matched.depth.header.frame_id).lstrip("/"), found, T_colour_depth)
    if found is not None:
        rgb = found.straighten(rgb)
    intrinsics = None if found is None else found.pinhole
    return Frame(matched.stamp_s, rgb, depth_m, intrinsics, T_base_camera, frame_id or "camera_color_optical_frame")


def _aligned(
    depth_m: Depth, colour_frame: str, depth_frame: str, lens: Lens | None, T: NDArray[np.float64] | None
) -> Depth:
    alignment = align_depth(colour_frame, lens, DepthView("depth", depth_frame, None), T, [])
    if alignment is None:
        raise DataError(
            f"depth is in frame {depth_frame}, the image in {colour_frame}; subscribe to depth aligned to colour "
            "(align_depth of the driver, or depth_image_proc/register)"
        )
    return alignment(depth_m)
