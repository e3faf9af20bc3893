"""A recording seen through a smaller image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.protocols import Recording
from come_nav.core.types import Frame


class ResizedRecording:
    """Resizes colour (area), depth (nearest, so that no depth is invented) and the intrinsics of another recording.

    What the other recording has beyond the protocol (gaps, segments, reports) is reached through this one as well.
    """

    def __init__(self, recording: Recording, width: int, height: int) -> None:
        check_range("width", width, 1, 16384)
        check_range("height", height, 1, 16384)
        self._inner, self.width, self.height = recording, width, height
        self.intrinsics = recording.intrinsics.scaled(width, height) if recording.intrinsics is not None else None

    # Written out: from Python 3.12 on, isinstance looks for a protocol's members at the class, not at __getattr__.

    @property
    def name(self) -> str:
        """Short name for tables."""
        return self._inner.name

    @property
    def rate_hz(self) -> float:
        """Frames per second."""
        return self._inner.rate_hz

    @property
    def stamps_s(self) -> NDArray[np.float64]:
        """Times (N,), strictly increasing."""
        return self._inner.stamps_s

    @property
    def T_odom_base(self) -> NDArray[np.float64]:
        """Poses (N, 4, 4) of base_link."""
        return self._inner.T_odom_base

    @property
    def poses_xyyaw(self) -> NDArray[np.float64]:
        """Planar poses (N, 3) of base_link in odom."""
        return self._inner.poses_xyyaw

    @property
    def T_base_camera(self) -> NDArray[np.float64] | None:
        """Pose (4, 4) of the optical frame in base_link, or None when unknown."""
        return self._inner.T_base_camera

    @property
    def metadata(self) -> dict[str, Any]:
        """Free facts."""
        return self._inner.metadata

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also asked for while a copy is unpickled, before _inner is there
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __len__(self) -> int:
        return len(self._inner)

    def frame(self, index: int) -> Frame:
        """Return the resized frame."""
        import cv2

        frame = self._inner.frame(index)
        size = (self.width, self.height)
        smaller = self.width <= frame.rgb.shape[1]
        rgb = cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        depth = None
        if frame.depth_m is not None:
            depth = np.asarray(cv2.resize(frame.depth_m, size, interpolation=cv2.INTER_NEAREST), np.float32)
        intrinsics = frame.intrinsics.scaled(*size) if frame.intrinsics is not None else None
        moving = None
        if frame.moving is not None:
            moving = cv2.resize(frame.moving.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        seen = np.asarray(rgb, np.uint8)
        return Frame(frame.stamp_s, seen, depth, intrinsics, frame.T_base_camera, frame.frame_id, moving)
