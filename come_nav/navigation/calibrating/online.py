"""Each new frame is a free test of what every expert would have said of it.

The test of a frame uses the newest frames, the cloud, its corrections and the adapter as they stood some seconds
before, so that what it asks is what plans ask: a view from a pose ahead that nobody has seen since. The next frame
alone would favour what looks at the last one. Whoever was right gets more weight: weights are fitted to the tests by
ridge regression towards those that are set (:mod:`come_nav.world_model.calibration.weight_fit`), and old tests fade.

Prequential (Dawid 1984): a frame's errors are counted with the weights as they were before it, then it teaches.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.types import Context
from come_nav.memory.short_term import Remembered
from come_nav.navigation.calibrating.settings import CalibrationSettings
from come_nav.world_model.calibration.contrasts import Contrasts, contrasts_at
from come_nav.world_model.calibration.weight_fit import FitSums, fitted_weights
from come_nav.world_model.model import DiffusionWorldModel

REPORTED = 20  # newest tests in a report
LATE = 0.25  # of the horizon: a frame that comes later than this is not what the test asked for


@dataclass(frozen=True)
class Moment:
    """What the robot knew at one time.

    Attributes:
        stamp_s: of the newest frame.
        pose_odom_xyyaw: (3,) where it was taken.
        context: the newest frames.
        model: with all its experts, whose memories change no more.
    """

    stamp_s: float
    pose_odom_xyyaw: NDArray[np.float64]
    context: Context
    model: DiffusionWorldModel


@dataclass(frozen=True)
class Tested:
    """How well a frame was foreseen: mean squared errors of its clean latents.

    Attributes:
        stamp_s: of the frame.
        ahead_s: how long before it the test was set.
        level: noise level, a fraction of the schedule.
        weights: of the experts before the frame came.
        errors: of each expert alone against its own other side, by name.
        prior: with the weights as they are set.
        calibrated: with ``weights``.
    """

    stamp_s: float
    ahead_s: float
    level: float
    weights: Mapping[str, float]
    errors: Mapping[str, float]
    prior: float
    calibrated: float


class OnlineCalibration:
    """Weights that follow the tests. Called by one thread.

    Attributes:
        settings: see there.
        tests: the newest ones, oldest first.
    """

    def __init__(self, settings: CalibrationSettings, prior: Mapping[str, float], seed: int = 0) -> None:
        """Begin with the weights ``prior``, by the expert's name."""
        self.settings, self._prior, self._seed = settings, dict(prior), seed
        self.tests: deque[Tested] = deque(maxlen=settings.remembered)
        self.clear()

    def clear(self) -> None:
        """Forget all tests: the weights are those that are set."""
        self._sums: dict[tuple[float, tuple[str, ...]], FitSums] = {}
        self._pending: tuple[Moment, float] | None = None
        self._asked_s = -math.inf
        self._generator = torch.Generator().manual_seed(self._seed)
        self.tests.clear()

    @property
    def weights(self) -> dict[float, dict[str, float]]:
        """Fitted weights by noise level and expert; nothing before the first test."""
        found: dict[float, dict[str, float]] = {}
        for (level, names), sums in self._sums.items():
            found.setdefault(level, {}).update(self._fitted(names, sums))
        return found

    def report(self) -> dict[str, str]:
        """Return what the newest tests came to, in words: errors as they are set and fitted, and the weights."""
        newest = list(self.tests)[-REPORTED:]
        if not newest:
            return {}
        prior, calibrated = (float(np.mean([getattr(own, name) for own in newest])) for name in ("prior", "calibrated"))
        found = {"calibration": f"error {calibrated:.3f}, {prior:.3f} with the weights as set, {len(newest)} tests"}
        names = newest[-1].weights
        alone = {name: float(np.mean([own.errors[name] for own in newest if name in own.errors])) for name in names}
        return found | {
            f"weight {name}": f"{weight:.2f} (set {self._prior.get(name, 0.0):.2f}, alone {alone[name]:.3f})"
            for name, weight in names.items()
        }

    def observe(self, seen: Remembered, moment: Callable[[], Moment | None]) -> Tested | None:
        """Take a kept frame: answer the test that waits for it, or set one; return what was tested.

        ``moment`` tells what is known now; it is asked for only where a test is set.
        """
        tested = None
        if self._pending is not None:
            before, due_s = self._pending
            ahead_s = seen.stamp_s - before.stamp_s
            if seen.stamp_s >= due_s or ahead_s < 0.0:
                self._pending = None
            if due_s <= seen.stamp_s <= due_s + LATE * (due_s - before.stamp_s) and seen.features is not None:
                tested = self._test(before, seen)
        if self._pending is None and (abs(seen.stamp_s - self._asked_s) >= self.settings.period_s):
            now = moment()
            if now is not None:
                low, high = self.settings.horizons_s
                ahead_s = low + (high - low) * float(torch.rand((), generator=self._generator))
                self._pending, self._asked_s = (now, now.stamp_s + ahead_s), seen.stamp_s
        return tested

    def _test(self, before: Moment, seen: Remembered) -> Tested | None:
        model, levels = before.model, self.settings.levels
        level = levels[int(torch.randint(len(levels), (), generator=self._generator))]
        assert seen.features is not None
        ahead_s = seen.stamp_s - before.stamp_s
        action = torch.from_numpy(se2.relative(before.pose_odom_xyyaw, seen.pose_odom_xyyaw)).float()[None]
        said = contrasts_at(
            model,
            before.context,
            action,
            torch.tensor([ahead_s * model.rate_hz], dtype=torch.float32),
            seen.features[None],
            round(level * (len(model.schedule) - 1)),
            self._generator,
        )
        return self._take(said, seen.stamp_s, ahead_s, level)

    def _take(self, said: Contrasts, stamp_s: float, ahead_s: float, level: float) -> Tested | None:
        frame = FitSums.of(said.clean, said.free, said.contrasts)
        if not np.isfinite(frame.square):
            return None
        names, count = said.names, len(said.names)
        before = self._sums.get((level, names), FitSums.none(count))
        weights, prior = self._fitted(names, before), {name: self._prior.get(name, 0.0) for name in names}
        alone = ((said.clean[None] - said.with_memory) ** 2).flatten(1).mean(1).tolist()
        tested = Tested(
            stamp_s,
            ahead_s,
            level,
            weights,
            dict(zip(names, alone, strict=True)),
            frame.error(np.array([prior[name] for name in names])),
            frame.error(np.array([weights[name] for name in names])),
        )
        self.tests.append(tested)
        faded = before.faded(0.5 ** (1.0 / self.settings.half_life_frames))
        self._sums[(level, names)] = faded + frame
        for other in [key for key in self._sums if key[0] == level and key[1] != names]:
            del self._sums[other]  # an expert came or went: its neighbours' weights are others
        return tested

    def _fitted(self, names: tuple[str, ...], sums: FitSums) -> dict[str, float]:
        prior = np.array([self._prior.get(name, 0.0) for name in names])
        if sums.frames <= 0.0:
            return dict(zip(names, prior.tolist(), strict=True))
        weights = fitted_weights(sums, prior, self.settings.prior_frames)
        return dict(zip(names, weights.tolist(), strict=True))
