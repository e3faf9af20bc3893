"""Where a picture was taken: the pose from which the memory looks most like it (visual relocalisation).

Pictures taken at a similar place look similar, so the search begins at the remembered frames that resemble the picture
most, and goes on around the poses whose remembered view comes nearest to it, closer and closer (a cross-entropy search
with one proposal around each elite). It ends as soon as a pose is good enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.checks import check_range, check_shape

Difference = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class RelocalisationConfig:
    """How hard to search.

    Attributes:
        starts: remembered frames that one attempt begins with, >= 1.
        attempts: as many times with the next frames, while nothing good was found, >= 1.
        samples: poses of a round, >= 1.
        rounds: of an attempt, >= 1.
        polish: rounds around the best of all attempts, once it is promising and at the end, >= 0.
        elites: best poses that a round goes on from, >= 1.
        spread_m: of the first round, standard deviation, > 0.
        spread_rad: and of the heading, > 0.
        shrink: of both from round to round, in (0, 1].
        promising: difference of an attempt that is polished at once, >= 0.
        good: difference that needs no further attempt, >= 0.
        unknown_weight: difference of a view of which nothing is remembered, >= 0; a part counts by its share.
    """

    starts: int = 16
    attempts: int = 4
    samples: int = 64
    rounds: int = 3
    polish: int = 3
    elites: int = 8
    spread_m: float = 0.5
    spread_rad: float = 0.4
    shrink: float = 0.6
    promising: float = 0.45
    good: float = 0.25
    unknown_weight: float = 0.3

    def __post_init__(self) -> None:
        for name in ("starts", "attempts", "samples", "rounds", "elites"):
            check_range(f"relocalisation.{name}", getattr(self, name), 1)
        for name in ("spread_m", "spread_rad"):
            check_range(f"relocalisation.{name}", getattr(self, name), 0.0, open_low=True)
        check_range("relocalisation.shrink", self.shrink, 0.0, 1.0, open_low=True)
        for name in ("polish", "promising", "good", "unknown_weight"):
            check_range(f"relocalisation.{name}", getattr(self, name), 0.0)

    @property
    def polishing(self) -> range:
        """Numbers of the rounds that polish: they sample ever more narrowly where the rounds of an attempt end."""
        return range(self.rounds, self.rounds + self.polish)


@dataclass(frozen=True)
class Sighting:
    """Where a picture seems to have been taken.

    Attributes:
        pose_odom_xyyaw: (3,) of the robot.
        difference: between the picture and what is remembered from there; 0 = none.
    """

    pose_odom_xyyaw: NDArray[np.float64]
    difference: float


def relocalise(
    difference: Difference,
    starts_xyyaw: NDArray[np.float64],
    generator: torch.Generator,
    config: RelocalisationConfig | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Sighting | None:
    """Return the pose of the smallest difference; None without starts, or if no difference is finite.

    Args:
        difference: of the remembered views at poses (S, 3) in odom to the picture, (S,).
        starts_xyyaw: (K, 3) poses to begin with, the most promising first.
        generator: the only source of chance.
        config: how hard to search.
        stopped: asked after every round; once it is true, the best so far is returned.
    """
    settings = config or RelocalisationConfig()
    check_shape("starts_xyyaw", starts_xyyaw, "K 3")
    starts = torch.from_numpy(np.asarray(starts_xyyaw, np.float64))[: settings.starts * settings.attempts]
    if not len(starts):
        return None
    search = _Search(difference, generator, settings)
    found, polished = _Poses(starts[:0], starts[:0, 0]), False
    for batch in starts.split(settings.starts):
        # The first round samples around every start alike; the later ones around the elites.
        attempt = _Poses(batch, search.differences(batch))
        attempt = search.rounds(attempt, range(settings.rounds), stopped)
        found, polished = found.best_with(attempt, settings.elites), False
        if float(attempt.values.min()) <= settings.promising:
            found, polished = search.rounds(found, settings.polishing, stopped), True
        if float(found.values[0]) <= settings.good or stopped():
            break
    if not polished:
        found = search.rounds(found, settings.polishing, stopped)
    if not bool(torch.isfinite(found.values[0])):
        return None
    return Sighting(found.poses_xyyaw[0].numpy().copy(), float(found.values[0]))


@dataclass(frozen=True)
class _Poses:
    """Poses (S, 3) and their differences (S,)."""

    poses_xyyaw: torch.Tensor
    values: torch.Tensor

    def best_with(self, other: _Poses, count: int) -> _Poses:
        poses, values = torch.cat([self.poses_xyyaw, other.poses_xyyaw]), torch.cat([self.values, other.values])
        order = values.argsort(stable=True)[:count]
        return _Poses(poses[order], values[order])


class _Search:
    def __init__(self, difference: Difference, generator: torch.Generator, settings: RelocalisationConfig) -> None:
        self._difference, self._generator, self._settings = difference, generator, settings

    def differences(self, poses_xyyaw: torch.Tensor) -> torch.Tensor:
        values = self._difference(poses_xyyaw).double().cpu()
        return torch.where(torch.isfinite(values), values, torch.inf)

    def rounds(self, known: _Poses, numbers: range, stopped: Callable[[], bool]) -> _Poses:
        """Return the elites after rounds of these numbers, or after those that there was time for."""
        for number in numbers:
            if stopped():
                break
            known = self._round(known, number, len(known.values) if number == 0 else self._settings.elites)
        return known

    def _round(self, known: _Poses, number: int, count: int) -> _Poses:
        """Try poses around the ``count`` best of those that are known; return the elites of all."""
        settings, generator = self._settings, self._generator
        best = known.best_with(_Poses(known.poses_xyyaw[:0], known.values[:0]), count)
        if len(best.values) >= count > settings.elites:
            chosen = torch.arange(settings.samples) % count
        else:
            chosen = torch.randint(len(best.values), (settings.samples,), generator=generator)
        spread = torch.tensor([settings.spread_m, settings.spread_m, settings.spread_rad], dtype=torch.float64)
        noise = torch.randn(settings.samples, 3, generator=generator, dtype=torch.float64)
        fresh = best.poses_xyyaw[chosen] + settings.shrink**number * spread * noise
        return best.best_with(_Poses(fresh, self.differences(fresh)), settings.elites)
