"""What a user is told about a recording that was opened."""

from __future__ import annotations

from dataclasses import dataclass

from come_nav.data.timing.association import AssociationReport
from come_nav.data.timing.stamps import Gap


@dataclass(frozen=True)
class RecordingReport:
    """What was found, matched, repaired and left out while a recording was opened.

    Attributes:
        topics: role -> topic name.
        association: image stamps against pose stamps.
        depth_association: image stamps against depth stamps, None without depth.
        source_rate_hz: median rate of the images before resampling.
        rate_hz: of the recording.
        slower_than_asked: the images cannot reach the asked rate; every frame was kept.
        missed_ticks: ticks of the rate without a frame.
        gaps: holes between frames of the recording.
        warnings: one line each.
        pose_jumps: frames behind which the pose jumps: the step to the next was not driven.
    """

    topics: dict[str, str]
    association: AssociationReport
    depth_association: AssociationReport | None
    source_rate_hz: float
    rate_hz: float
    slower_than_asked: bool
    missed_ticks: int
    gaps: tuple[Gap, ...]
    warnings: tuple[str, ...] = ()
    pose_jumps: tuple[int, ...] = ()

    def __str__(self) -> str:
        lines = [f"images to poses: {self.association}"]
        if self.slower_than_asked:
            lines.append(f"slower than the asked rate: all frames are kept, median {self.rate_hz:.2f} Hz")
        return "; ".join([*lines, *self.warnings])
