"""Where a robot's images were taken, and what its odometry has drifted by: key frames with features and their graph.

Memory lives in the map frame, whose poses the pose graph corrects; plans and goals live in odom, which is smooth.
``T_map_odom`` leads from one to the other at the present moment (REP-105).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.image_search import VisualMatch
from come_nav.localisation.localiser import VisualLocaliser
from come_nav.memory.short_term import Remembered
from come_nav.navigation.localising.settings import LocalisationSettings


@dataclass(frozen=True)
class Sighting:
    """Where an image was taken.

    Attributes:
        pose_odom_xyyaw: (3,) of a robot whose camera sees the image, in odom as it is now.
        covariance: (3, 3) of it, m^2 and rad^2, in odom's axes.
        confidence: probability that it is right, in [0, 1].
        certain: whether that is above the operating point.
        found_by: what the image was registered to.
        keyframe: index of that key frame; -1 for one of the newest frames.
    """

    pose_odom_xyyaw: NDArray[np.float64]
    covariance: NDArray[np.float64]
    confidence: float
    certain: bool
    found_by: Literal["key frame", "newest frames"]
    keyframe: int = -1


class RobotLocalisation:
    """Key frames with features of one robot. One thread may observe while another looks for images."""

    def __init__(self, settings: LocalisationSettings, seed: int = 0) -> None:
        self._settings, self._seed = settings, seed
        self._lock = threading.RLock()
        self.reset()

    def __len__(self) -> int:
        return len(self.localiser)

    @property
    def settings(self) -> LocalisationSettings:
        """What is kept and believed. Set anew, ``visual`` counts from the next reset on, all else at once."""
        return self._settings

    @settings.setter
    def settings(self, settings: LocalisationSettings) -> None:
        self._settings = settings

    @property
    def T_map_odom_xyyaw(self) -> NDArray[np.float64]:
        """Planar pose (3,) of odom in map as the newest key frame has it; zero where drift is not corrected."""
        if not self._settings.correct_drift:
            return np.zeros(3)
        with self._lock:
            return se3.xyyaw_from_transform(self.localiser.T_map_odom)

    def reset(self) -> None:
        """Forget all key frames; map and odom are one again."""
        with self._lock:
            self.localiser = VisualLocaliser(self._settings.visual, self._seed)

    def observe(self, seen: Remembered) -> bool:
        """Keep a frame as a key frame if the robot has moved enough since the last; return whether it was kept."""
        frame = seen.frame
        if not self.takes(frame.rgb) or frame.intrinsics is None or frame.T_base_camera is None:
            return False
        with self._lock:
            return self.localiser.observe(frame, se3.transform_from_xyyaw(seen.pose_odom_xyyaw)) is not None

    def takes(self, rgb: NDArray[np.uint8]) -> bool:
        """Whether an image (H, W, 3) is large enough to have features."""
        return self._settings.use and rgb.shape[1] >= self._settings.min_width_px

    def find(self, rgb: NDArray[np.uint8], camera: CameraIntrinsics | None = None) -> Sighting | None:
        """Return where an image (H, W, 3) was taken among the key frames; None without any guess.

        ``camera`` is the image's; the robot's own, scaled to the image's size, when None.
        """
        if not self.takes(rgb):
            return None
        with self._lock:
            if not len(self.localiser):
                return None
            match = self.localiser.relocalise(rgb, camera)
            return self._sighting(match)

    def _sighting(self, match: VisualMatch) -> Sighting | None:
        if match.pose_map_xyyaw is None:
            return None
        if self._settings.correct_drift:
            T_odom_map = se2.inverse(se3.xyyaw_from_transform(self.localiser.T_map_odom))
        else:  # as odometry had the key frame
            T_odom_map = se2.inverse(self.localiser.map.correction_xyyaw(match.keyframe))
        turned = _turn(T_odom_map[2])
        return Sighting(
            se2.compose(T_odom_map, match.pose_map_xyyaw),
            turned @ match.covariance @ turned.T,
            match.confidence,
            match.certain,
            "key frame",
            match.keyframe,
        )


def _turn(yaw_rad: float) -> NDArray[np.float64]:
    cosine, sine = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
