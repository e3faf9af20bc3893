"""Where an image was taken: the pose from which the memory looks most like it (visual relocalisation).

Images taken at a similar place look similar, so the search begins at the remembered frames that resemble the image
most, and goes on around the poses whose remembered view comes nearest to it, closer and closer (a cross-entropy search
with one proposal around each elite). Most of it compares small images of a coarse cloud, which change slowly with the
pose and cost little; the best of them are then compared exactly. It ends as soon as a pose is good enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.geometry import se2
from come_nav.localisation.relocalisation_settings import RelocalisationSettings

Difference = Callable[[torch.Tensor], torch.Tensor]
AHEAD_M = (0.0, 0.5, 1.0, 1.5)


@dataclass(frozen=True)
class RelocalisationResult:
    """Where an image seems to have been taken.

    Attributes:
        pose_odom_xyyaw: (3,) of the robot.
        difference: between the image and what is remembered from there; 0 = none.
    """

    pose_odom_xyyaw: NDArray[np.float64]
    difference: float


def poses_ahead(pose_odom_xyyaw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return poses (K, 3) at and ahead of a robot at (3,): goals are often in view, where no key frame may be near."""
    return se2.compose(pose_odom_xyyaw[None], np.array([[x_m, 0.0, 0.0] for x_m in AHEAD_M]))


def relocalise(
    rough: Difference,
    exact: Difference,
    starts_xyyaw: NDArray[np.float64],
    generator: torch.Generator,
    config: RelocalisationSettings | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> RelocalisationResult | None:
    """Return the pose of the smallest difference; None without starts, or if no difference is finite.

    Args:
        rough: difference of the remembered views at poses (S, 3) in odom to the image, (S,), at little cost.
        exact: the difference that counts.
        starts_xyyaw: (K, 3) poses to begin with, the most promising first.
        generator: the only source of chance.
        config: how hard to search.
        stopped: asked after every round; once it is true, the best so far is returned.
    """
    settings = config or RelocalisationSettings()
    check_shape("starts_xyyaw", starts_xyyaw, "K 3")
    starts = torch.from_numpy(np.asarray(starts_xyyaw, np.float64))[: settings.starts]
    if not len(starts):
        return None
    search = _Search(rough, settings.samples, settings.elites, generator, settings)
    polish = _Search(exact, settings.polish_samples, settings.polish_elites, generator, settings)
    begin, found = search.evaluated(starts), _Poses(starts[:0], starts[:0, 0])
    for _ in range(settings.attempts):
        # The first round samples around every start alike; the later ones around the elites.
        near = search.rounds(begin, range(settings.rounds), stopped).best(settings.elites)
        attempt = polish.evaluated(near.poses_xyyaw).best(settings.polish_elites)
        # Polishing samples ever more narrowly from where the rough rounds have ended.
        rounds = range(settings.rounds - 1, settings.rounds - 1 + settings.polish)
        found = found.joined(polish.rounds(attempt, rounds, stopped)).best(settings.polish_elites)
        if float(found.values[0]) <= settings.good or stopped():
            break
    if not bool(torch.isfinite(found.values[0])):
        return None
    return RelocalisationResult(found.poses_xyyaw[0].numpy().copy(), float(found.values[0]))


@dataclass(frozen=True)
class _Poses:
    """Poses (S, 3) and their differences (S,)."""

    poses_xyyaw: torch.Tensor
    values: torch.Tensor

    def joined(self, other: _Poses) -> _Poses:
        return _Poses(torch.cat([self.poses_xyyaw, other.poses_xyyaw]), torch.cat([self.values, other.values]))

    def best(self, count: int) -> _Poses:
        order = self.values.argsort(stable=True)[:count]
        return _Poses(self.poses_xyyaw[order], self.values[order])


class _Search:
    """Rounds of one kind."""

    def __init__(
        self,
        difference: Difference,
        samples: int,
        elites: int,
        generator: torch.Generator,
        settings: RelocalisationSettings,
    ) -> None:
        self._difference, self._samples, self._elites = difference, samples, elites
        self._generator, self._settings = generator, settings

    def evaluated(self, poses_xyyaw: torch.Tensor) -> _Poses:
        values = self._difference(poses_xyyaw).double().cpu()
        return _Poses(poses_xyyaw, torch.where(torch.isfinite(values), values, torch.inf))

    def rounds(self, known: _Poses, numbers: range, stopped: Callable[[], bool]) -> _Poses:
        """Return what is known after rounds of these numbers, or after those that there was time for."""
        for number in numbers:
            if stopped():
                break
            known = self._round(known, number).best(self._elites)
        return known

    def _round(self, centres: _Poses, number: int) -> _Poses:
        """Try poses around the centres, all alike often in the first round; return all of them, the centres too."""
        settings, generator, count = self._settings, self._generator, len(centres.values)
        if number == 0:
            chosen = torch.arange(self._samples) % count
        else:
            chosen = torch.randint(count, (self._samples,), generator=generator)
        spread = torch.tensor([settings.spread_m, settings.spread_m, settings.spread_rad], dtype=torch.float64)
        noise = torch.randn(self._samples, 3, generator=generator, dtype=torch.float64)
        fresh = centres.poses_xyyaw[chosen] + settings.shrink**number * spread * noise
        fresh[:, 2] = se2.wrap_angle(fresh[:, 2])
        return centres.joined(self.evaluated(fresh))
