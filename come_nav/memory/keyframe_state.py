"""Key frames as plain arrays, for the disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.errors import ShapeError
from come_nav.memory.map_frame import UNANCHORED

ARRAYS = ("stamps_s", "poses_xyyaw", "legs", "images", "ends")


@dataclass
class KeptFrames:
    """Frames in the order of time: compressed images, stamps (s), planar poses (3,) in map, legs, and anchors."""

    images: list[bytes] = field(default_factory=list)
    stamps_s: list[float] = field(default_factory=list)
    poses_xyyaw: list[NDArray[np.float64]] = field(default_factory=list)
    legs: list[int] = field(default_factory=list)
    anchors: list[int] = field(default_factory=list)

    def drop(self, index: int) -> None:
        """Forget one frame."""
        for values in (self.images, self.stamps_s, self.poses_xyyaw, self.legs, self.anchors):
            del values[index]

    def packed(self) -> dict[str, NDArray[Any]]:
        """Return everything as plain arrays, e.g. for an npz file."""
        return {
            "stamps_s": np.array(self.stamps_s, np.float64),
            "poses_xyyaw": np.array(self.poses_xyyaw, np.float64).reshape(-1, 3),
            "legs": np.array(self.legs, np.int64),
            "anchors": np.array(self.anchors, np.int64),
            "images": np.frombuffer(b"".join(self.images), np.uint8),
            "ends": np.cumsum([len(image) for image in self.images], dtype=np.int64),
        }

    @classmethod
    def unpacked(cls, state: dict[str, NDArray[Any]]) -> KeptFrames:
        """Return the frames of :meth:`packed`; raise ShapeError for missing arrays, or ones that do not agree."""
        if "pictures" in state:  # as version 0.1 called them
            state = {**state, "images": state["pictures"]}
        missing = [name for name in ARRAYS if name not in state]
        if missing:
            raise ShapeError(f"key frames need the arrays {', '.join(ARRAYS)}; {', '.join(missing)} is missing")
        count = check_shape("stamps_s", state["stamps_s"], "N")["N"]
        check_shape("poses_xyyaw", state["poses_xyyaw"], f"{count} 3")
        for name in ("legs", "ends"):
            check_shape(name, state[name], f"{count}")
        anchors = state.get("anchors", np.full(count, UNANCHORED))  # version 0.1 had none
        check_shape("anchors", anchors, f"{count}")
        images = state["images"].tobytes()
        ends = [0, *(int(end) for end in state["ends"])]
        if ends != sorted(ends) or ends[-1] != len(images):
            raise ShapeError(f"the images of {count} key frames must fill {ends[-1]} bytes, got {len(images)}")
        return cls(
            [images[ends[index] : ends[index + 1]] for index in range(count)],
            [float(stamp) for stamp in state["stamps_s"]],
            [np.array(pose, np.float64) for pose in state["poses_xyyaw"]],
            [int(leg) for leg in state["legs"]],
            [int(anchor) for anchor in anchors],
        )
