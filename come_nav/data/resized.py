"""A recording seen through a smaller image."""

from __future__ import annotations

from typing import Any

import numpy as np

from come_nav.core.checks import check_range
from come_nav.core.protocols import Recording
from come_nav.core.types import Frame


class ResizedRecording:
    """Resizes colour (area), depth (nearest, so that no depth is invented) and the intrinsics of another recording."""

    def __init__(self, recording: Recording, width: int, height: int) -> None:
        check_range("width", width, 1, 16384)
        check_range("height", height, 1, 16384)
        self._inner, self.width, self.height = recording, width, height
        self.intrinsics = recording.intrinsics.scaled(width, height) if recording.intrinsics is not None else None

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
        return Frame(frame.stamp_s, np.asarray(rgb, np.uint8), depth, intrinsics, frame.T_base_camera, frame.frame_id)
