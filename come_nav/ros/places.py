"""Key frames as a guide uses them: which of them shows a picture, and the way there; saved and found again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import MemoryStoreError, ShapeError
from come_nav.core.files import atomic_path
from come_nav.core.types import Frame, Odometry
from come_nav.memory.keyframes import Keyframe, Keyframes

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

    def save(self, path: Path) -> None:
        """Write the frames to one file, atomically; raise StorageError if that fails, the old file stays."""
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **self.keyframes.state())  # type: ignore[arg-type]

    def load(self, path: Path) -> None:
        """Replace the frames by saved ones; raise MemoryStoreError for a file that is damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                self.keyframes.load_state({name: file[name] for name in file.files})
        except (OSError, ValueError, EOFError, ShapeError) as error:
            raise MemoryStoreError(f"{path}: holds no key frames ({error}); delete it to learn them anew") from error
        self._latents.clear()
