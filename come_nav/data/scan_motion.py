"""What the motion of a recording forbids: images within a jump of the pose, images of a camera that froze."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.data.timing.interpolation import interpolate_poses
from come_nav.data.timing.matching import StampedTopic
from come_nav.data.timing.motion import NEVER_MOVES, frozen_frames, never_moves, pose_jumps, require_one_publisher
from come_nav.data.timing.stamps import Gap, with_cuts

Array = NDArray[np.float64]


class PosePath:
    """The poses of a recording, (N,) seconds and (N, 4, 4), and the steps between which they jump.

    Raises:
        DataError: two publishers take turns on the topic.
    """

    def __init__(self, topic: str, stamps_s: Array, T_odom_base: Array) -> None:
        require_one_publisher(topic, T_odom_base[:, :3, 3])
        self.topic, self.stamps_s, self.T_odom_base = topic, stamps_s, T_odom_base
        self.jumps = pose_jumps(stamps_s, T_odom_base)
        self._frozen_s: Array = np.zeros(0)

    def at(self, times_s: Array) -> Array:
        """Return T (M, 4, 4) at times (M,)."""
        return interpolate_poses(self.stamps_s, self.T_odom_base, times_s)

    def usable(
        self,
        checksums: Mapping[tuple[int, int], object],
        images: StampedTopic,
        image_s: Array,
        posed: NDArray[np.int64],
        warnings: list[str],
    ) -> NDArray[np.int64]:
        """Return those of the images ``posed`` (indices) that have a true pose; :meth:`cut` tells of frozen ones.

        ``checksums`` are by (header, log) stamps.
        """
        posed = posed[~self._within_jump(image_s[posed])]
        if not len(posed):
            raise DataError(f"{images.name}: every image lies within a jump of {self.topic}; name another --pose-topic")
        keys = zip(images.header_ns[posed].tolist(), images.log_ns[posed].tolist(), strict=True)
        frozen = frozen_frames([checksums[key] for key in keys], se3.xyyaw_from_transform(self.at(image_s[posed])))
        if frozen.any():
            warnings.append(
                f"{images.name}: {int(frozen.sum())} of {len(posed)} images repeat the one before while the robot "
                "moves, as of a camera that froze; the recording is cut there"
            )
        self._frozen_s = image_s[posed][frozen]
        return posed

    def cut(self, gaps: tuple[Gap, ...], frame_s: Array, start_s: float, warnings: list[str]) -> tuple[Gap, ...]:
        """Return ``gaps`` between frames (M,) and more at each jump, noted, and around frozen images."""
        if never_moves(se3.xyyaw_from_transform(self.at(frame_s))):
            warnings.append(NEVER_MOVES.format(self.topic))
        frozen = np.flatnonzero(np.isin(frame_s, self._frozen_s))
        gaps = with_cuts(gaps, frame_s, [*(frozen - 1), *frozen])
        if not len(self.jumps):
            return gaps
        steps_m = np.linalg.norm(np.diff(self.T_odom_base[:, :3, 3], axis=0), axis=1)[self.jumps]
        first_s = self.stamps_s[self.jumps]
        warnings.append(
            f"{self.topic}: the pose jumps at {len(self.jumps)} places, first {first_s[0] - start_s:.2f} s after "
            f"the first image, at most by {steps_m.max():.2f} m; the recording is cut there"
        )
        return with_cuts(gaps, frame_s, np.searchsorted(frame_s, first_s, side="right") - 1)

    def frames_before_jumps(self, frame_s: Array) -> tuple[int, ...]:
        """Return the frames (of M) behind which the pose jumps before the next."""
        before = np.searchsorted(frame_s, self.stamps_s[self.jumps], side="right") - 1
        return tuple(sorted({int(index) for index in before if 0 <= index < len(frame_s) - 1}))

    def _within_jump(self, image_s: Array) -> NDArray[np.bool_]:
        """Tell which images (N,) lie between the two poses of a jump, where no pose between them is true."""
        after = np.searchsorted(self.stamps_s, image_s, side="left")  # the pose at or after the image
        last = len(self.stamps_s) - 1
        between = (after > 0) & (after <= last) & (self.stamps_s[np.minimum(after, last)] > image_s)
        return np.asarray(between & np.isin(after - 1, self.jumps))
