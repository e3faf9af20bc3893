"""Settings of the online calibration."""

from __future__ import annotations

from dataclasses import dataclass

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError


@dataclass(frozen=True)
class CalibrationSettings:
    """How weights of the experts follow what came true.

    Attributes:
        use: whether they do; else the weights stay as they are set.
        period_s: time between two tests at least, s, > 0.
        horizons_s: how far ahead a test looks, s: each is drawn between the two, as far as plans look ahead.
        levels: noise levels that are tested, fractions of the schedule; each has weights of its own, and those of the
            nearest count. A sampler of one step needs 1.0 alone.
        prior_frames: how many frames the weights as they are set are worth, >= 0.
        half_life_frames: a test counts half after so many later ones, > 0.
        remembered: tests whose errors are kept for the report, >= 1.
        least_exponent: passes of networks that count less than this in the calibrated product are not computed, in
            [0, 0.5].
    """

    use: bool = False
    period_s: float = 2.0
    horizons_s: tuple[float, float] = (1.0, 4.0)
    levels: tuple[float, ...] = (1.0,)
    prior_frames: float = 5.0
    half_life_frames: float = 30.0
    remembered: int = 500
    least_exponent: float = 0.1

    def __post_init__(self) -> None:
        check_range("experts.calibration.period_s", self.period_s, 0.0, open_low=True)
        check_range("experts.calibration.prior_frames", self.prior_frames, 0.0)
        check_range("experts.calibration.half_life_frames", self.half_life_frames, 0.0, open_low=True)
        check_range("experts.calibration.remembered", self.remembered, 1)
        check_range("experts.calibration.least_exponent", self.least_exponent, 0.0, 0.5)
        low, high = self.horizons_s
        if not 0.0 < low <= high:
            raise ConfigError(f"experts.calibration.horizons_s must satisfy 0 < low <= high, got {low:g}, {high:g}")
        if not self.levels or not all(0.0 <= level <= 1.0 for level in self.levels):
            raise ConfigError(f"experts.calibration.levels must lie in [0, 1], got {list(self.levels)}")
