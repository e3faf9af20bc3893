"""Which pose and which depth image belong to each colour image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import AssociationError
from come_nav.data.scan_settings import ScanSettings
from come_nav.data.timing.association import Association, associate
from come_nav.data.timing.stamps import Recorded, clean_order, seconds_after

OFFSET_TOLERANCE_S = 0.02  # when nothing matches, streams count as aligned within this


@dataclass(frozen=True)
class StampedTopic:
    """Where a topic's messages are: ``header_ns`` (N,) strictly increasing, ``log_ns`` (N,) to read them by."""

    name: str
    header_ns: NDArray[np.int64]
    log_ns: NDArray[np.int64]

    @classmethod
    def cleaned(
        cls,
        name: str,
        stamps: list[tuple[int, int]],
        warnings: list[str],
        beside_ns: tuple[int, int] | None = None,
    ) -> StampedTopic:
        """Sort (header, log) stamps and drop doubles and stamps of another clock, with a note.

        Where the clock was set, what was recorded at ``beside_ns`` is used, see :class:`Recorded`.
        """
        header_ns, log_ns = np.array(stamps, np.int64).reshape(-1, 2).T
        order = clean_order(header_ns, name, warnings, Recorded(log_ns, beside_ns))
        return cls(name, header_ns[order], log_ns[order])

    @property
    def recorded_ns(self) -> tuple[int, int]:
        """First and last time of recording."""
        return int(self.log_ns.min()), int(self.log_ns.max())

    def seconds(self, start_ns: int) -> NDArray[np.float64]:
        """Return the header stamps in seconds after ``start_ns``."""
        return seconds_after(self.header_ns, start_ns)


def match_poses(
    image_s: NDArray[np.float64],
    pose_s: NDArray[np.float64],
    settings: ScanSettings,
    names: tuple[str, str],
    known_offset_s: float | None = None,
) -> tuple[NDArray[np.int64], Association]:
    """Return the images (indices) that a pose can be given, and the one-to-one match for the report.

    ``known_offset_s`` is what the recorder's times say must be added to poses; it stands in the message.

    Raises:
        AssociationError: no image has a pose; tells the offset that would match.
    """
    shifted_s = pose_s + settings.time_offset_s
    right = np.searchsorted(shifted_s, image_s, side="left")
    before = shifted_s[np.maximum(right - 1, 0)]
    after = shifted_s[np.minimum(right, len(shifted_s) - 1)]
    near = np.minimum(np.abs(before - image_s), np.abs(after - image_s)) <= settings.max_difference_s
    between = (before <= image_s) & (image_s <= after) & (after - before <= settings.max_pose_gap_s)
    posed = np.flatnonzero(near | between)
    widest_s = max(settings.max_difference_s, 0.5 * settings.max_pose_gap_s)
    tolerance_s = widest_s if len(posed) else OFFSET_TOLERANCE_S
    labels = (f"images ({names[0]})", f"poses ({names[1]})")
    words: dict[str, Any] = {"names": labels, "flag": "--time-offset", "known_offset_s": known_offset_s}
    match = associate(image_s, pose_s, tolerance_s, settings.time_offset_s, **words)
    return posed, match


def match_depth(
    image_s: NDArray[np.float64], depth_s: NDArray[np.float64], settings: ScanSettings, topic: str, warnings: list[str]
) -> tuple[NDArray[np.int64], Association | None]:
    """Return for each image (N,) the index of its depth image, -1 = none, and the match."""
    of_image = np.full(len(image_s), -1, np.int64)
    try:
        match = associate(image_s, depth_s, settings.max_depth_difference_s)
    except AssociationError as error:
        warnings.append(f"{topic}: no depth matches an image in time and none is used ({error})")
        return of_image, None
    of_image[match.index_a] = match.index_b
    return of_image, match
