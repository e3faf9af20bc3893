"""What the best weights of a composition would be, and what each expert is worth: fitted on half of the windows.

At every noise level the truth is noised, all experts say what they make of it, and the weights that would have
predicted the clean latents best are fitted on one half of the windows (whole drives where there are several) and
measured on the other, and the other way round. So are the gains of the likelihood that the spatial memory is without
any training.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.errors import DataError
from come_nav.core.experts import BASE, LONG_TERM, SHORT_TERM, SPATIAL
from come_nav.core.types import Context
from come_nav.evaluation.metrics.statistics import Interval, bootstrap_ratio, enough_clusters
from come_nav.evaluation.protocols.quality import WINDOWS_PER_BATCH, Batch, read_batch
from come_nav.evaluation.suites.memory.compositions import ComposedRow
from come_nav.evaluation.suites.memory.drive_memories import experts_of, supported
from come_nav.evaluation.suites.memory.recall import set_up_recall
from come_nav.evaluation.suites.memory.rows import BatchContexts
from come_nav.evaluation.suites.memory.settings import MemorySuiteSettings
from come_nav.evaluation.suites.memory.setup import MemorySetup
from come_nav.evaluation.suites.progress import Progress, silent
from come_nav.evaluation.suites.quality_rows import images_of
from come_nav.navigation.settings import NavigationSettings
from come_nav.world_model.calibration.contrasts import Contrasts, contrasts_at
from come_nav.world_model.calibration.likelihood import GainFit, LikelihoodSettings, SpatialLikelihood
from come_nav.world_model.calibration.weight_fit import FitSums, fitted_on
from come_nav.world_model.composition import CompositionSettings, exponents_of
from come_nav.world_model.model import DiffusionWorldModel, with_likelihood

LEVELS = (1.0, 0.7, 0.4, 0.1)  # fractions of the schedule
SINGLE = {BASE: (BASE,), SHORT_TERM: (SHORT_TERM,), LONG_TERM: (BASE, LONG_TERM), SPATIAL: (BASE, SPATIAL)}
FIXED, CALIBRATED, LIKELIHOOD, BASE_LIKELIHOOD = "fixed", "calibrated", "calibrated + likelihood", "base + likelihood"
ALONE, WITHOUT = ", calibrated", "calibrated without "  # after and before the name of an expert
# passes of the calibrated product whose exponents are nearer to 0 than this are left out
DROPPED = {f"calibrated, below {least:g} dropped": least for least in (0.05, 0.1, 0.2)}


@dataclass(frozen=True)
class LevelCalibration:
    """What was found at one noise level.

    Attributes:
        level: fraction of the schedule.
        weights: (K,) fitted on all windows.
        errors: row -> (W,) mean squared error of the clean latents in each window, with weights that were fitted on the
            half that the window is not in.
        passes: row -> how many passes the calibrated product has left.
    """

    level: float
    weights: NDArray[np.float64]
    errors: Mapping[str, NDArray[np.float64]]
    passes: Mapping[str, int]

    @property
    def best_single(self) -> str:
        """The expert whose own prediction has the smallest error."""
        return self._best([name for name in self.errors if name in SINGLE])

    @property
    def best_single_calibrated(self) -> str:
        """The row of the expert that is best with the weights that are fitted for it alone."""
        return self._best([name for name in self.errors if name.endswith(ALONE)])

    def _best(self, rows: Sequence[str]) -> str:
        return min(rows, key=lambda name: float(self.errors[name].mean()))

    def ratio(self, row: str, over: str, seed: int, drives: Sequence[str]) -> Interval:
        """Return the error of one row over that of another, with an interval over whole drives if there are enough."""
        return bootstrap_ratio(self.errors[row], self.errors[over], seed, enough_clusters(drives))

    def worth_of(self, name: str, seed: int, drives: Sequence[str]) -> Interval:
        """Return by what share the error rises without one expert: it counts where the interval lies above 0."""
        found = self.ratio(f"{WITHOUT}{name}", CALIBRATED, seed, drives)
        return replace(found, value=found.value - 1.0, low=found.low - 1.0, high=found.high - 1.0)


@dataclass(frozen=True)
class Calibration:
    """Weights and gains of all levels.

    Attributes:
        title: of what was evaluated.
        names: of the experts.
        levels: what was found at each.
        gains: of the likelihood on the calibrated product, fitted on all windows.
        drives: (W,) drive of each window.
    """

    title: str
    names: tuple[str, ...]
    levels: list[LevelCalibration]
    gains: LikelihoodSettings
    drives: list[str]


def run_calibration(
    settings: MemorySuiteSettings,
    navigation: NavigationSettings,
    folder: Path,
    prior_frames: float = 1.0,
    levels: Sequence[float] = LEVELS,
    progress: Progress = silent,
) -> Calibration:
    """Fit weights and gains on each half of the windows and measure them on the other.

    Raises:
        DataError: where there are not two windows for each half.
    """
    setup = set_up_recall(settings, navigation, folder, progress)
    first, drives = halves([item.window.recording_id for item in setup.selection.windows])
    found = contrasts_of(setup, levels)
    names = found[0].names
    row = setup.settings.weights.composed_row("all", True)
    fitting = Fitting(
        tuple(levels),
        found,
        np.array([row.weights.get(name, 0.0) for name in names]),
        prior_frames,
        len(setup.model.schedule),
    )
    halves_fitted = [(~fit, fitting.measured(fit)) for fit in (first, ~first)]
    results = []
    for number, level in enumerate(levels):
        errors = {name: np.zeros(len(drives)) for name in halves_fitted[0][1][number]}
        for held_out, measured in halves_fitted:
            for name, values in measured[number].items():
                errors[name][held_out] = values[held_out]
        weights = fitting.weights(found[number], np.ones(len(drives), bool))[CALIBRATED]
        left = {row: reduced(found[number], weights, least)[1] for row, least in {CALIBRATED: 0.0, **DROPPED}.items()}
        results.append(LevelCalibration(level, weights, errors, left))
    gains = fitting.gains(np.ones(len(drives), bool), CALIBRATED)
    return Calibration(setup.found.source.title, names, results, gains, drives)


@dataclass(frozen=True)
class Fitting:
    """What the experts said of all windows, and how weights and gains are fitted to some of them.

    Attributes:
        levels: fractions of the schedule.
        found: what the experts said at each.
        fixed: (K,) weights that the model ships with.
        prior_frames: how many frames these are worth.
        steps: of the schedule.
    """

    levels: tuple[float, ...]
    found: Sequence[Contrasts]
    fixed: NDArray[np.float64]
    prior_frames: float
    steps: int

    def weights(self, own: Contrasts, fit: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
        """Return the weights (K,) of each row, fitted to the windows ``fit`` where they are fitted."""
        names, rows = own.names, torch.from_numpy(np.flatnonzero(fit))
        sums = FitSums.of(own.clean[rows], own.free[rows], own.contrasts[:, rows])

        def fitted(chosen: Collection[str]) -> NDArray[np.float64]:
            numbers = [index for index, name in enumerate(names) if name in chosen]
            return fitted_on(sums, numbers, self.fixed, self.prior_frames)

        singles = [name for name in names if name in SINGLE]
        found = {name: np.array([float(each in SINGLE[name]) for each in names]) for name in singles}
        found |= {f"{name}{ALONE}": fitted(SINGLE[name]) for name in singles}
        found |= {FIXED: self.fixed, CALIBRATED: fitted(names)}
        return found | {f"{WITHOUT}{name}": fitted({*names} - {name}) for name in names}

    def gains(self, fit: NDArray[np.bool_], row: str) -> LikelihoodSettings:
        """Return the gains of the likelihood on the product of one row, fitted to the windows ``fit``."""
        ascending, rows = tuple(sorted(self.levels)), torch.from_numpy(np.flatnonzero(fit))
        sums = GainFit(self.found[0].clean.shape[1], ascending)
        for level, own in zip(self.levels, self.found, strict=True):
            evidence = cast(Tensor, own.evidence)[rows]
            predicted = composed(own, self.weights(own, fit)[row])[rows]
            sums.add(ascending.index(level), own.clean[rows], predicted, evidence[:, :-1], evidence[:, -1])
        return sums.settings()

    def measured(self, fit: NDArray[np.bool_]) -> list[dict[str, NDArray[np.float64]]]:
        """Return for each level row -> errors (W,) of all windows, of what is fitted to the windows ``fit``."""
        tables = {row: self.gains(fit, over) for row, over in ((LIKELIHOOD, CALIBRATED), (BASE_LIKELIHOOD, BASE))}
        results = []
        for level, own in zip(self.levels, self.found, strict=True):
            rows = self.weights(own, fit)
            errors = {name: _errors(own, composed(own, weights)) for name, weights in rows.items()}
            for row, least in DROPPED.items():
                errors[row] = _errors(own, reduced(own, rows[CALIBRATED], least)[0])
            for row, over in ((LIKELIHOOD, CALIBRATED), (BASE_LIKELIHOOD, BASE)):
                predicted = _with_evidence(own, composed(own, rows[over]), tables[row], level, self.steps)
                errors[row] = _errors(own, predicted)
            results.append(errors)
        return results


def halves(drives: Sequence[str]) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which windows are fitted on: every other drive, or the first half of the windows of a single one.

    Raises:
        DataError: where a half would have fewer than two windows.
    """
    names = list(dict.fromkeys(drives))
    if len(names) > 1:
        fit = np.array([names.index(name) % 2 == 0 for name in drives])
    else:
        fit = np.arange(len(drives)) < len(drives) // 2
    if min(fit.sum(), (~fit).sum()) < 2:
        raise DataError(f"calibration needs two windows to fit on and two to measure on, got {len(drives)} in all")
    return fit, list(drives)


