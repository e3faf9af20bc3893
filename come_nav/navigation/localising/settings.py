"""Settings of how a robot finds images and itself in what it remembers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.localisation.keyframe_map import LocaliserSettings


@dataclass(frozen=True)
class LocalisationSettings:
    """How images are found in memory, and whether drift is taken out of it.

    Attributes:
        use: keep key frames with local features, and register images to them.
        min_width_px: narrower images have too few features; remembered views are searched for them instead, >= 1.
        correct_drift: move what is remembered as the pose graph says; odometry itself is never changed.
        drift_misfit: mean squared Mahalanobis distance between odometry and registered key frames from which on
            odometry is held to drift; below, nothing is corrected, >= 0. Registrations agree with odometry that does
            not drift to 0.1 to 0.4, since their covariances are cautious.
        move_m: corrections that change by less than this, m, >= 0,
        move_rad: and by less than this, rad, >= 0, move nothing yet.
        visual: key frames, registration and the pose graph.
        recent_frames: newest frames that a goal's image is registered to, without any memory, >= 1.
        recent_certain: probability above which it is believed, in [0, 1].
        recent_floor_m: what odometry and calibration leave of its error, m, > 0.
        recent_floor_rad: the same, rad, > 0.
        goal_weight: of the distance to where a goal's image was registered, beside the view's distance, >= 0; 0 = goal
            images are imagined alone.
        goal_path_fraction: share of that taken over the whole path, against the smoothest one there, in [0, 1].
    """

    use: bool = True
    min_width_px: int = 160
    correct_drift: bool = True
    drift_misfit: float = 1.0
    move_m: float = 0.01
    move_rad: float = 0.003
    visual: LocaliserSettings = field(default_factory=LocaliserSettings)
    recent_frames: int = 4
    recent_certain: float = 0.5
    recent_floor_m: float = 0.03
    recent_floor_rad: float = 0.03
    goal_weight: float = 1.0
    goal_path_fraction: float = 0.3

    def __post_init__(self) -> None:
        check_range("localisation.min_width_px", self.min_width_px, 1)
        check_range("localisation.recent_frames", self.recent_frames, 1)
        check_range("localisation.recent_certain", self.recent_certain, 0.0, 1.0)
        check_range("localisation.goal_weight", self.goal_weight, 0.0)
        check_range("localisation.goal_path_fraction", self.goal_path_fraction, 0.0, 1.0)
        for name in ("recent_floor_m", "recent_floor_rad"):
            check_range(f"localisation.{name}", getattr(self, name), 0.0, open_low=True)
        for name in ("drift_misfit", "move_m", "move_rad"):
            check_range(f"localisation.{name}", getattr(self, name), 0.0)

    def takes(self, rgb: NDArray[np.uint8]) -> bool:
        """Whether an image (H, W, 3) is large enough to have features."""
        return self.use and rgb.shape[1] >= self.min_width_px
