"""Key frames as a guide uses them: which of them shows an image, and the way there; saved and found again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.types import Frame, Odometry
from come_nav.localisation.image_difference import latent_difference
from come_nav.memory.keyframes import Keyframes, frame_keys
from come_nav.memory.store.files import KEYFRAMES
from come_nav.memory.store.store import MemoryStore

Encode = Callable[[Sequence[NDArray[np.uint8]]], torch.Tensor]
ENCODE_BATCH = 16


class Places:
    """Key frames with the latents of their images, which are computed when somebody first asks for an image.

    One thread may observe while another asks.
    """

    def __init__(self, keyframes: Keyframes, encode: Encode) -> None:
        """Take the frames and a function from images to latents (B, C, h, w)."""
        self.keyframes = keyframes
        self._encode = encode
        self._lock = threading.RLock()
        # by leg and stamp: indices shift when a frame makes room, and stamps may come again in another leg
        self._latents: dict[tuple[int, float], torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.keyframes)

    @property
    def revision(self) -> int:
        """A number that grows with every change of what would be saved."""
        return self.keyframes.revision

    def observe(self, frame: Frame, odometry: Odometry, latents: torch.Tensor | None = None) -> bool:
        """Keep the frame, with its ``latents`` if known, if the robot has moved enough; return whether it was kept."""
        with self._lock:
            kept = self.keyframes.observe(frame, odometry.T_odom_base)
            if kept and latents is not None:
                self._latents[frame_keys(self.keyframes)[-1]] = latents.detach().half().cpu()
        return kept

    def most_similar(self, latents: torch.Tensor, count: int = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return poses (K, 3) in odom and differences (K,) of up to ``count`` frames that resemble (C, h, w) most.

        The most similar comes first; its difference is 1 - the cosine between the two, in [0, 2].
        """
        with self._lock:
            keys = frame_keys(self.keyframes)
            self._latents = {key: self._latents[key] for key in keys if key in self._latents}
            missing = [index for index, key in enumerate(keys) if key not in self._latents]
            for start in range(0, len(missing), ENCODE_BATCH):
                batch = missing[start : start + ENCODE_BATCH]
                for index, encoded in zip(batch, self._encode([self.keyframes[i].rgb for i in batch]), strict=True):
                    self._latents[keys[index]] = encoded.detach().half().cpu()
            if not keys:
                return np.zeros((0, 3)), np.zeros(0)
            known = torch.stack([self._latents[key] for key in keys]).float()
            differences = latent_difference(known, latents.detach().float().cpu()).double().numpy()
            best = differences.argsort(kind="stable")[:count]
            return self.keyframes.poses_xyyaw[best], differences[best]

    @property
    def poses_xyyaw(self) -> NDArray[np.float64]:
        """Poses (N, 3) of all frames in odom."""
        with self._lock:
            return np.array(self.keyframes.poses_xyyaw)

    def way(
        self, start_odom_xyyaw: NDArray[np.float64], goal_odom_xyyaw: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        """Return positions (N, 2) in odom from the frame nearest to one pose (3,) to that nearest to the other.

        None where no way is remembered.
        """
        with self._lock:
            start = self.keyframes.nearest_pose(start_odom_xyyaw, metres_per_rad=0.1)
            end = self.keyframes.nearest_pose(goal_odom_xyyaw, metres_per_rad=0.1)
            if start is None or end is None:
                return None
            chain = self.keyframes.chain(start.index, end.index)
            return None if chain is None else self.keyframes.poses_xyyaw[chain, :2]

    def clear(self) -> None:
        """Forget all frames."""
        with self._lock:
            self.keyframes.clear()
            self._latents.clear()

    def begin_leg(self) -> None:
        """Say that the robot may have been carried: no way leads from the last kept frame to the next one."""
        with self._lock:
            self.keyframes.begin_leg()
            self.keyframes.map_frame.restart()  # anchors begin anew as well

    def rebase(self, T_before_after_xyyaw: NDArray[np.float64]) -> None:
        """Take it that odometry began anew: (3,) is where the new odom lies in the one before. Key frames stay."""
        with self._lock:
            self.keyframes.begin_leg()
            self.keyframes.map_frame.rebase(T_before_after_xyyaw)

    def move(self, corrections_xyyaw: NDArray[np.float64], outside_xyyaw: NDArray[np.float64] | None = None) -> None:
        """Take where odom lies in map (A, 3) as each anchor of the robot has it, and another localiser (3,)."""
        with self._lock:
            self.keyframes.move(corrections_xyyaw, outside_xyyaw)

    @property
    def T_map_odom_xyyaw(self) -> NDArray[np.float64]:
        """Planar pose (3,) of odom in the map that places are kept in."""
        return self.keyframes.map_frame.T_map_odom_xyyaw

    def save(self, store: MemoryStore) -> None:
        """Write the frames as a new version of the store; what other nodes saved there stays.

        Raises:
            MemoryStoreError: no space or no permission; the versions from before stay.
        """
        with self._lock:
            state = self.keyframes.state()
        store.save(keyframes=state)

    def load(self, store: MemoryStore) -> None:
        """Replace the frames by those saved last, if any; raise MemoryStoreError where no version is valid."""
        if store.newest() is None:
            return
        saved = store.load(parts=(KEYFRAMES,)).keyframes
        if saved is not None:
            with self._lock:
                self.keyframes.load_state(saved)
                self._latents.clear()
