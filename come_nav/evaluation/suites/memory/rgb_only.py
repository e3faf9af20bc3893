"""A drive as a robot without a depth camera has it: its frames carry no depth, which the model estimates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.protocols import Recording
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.evaluation.suites.memory.drives import MemoryInput
from come_nav.navigation.settings import NavigationSettings


class RgbOnlyRecording:
    """A recording without its depth."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.name, self.rate_hz, self.stamps_s = recording.name, recording.rate_hz, recording.stamps_s
        self.T_odom_base: NDArray[np.float64] = recording.T_odom_base
        self.poses_xyyaw: NDArray[np.float64] = recording.poses_xyyaw
        self.intrinsics: CameraIntrinsics | None = recording.intrinsics
        self.T_base_camera: NDArray[np.float64] | None = recording.T_base_camera
        self.metadata: dict[str, Any] = recording.metadata
        self.segments: Sequence[tuple[int, int]] = getattr(recording, "segments", ())  # no window crosses their ends

    def __len__(self) -> int:
        return len(self._recording)

    def frame(self, index: int) -> Frame:
        """Return frame ``index``; see Recording."""
        return replace(self._recording.frame(index), depth_m=None)


def without_depth(found: MemoryInput, navigation: NavigationSettings) -> tuple[MemoryInput, NavigationSettings]:
    """Return drives whose frames carry no depth, and a robot that estimates it.

    Depth stays in ``truth``, by which windows are chosen, so that they are the same as with depth.
    """
    drives = {name: replace(drive, recording=RgbOnlyRecording(drive.recording)) for name, drive in found.drives.items()}
    source = replace(
        found.source,
        title=f"{found.source.title}, RGB only",
        recordings=[(name, drive.recording) for name, drive in drives.items()],
        fingerprint={**found.source.fingerprint, "rgb_only": True},
    )
    estimating = replace(navigation, experts=replace(navigation.experts, estimate_depth=True))
    return replace(found, drives=drives, source=source), estimating