def contrasts_of(
    setup: MemorySetup, levels: Sequence[float], draws: int = 1, names: Sequence[str] | None = None
) -> list[Contrasts]:
    """Return what experts say of all windows, for each noise level.

    Args:
        setup: whose windows are grouped by drive.
        levels: fractions of the schedule.
        draws: noises of each level.
        names: of the memory experts; all that the model can have where None.
    """
    asked_names = (BASE, *(supported(setup.model) if names is None else names))
    row = ComposedRow("all", True, dict.fromkeys(asked_names, 1.0))
    cache, older_frames = setup.cache([row]), setup.navigation.experts.older_frames
    told, images = experts_of(row, setup.model, older_frames), images_of(setup.model)
    asked = [(level, draw) for level in levels for draw in range(draws)]
    parts: list[list[Contrasts]] = [[] for _ in asked]
    windows = setup.selection.windows
    with setup.progress(len(windows), "what the experts say", "window") as bar:
        for name, group in groupby(windows, key=lambda window: window.window.recording_id):
            own, memories = list(group), cache.of(name)
            model = with_likelihood(memories.composed(told), LikelihoodSettings(), memories.views)
            for start in range(0, len(own), WINDOWS_PER_BATCH):
                batch, contexts = read_batch(own[start : start + WINDOWS_PER_BATCH], images), BatchContexts(cache, told)
                clean = model.encode(batch.truth.flatten(0, 1).to(model.device))
                for part, (level, draw) in zip(parts, asked, strict=True):
                    part.append(_of_batch(model, batch, contexts, clean, level, draw))
                bar.add(count=len(batch.windows))
    return [_joined(part) for part in parts]


