"""How hard to search for where an image was taken."""

from __future__ import annotations

from dataclasses import dataclass

from come_nav.core.checks import check_range


@dataclass(frozen=True)
class RelocalisationSettings:
    """How hard to search.

    Attributes:
        starts: most remembered frames to begin with, >= 1.
        attempts: most repetitions of the whole search while nothing good was found, >= 1.
        samples: poses of a rough round, >= 1.
        rounds: rough ones of an attempt, >= 1.
        elites: best poses that a rough round goes on from, >= 1.
        polish: exact rounds of an attempt, >= 0.
        polish_samples: poses of such a round, >= 1.
        polish_elites: best poses that it goes on from, >= 1.
        rough_px: width and height of the images that rough rounds compare, >= 1 (its largest common divisor with
            the model's counts).
        rough_m: edge of the cells in which they merge the cloud's points, m, >= 0.
        spread_m: of the first round, standard deviation, > 0.
        spread_rad: and of the heading, > 0.
        shrink: of both from round to round, in (0, 1].
        good: exact difference that needs no further attempt, >= 0.
        unknown_weight: difference of a view of which nothing is remembered, >= 0; a part counts by its share.
    """

    starts: int = 64
    attempts: int = 4
    samples: int = 256
    rounds: int = 4
    elites: int = 16
    polish: int = 3
    polish_samples: int = 32
    polish_elites: int = 4
    rough_px: int = 16
    rough_m: float = 0.15
    spread_m: float = 0.5
    spread_rad: float = 0.4
    shrink: float = 0.6
    good: float = 0.25
    unknown_weight: float = 0.3

    def __post_init__(self) -> None:
        counts = ("starts", "attempts", "samples", "rounds", "elites", "polish_samples", "polish_elites", "rough_px")
        for name in counts:
            check_range(f"relocalisation.{name}", getattr(self, name), 1)
        for name in ("spread_m", "spread_rad"):
            check_range(f"relocalisation.{name}", getattr(self, name), 0.0, open_low=True)
        check_range("relocalisation.shrink", self.shrink, 0.0, 1.0, open_low=True)
        for name in ("polish", "rough_m", "good", "unknown_weight"):
            check_range(f"relocalisation.{name}", getattr(self, name), 0.0)
