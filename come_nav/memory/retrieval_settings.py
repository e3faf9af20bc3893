"""How remembered frames are found that show a view, and which frames are kept for it."""

from __future__ import annotations

from dataclasses import dataclass

from come_nav.core.checks import check_range

SAMPLES = 6  # a side, of points that a frame is kept as


@dataclass(frozen=True)
class RetrievalSettings:
    """How frames are chosen.

    Attributes:
        cells: a side, that a view is divided into, >= 1; with more than a frame has points, what lies behind shines
            through.
        shortlist: frames whose points are looked at one by one, those nearest to the middle of the view first, >= 1.
        forget_s: age at which a frame is worth half, s, > 0.
        reach_m: where a frame's points are taken to lie whose depth is not known, m, > 0.
        behind_ratio: a point farther than the nearest one of its cell by this fraction is hidden, >= 0.
    """

    cells: int = SAMPLES
    shortlist: int = 512
    forget_s: float = 600.0
    reach_m: float = 3.0
    behind_ratio: float = 0.25

    def __post_init__(self) -> None:
        for name in ("cells", "shortlist"):
            check_range(f"retrieval.{name}", getattr(self, name), 1)
        for name in ("forget_s", "reach_m"):
            check_range(f"retrieval.{name}", getattr(self, name), 0.0, open_low=True)
        check_range("retrieval.behind_ratio", self.behind_ratio, 0.0)


@dataclass(frozen=True)
class FrameMemorySettings(RetrievalSettings):
    """Frames of the episode that the short-term expert sees in place of the newest ones.

    Attributes:
        use: whether remembered frames that show what lies ahead stand in for the newest ones before the context.
        frames: most of them, K; the newest ones fill up to ``experts.older_frames``. 0 = that many.
        max_frames: budget; when it is full, those go between whose neighbours the robot moved least, >= 4. At 64
            pixels a frame takes 20 kB, at 224 250 kB.
        spacing_m: a frame is kept after this distance, m, > 0.
        spacing_rad: or after this turn, rad, > 0.
        look_ahead_m: views from where the robot stands and from so far ahead, straight on and to both sides, are what
            frames are chosen for, m, >= 0.
    """

    use: bool = False
    frames: int = 0
    max_frames: int = 1000
    spacing_m: float = 0.3
    spacing_rad: float = 0.35
    look_ahead_m: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("retrieval.frames", self.frames, 0)
        check_range("retrieval.max_frames", self.max_frames, 4)
        check_range("retrieval.look_ahead_m", self.look_ahead_m, 0.0)
        for name in ("spacing_m", "spacing_rad"):
            check_range(f"retrieval.{name}", getattr(self, name), 0.0, open_low=True)
