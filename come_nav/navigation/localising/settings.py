"""Settings of how a robot finds images and itself in what it remembers."""

from __future__ import annotations

from dataclasses import dataclass, field

from come_nav.core.checks import check_range
from come_nav.localisation.keyframe_map import LocaliserSettings


@dataclass(frozen=True)
class LocalisationSettings:
    """How images are found in memory, and whether drift is taken out of it.

    Attributes:
        use: keep key frames with local features, and register images to them.
        min_width_px: narrower images have too few features; remembered views are searched for them instead, >= 1.
        correct_drift: move what is remembered as the pose graph says; odometry itself is never changed.
        visual: key frames, registration and the pose graph.
    """

    use: bool = True
    min_width_px: int = 160
    correct_drift: bool = True
    visual: LocaliserSettings = field(default_factory=LocaliserSettings)

    def __post_init__(self) -> None:
        check_range("localisation.min_width_px", self.min_width_px, 1)