def _joined(parts: Sequence[Contrasts]) -> Contrasts:
    """Return the windows of all parts behind one another."""
    return Contrasts(
        parts[0].names,
        torch.cat([part.clean for part in parts]),
        torch.cat([part.with_memory for part in parts], 1),
        torch.cat([part.without for part in parts], 1),
        torch.cat([cast(Tensor, part.evidence) for part in parts]),
        parts[0].passes,
    )


def _of_batch(
    model: DiffusionWorldModel, batch: Batch, contexts: BatchContexts, clean: Tensor, level: float, draw: int
) -> Contrasts:
    times, actions, step = batch.rel_frames, batch.actions_xyyaw, round(level * (len(model.schedule) - 1))
    generator = batch.generator()
    torch.randn((draw, *clean.shape), generator=generator)  # those of the draws before

    passes: list[tuple[tuple[int, int], ...]] = []

    def said(own: Tensor, context: Context) -> Tensor:
        found = contrasts_at(model, context, actions[own], times[own], clean[own], step, generator)
        passes.append(found.passes)
        evidence = _padded(cast(Tensor, found.evidence))
        return torch.cat([found.with_memory.movedim(1, 0), found.without.movedim(1, 0), evidence], 1)

    count = len(model.experts)
    values = contexts.each(batch, said)  # (B, 2 K + 2, C, h, w)
    evidence = torch.cat([values[:, 2 * count], values[:, 2 * count + 1, :1]], 1)
    sides = values[:, : 2 * count].movedim(1, 0)
    return Contrasts(tuple(model.experts), clean, sides[:count], sides[count:], evidence, passes[0])


def _padded(evidence: Tensor) -> Tensor:
    """Return latents and known share (B, C + 1, h, w) as two rows of C channels (B, 2, C, h, w)."""
    known = evidence[:, -1:].expand(-1, evidence.shape[1] - 1, -1, -1)
    return torch.stack([evidence[:, :-1], known], 1)


def composed(own: Contrasts, weights: NDArray[np.float64]) -> Tensor:
    """Return the clean latents (B, C, h, w) of the composition with weights (K,)."""
    factors = torch.as_tensor(weights, dtype=own.clean.dtype, device=own.clean.device)
    return own.free + torch.einsum("k,kbchw->bchw", factors, own.contrasts)


def reduced(own: Contrasts, weights: NDArray[np.float64], least: float) -> tuple[Tensor, int]:
    """Return the same without passes whose exponent is nearer to 0 than ``least``, and how many passes are left."""
    settings = CompositionSettings("normalised", tuple(weights.tolist()), least_exponent=least)
    exponents = exponents_of(own.passes, settings)
    sides = dict(zip(sum(own.passes, ()), torch.stack([own.with_memory, own.without], 1).flatten(0, 1), strict=True))
    return torch.stack([exponent * sides[number] for number, exponent in exponents.items()]).sum(0), len(exponents)


def _with_evidence(own: Contrasts, predicted: Tensor, table: LikelihoodSettings, level: float, steps: int) -> Tensor:
    evidence = cast(Tensor, own.evidence)
    gain = SpatialLikelihood(table, steps).gain(round(level * (steps - 1)), evidence[:, -1]).to(predicted)
    return predicted + gain * (evidence[:, :-1] - predicted)


def _errors(own: Contrasts, predicted: Tensor) -> NDArray[np.float64]:
    return np.asarray(((own.clean - predicted) ** 2).flatten(1).mean(1).double().cpu().numpy())
