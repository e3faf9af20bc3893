"""Where a robot that was started again is among the key frames of before: its odometry may have begun anew."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.types import Frame
from come_nav.localisation.keyframe_map import VisualKeyframe
from come_nav.localisation.localiser import VisualLocaliser

TRIES = 12  # frames, a spacing of key frames apart: 3 m of way or 2.4 rad of turn
SAME_M, SAME_RAD = 0.5, 0.5  # odometry that went on has drifted by less since features were saved last
SOON_S, SOON_MPS, SOON_RADPS = 60.0, 1.0, 1.0  # a killed node is back within, and the robot was not faster meanwhile


class Resumption:
    """Looks for the newest frames among the key frames of before until one is found, or for ``TRIES`` frames.

    Attributes:
        text: what came of it.
    """

    def __init__(self, carried: bool = False) -> None:
        """Take whether the robot may have been carried: then what odometry says counts only where nothing is found."""
        self.text = "looks for itself in what is remembered"
        self._left, self._carried = TRIES, carried

    def T_before_now_xyyaw(
        self, localiser: VisualLocaliser, frame: Frame, pose_odom_xyyaw: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        """Return where the present odom lies in the one that the key frames of before are in (3,).

        None = not known yet; the identity where odometry went on, and where nothing is found: then nobody knows better.
        ``pose_odom_xyyaw`` (3,) is the frame's.
        """
        match = localiser.relocalise(frame.rgb, frame.intrinsics, frame.depth_m, frame.T_base_camera)
        self._left -= 1
        if not match.certain or match.pose_map_xyyaw is None:
            if not self._carried and _goes_on(localiser.keyframes[-1], frame, pose_odom_xyyaw):
                self.text = "where odometry goes on"
                return np.zeros(3)
            if self._left > 0:
                return None
            self.text = (
                "not found in what is remembered: taken for where odometry says; if odometry began anew since, "
                "reset_memory or begin a new memory_folder"
            )
            return np.zeros(3)
        correction = localiser.map.correction_xyyaw(match.keyframe)
        pose_before = se2.compose(se2.inverse(correction), match.pose_map_xyyaw)
        T = se2.compose(pose_before, se2.inverse(pose_odom_xyyaw))
        if np.hypot(*se2.relative(pose_before, pose_odom_xyyaw)[:2]) < SAME_M and abs(se2.wrap_angle(T[2])) < SAME_RAD:
            self.text = "found where odometry says"
            return np.zeros(3)
        x, y, yaw = T
        self.text = f"found again: odometry began anew at ({x:.2f}, {y:.2f}) m, {yaw:.2f} rad of the odom before"
        return np.asarray(T)


def _goes_on(newest: VisualKeyframe, frame: Frame, pose_odom_xyyaw: NDArray[np.float64]) -> bool:
    """Whether odometry may be the one that the newest key frame was told by: so soon after, so near to it."""
    gap_s = frame.stamp_s - newest.stamp_s
    away = se2.relative(newest.pose_odom_xyyaw, pose_odom_xyyaw)
    near = np.hypot(*away[:2]) <= SAME_M + SOON_MPS * gap_s and abs(away[2]) <= SAME_RAD + SOON_RADPS * gap_s
    return bool(0.0 <= gap_s <= SOON_S and near)
