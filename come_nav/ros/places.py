"""Key frames as a guide uses them: which of them shows a picture, and the way there; saved and found again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.types import Frame, Odometry
from come_nav.memory.keyframes import Keyframe, Keyframes
from come_nav.memory.store import MemoryStore
from come_nav.memory.store_files import KEYFRAMES
from come_nav.ros.parameters import Parameter

KEYFRAME_PARAMETERS = (
    Parameter("keyframes.spacing_m", 0.4, "remember a place after this distance, m", 0.05, 10.0, when="start"),
    Parameter("keyframes.spacing_rad", 0.5, "or after this turn, rad", 0.05, 3.15, when="start"),
    Parameter("keyframes.join_m", 0.8, "places this near are joined into one way, m", 0.0, 10.0, when="start"),
    Parameter("keyframes.max_count", 1000, "most remembered places", 4, 1000000, when="start"),
)

Encode = Callable[[Sequence[NDArray[np.uint8]]], torch.Tensor]
ENCODE_BATCH = 16


class Places:
    """Key frames with the latents of their pictures, which are computed when somebody first asks for a picture."""

    def __init__(self, keyframes: Keyframes, encode: Encode) -> None:
        """Take the frames and a function from pictures to latents (B, C, h, w)."""
        self.keyframes = keyframes
        self._encode = encode
        self._latents: dict[float, torch.Tensor] = {}  # by stamp: indices shift when a frame makes room

    def __len__(self) -> int:
        return len(self.keyframes)

    def observe(self, frame: Frame, odometry: Odometry) -> bool:
        """Keep the frame if the robot has moved enough; return whether it was kept."""
        return self.keyframes.observe(frame, odometry.T_odom_base)

    def most_similar(self, latents: torch.Tensor) -> tuple[Keyframe, float] | None:
        """Return the frame whose latents are nearest to (C, h, w), and their mean squared difference; None if empty."""
        if not len(self):
            return None
        stamps_s = [float(stamp_s) for stamp_s in self.keyframes.stamps_s]
        self._latents = {stamp_s: kept for stamp_s, kept in self._latents.items() if stamp_s in set(stamps_s)}
        missing = [index for index, stamp_s in enumerate(stamps_s) if stamp_s not in self._latents]
        for start in range(0, len(missing), ENCODE_BATCH):
            batch = missing[start : start + ENCODE_BATCH]
            for index, encoded in zip(batch, self._encode([self.keyframes[i].rgb for i in batch]), strict=True):
                self._latents[stamps_s[index]] = encoded.detach().half().cpu()
        known = torch.stack([self._latents[stamp_s] for stamp_s in stamps_s]).float()
        differences = ((known - latents.detach().float().cpu()) ** 2).mean(dim=(1, 2, 3))
        best = int(differences.argmin())
        return self.keyframes[best], float(differences[best])

    def way(self, start_odom_xyyaw: NDArray[np.float64], goal: Keyframe) -> NDArray[np.float64] | None:
        """Return positions (N, 2) in odom from the frame nearest to a pose (3,) to ``goal``; None if unconnected."""
        start = self.keyframes.nearest_pose(start_odom_xyyaw, metres_per_rad=0.1)
        end = self.keyframes.at_time(goal.stamp_s)
        if start is None or end is None:
            return None
        chain = self.keyframes.chain(start.index, end.index)
        return None if chain is None else self.keyframes.poses_xyyaw[chain, :2]

    def clear(self) -> None:
        """Forget all frames."""
        self.keyframes.clear()
        self._latents.clear()

    def save(self, store: MemoryStore) -> None:
        """Write the frames as a new version of the store; what other nodes saved there stays.

        Raises:
            MemoryStoreError: no space or no permission; the versions from before stay.
        """
        store.save(keyframes=self.keyframes.state())

    def load(self, store: MemoryStore) -> None:
        """Replace the frames by those saved last, if any; raise MemoryStoreError where no version is valid."""
        if store.newest() is None:
            return
        saved = store.load(parts=(KEYFRAMES,)).keyframes
        if saved is not None:
            self.keyframes.load_state(saved)
            self._latents.clear()
