"""A drive as a robot has it that corrects its drift: localised frame by frame, as NavStack does, from the first on.

The memory phase keeps odometry's poses, since the robot's own stack corrects what it remembers of it. Frames after it
have the poses that the robot knew at that moment, in odom as it was at the end of the memory phase: so a stack whose
memories are frozen then stands where the robot would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.protocols import Recording
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.memory.short_term import Remembered
from come_nav.navigation.localising.robot_localisation import RobotLocalisation
from come_nav.navigation.settings import NavigationSettings


class CorrectedRecording:
    """A recording with other poses."""

    def __init__(self, recording: Recording, T_odom_base: NDArray[np.float64]) -> None:
        """Take the frames of a recording, and a pose (N, 4, 4) for each."""
        self._recording, self._T_odom_base = recording, T_odom_base
        self._poses_xyyaw = se3.xyyaw_from_transform(T_odom_base)
        self.name, self.rate_hz, self.stamps_s = recording.name, recording.rate_hz, recording.stamps_s
        self.intrinsics: CameraIntrinsics | None = recording.intrinsics
        self.T_base_camera: NDArray[np.float64] | None = recording.T_base_camera
        self.metadata: dict[str, Any] = recording.metadata
        self.segments: Sequence[tuple[int, int]] = getattr(recording, "segments", ())  # no window crosses their ends

    def __len__(self) -> int:
        return len(self._recording)

    @property
    def T_odom_base(self) -> NDArray[np.float64]:
        """Poses (N, 4, 4) of base_link."""
        return self._T_odom_base

    @property
    def poses_xyyaw(self) -> NDArray[np.float64]:
        """The same, planar (N, 3)."""
        return self._poses_xyyaw

    def frame(self, index: int) -> Frame:
        """Return frame ``index``."""
        return self._recording.frame(index)


def corrects(camera_px: tuple[int, int], navigation: NavigationSettings) -> bool:
    """Whether a robot with these settings and a camera of this width and height corrects its drift."""
    own = navigation.localisation
    return own.use and own.correct_drift and camera_px[0] >= own.min_width_px


def localised(
    recording: Recording, memory: range, navigation: NavigationSettings
) -> tuple[Recording, NDArray[np.float64]]:
    """Localise a drive frame by frame.

    Returns:
        the recording with corrected poses after ``memory``, and the poses (M, 3) of the memory phase as the robot has
        them at its end.
    """
    localisation = RobotLocalisation(navigation.localisation, navigation.seed)
    believed = np.asarray(recording.T_odom_base, np.float64)
    T_map_odom, poses, anchors = [], se3.xyyaw_from_transform(believed), []
    corrections: NDArray[np.float64] = np.zeros((0, 3))
    for index, pose in enumerate(poses):
        try:
            frame = recording.frame(index).over_footprint(believed[index])
        except DataError:
            frame = None  # damaged: the robot does not see it either
        if frame is not None and index >= memory.start:
            localisation.observe(Remembered(frame.stamp_s, pose, frame, None))
        T_map_odom.append(localisation.T_map_odom_xyyaw)
        anchors.append(max(0, len(localisation.corrections_xyyaw) - 1))
        if index == memory.stop - 1:
            corrections = localisation.corrections_xyyaw
    end = T_map_odom[memory.stop - 1]
    shift = se2.compose(se2.inverse(end)[None], np.array(T_map_odom))
    result = believed.copy()
    after = slice(memory.stop, len(believed))
    result[after] = se3.transform_from_xyyaw(shift[after]) @ believed[after]
    own = slice(memory.start, memory.stop)
    remembered = se2.compose(corrections[np.array(anchors)[own]], poses[own])
    return CorrectedRecording(recording, result), se2.compose(se2.inverse(end)[None], remembered)
