"""Places that the robot has been at: key frames with poses, joined into a graph that tells how to get back to them.

Long goals need no metric map: whoever drove from A to B can drive there again. Places are kept where the robot has
moved or turned enough; two places are joined when the robot went from one to the other, or passed near it again.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.errors import MemoryStoreError
from come_nav.core.files import atomic_path
from come_nav.core.geometry import se2

FORMAT = "come_nav places 1"


@dataclass(frozen=True)
class PlacesConfig:
    """Which places are kept.

    Attributes:
        spacing_m: a new place after this distance, m, > 0.
        spacing_rad: or after this turn, rad, > 0.
        join_m: places this near to each other are joined, m, > 0.
        capacity: most places; then every other one of the older half goes, >= 4.
    """

    spacing_m: float = 0.4
    spacing_rad: float = 0.6
    join_m: float = 0.6
    capacity: int = 2000

    def __post_init__(self) -> None:
        for name in ("spacing_m", "spacing_rad", "join_m"):
            check_range(f"places.{name}", getattr(self, name), 0.0, open_low=True)
        check_range("places.capacity", self.capacity, 4)


@dataclass(frozen=True)
class Place:
    """One key frame.

    Attributes:
        stamp_s: when the robot was there.
        pose_odom_xyyaw: (3,) where, in odom.
        rgb: (H, W, 3) uint8 what it saw.
        features: (C, h, w) latents of what it saw, or None.
        leg: number of the uninterrupted drive that it belongs to; the robot never drove from one leg to the next.
    """

    stamp_s: float
    pose_odom_xyyaw: NDArray[np.float64]
    rgb: NDArray[np.uint8]
    features: torch.Tensor | None
    leg: int = 0


class PlaceMemory:
    """Key frames of a drive and the ways between them. Bounded by ``capacity``."""

    def __init__(self, config: PlacesConfig | None = None) -> None:
        self.config = config or PlacesConfig()
        self.places: list[Place] = []
        self._leg = 0

    def __len__(self) -> int:
        return len(self.places)

    def observe(
        self,
        stamp_s: float,
        pose_odom_xyyaw: NDArray[np.float64],
        rgb: NDArray[np.uint8],
        features: torch.Tensor | None,
    ) -> bool:
        """Keep a frame if the robot has moved enough since the last place; return whether it was kept."""
        if self.places and self.places[-1].leg == self._leg:
            moved = se2.relative(self.places[-1].pose_odom_xyyaw, pose_odom_xyyaw)
            if np.hypot(*moved[:2]) < self.config.spacing_m and abs(moved[2]) < self.config.spacing_rad:
                return False
        kept = None if features is None else features.detach().half().cpu()
        self.places.append(Place(stamp_s, np.array(pose_odom_xyyaw, float), rgb.copy(), kept, self._leg))
        if len(self.places) > self.config.capacity:
            half = len(self.places) // 2
            self.places = self.places[:half:2] + self.places[half:]
        return True

    def begin_leg(self) -> None:
        """Say that the robot may have been carried away: the next place is not joined to the last one."""
        self._leg += 1

    def clear(self) -> None:
        """Forget all places."""
        self.places.clear()

    def at_time(self, stamp_s: float) -> int | None:
        """Return the index of the place nearest in time, or None without places."""
        return min(range(len(self)), key=lambda index: abs(self.places[index].stamp_s - stamp_s), default=None)

    def nearest(self, pose_odom_xyyaw: NDArray[np.float64], metres_per_rad: float = 0.5) -> int | None:
        """Return the index of the place nearest to a pose, headings counted with ``metres_per_rad``; or None."""
        if not self.places:
            return None
        delta = se2.relative(self._poses(), pose_odom_xyyaw[None])
        return int(np.argmin(np.hypot(delta[:, 0], delta[:, 1]) + metres_per_rad * np.abs(delta[:, 2])))

    def most_similar(self, features: torch.Tensor) -> tuple[int, float] | None:
        """Return the index of the place whose latents are nearest to (C, h, w), and their mean squared difference."""
        wanted = features.detach().float().cpu()
        known = [
            (index, place.features)
            for index, place in enumerate(self.places)
            if place.features is not None and place.features.shape == wanted.shape
        ]
        if not known:
            return None
        stacked = torch.stack([latents for _, latents in known]).float()
        distances = ((stacked - wanted) ** 2).mean(dim=(1, 2, 3))
        best = int(distances.argmin())
        return known[best][0], float(distances[best])

    def way(self, start_odom_xyyaw: NDArray[np.float64], goal: int) -> NDArray[np.float64] | None:
        """Return positions (N, 2) in odom from the place nearest to the start to place ``goal``; None if unconnected.

        Dijkstra over the joins; the length of a join is its distance.
        """
        start = self.nearest(start_odom_xyyaw, metres_per_rad=0.0)
        if start is None:
            return None
        poses, legs = self._poses(), np.array([place.leg for place in self.places])
        cost = np.full(len(self), np.inf)
        before = np.full(len(self), -1)
        cost[start] = 0.0
        queue = [(0.0, start)]
        while queue:
            so_far, here = heapq.heappop(queue)
            if here == goal:
                break
            if so_far > cost[here]:
                continue
            for there, step_m in self._joined(here, poses, legs):
                if so_far + step_m < cost[there]:
                    cost[there], before[there] = so_far + step_m, here
                    heapq.heappush(queue, (float(cost[there]), there))
        if not np.isfinite(cost[goal]):
            return None
        chain = [goal]
        while chain[-1] != start:
            chain.append(int(before[chain[-1]]))
        return poses[chain[::-1], :2]

    def save(self, path: Path) -> None:
        """Write all places to one file, atomically.

        Raises:
            StorageError: no space or no permission; the file from before stays.
        """
        legs = [place.leg for place in self.places]
        facts = {"format": FORMAT, "count": len(self.places), "leg": self._leg}
        arrays = {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8), "legs": np.array(legs, np.int64)}
        if self.places:
            arrays["stamps_s"] = np.array([place.stamp_s for place in self.places])
            arrays["poses_xyyaw"] = self._poses()
        for index, place in enumerate(self.places):
            arrays[f"rgb_{index}"] = place.rgb
            if place.features is not None:
                arrays[f"features_{index}"] = place.features.numpy()
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **arrays)

    @classmethod
    def load(cls, path: Path, config: PlacesConfig | None = None) -> PlaceMemory:
        """Read places that :meth:`save` wrote; a new leg begins, because the robot may have been moved since.

        Raises:
            MemoryStoreError: no such file, or damaged.
        """
        memory = cls(config)
        try:
            with np.load(path, allow_pickle=False) as file:
                facts = json.loads(file["facts"].tobytes())
                if facts.get("format") != FORMAT:
                    raise ValueError(f"format is {facts.get('format')}")
                names = set(file.files)
                for index in range(int(facts["count"])):
                    latents = f"features_{index}"
                    features = torch.from_numpy(file[latents]) if latents in names else None
                    memory.places.append(
                        Place(
                            float(file["stamps_s"][index]),
                            file["poses_xyyaw"][index],
                            file[f"rgb_{index}"],
                            features,
                            int(file["legs"][index]),
                        )
                    )
                memory._leg = int(facts["leg"]) + 1
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise MemoryStoreError(f"{path}: holds no places ({error}); delete it, and they are learnt anew") from error
        return memory

    def _poses(self) -> NDArray[np.float64]:
        return np.stack([place.pose_odom_xyyaw for place in self.places])

    def _joined(self, here: int, poses: NDArray[np.float64], legs: NDArray[np.int64]) -> Sequence[tuple[int, float]]:
        """Return (index, metres) of the places that one can go to directly."""
        distance = np.hypot(*(poses[:, :2] - poses[here, :2]).T)
        near = {int(index) for index in np.flatnonzero(distance <= self.config.join_m)}
        near |= {other for other in (here - 1, here + 1) if 0 <= other < len(poses) and legs[other] == legs[here]}
        near.discard(here)
        return [(other, float(distance[other])) for other in near]
