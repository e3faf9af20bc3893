"""Weights of the experts in each row of the memory suites, chosen on validation worlds alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch

from come_nav.core.errors import ConfigError
from come_nav.evaluation.protocols.quality import WINDOWS_PER_BATCH, Batch, QualityRow, measure, read_batch
from come_nav.evaluation.suites.memory.compositions import (
    AVERAGE,
    CONTRAST,
    EXPERTS,
    ComposedRow,
    CompositionWeights,
    write_weights,
)
from come_nav.evaluation.suites.memory.drive_memories import experts_of
from come_nav.evaluation.suites.memory.recall import set_up_recall
from come_nav.evaluation.suites.memory.rows import BatchContexts, available_rows, composition_row
from come_nav.evaluation.suites.memory.settings import MemorySuiteSettings
from come_nav.evaluation.suites.memory.setup import MemorySetup
from come_nav.evaluation.suites.progress import Progress, silent
from come_nav.evaluation.suites.quality_rows import images_of
from come_nav.evaluation.suites.worlds import words_of
from come_nav.navigation.settings import NavigationSettings
from come_nav.sim.splits import split_of

DEFAULT_WINDOWS = 100
STEPS = (0.5, 0.25)  # of the search, the coarse one first
MOST = 3.0  # largest weight
LEAST_GAIN_DB = 0.01  # a change must gain this much: less is noise
FILE = "weights.yaml"

Weights = tuple[float, ...]


@dataclass(frozen=True)
class Choice:
    """What was found for one row: its weights and its mean PSNR with them."""

    composed_row: ComposedRow
    psnr_db: float


@dataclass(frozen=True)
class ChosenWeights:
    """The choice for every row, the file that holds it, and the number of windows and notes that it stands on."""

    choices: list[Choice]
    path: Path
    windows: int
    notes: list[str]


def run_choice_of_weights(
    settings: MemorySuiteSettings, navigation: NavigationSettings, folder: Path, progress: Progress = silent
) -> ChosenWeights:
    """Choose the weights of the recall suite's rows; write weights.yaml into ``folder``.

    Raises:
        ConfigError: for anything but validation worlds.
    """
    check_validation(settings)
    if settings.source.windows is None:
        settings = replace(settings, source=replace(settings.source, windows=DEFAULT_WINDOWS))
    setup = set_up_recall(settings, navigation, folder, progress)
    keys = available_rows([key for key, experts in EXPERTS.items() if len(experts) > 1], False, setup.model)
    choices = choose(setup, keys)
    windows = len(setup.selection.windows)
    comment = (
        f"Model {Path(navigation.model).name}, worlds {words_of(settings.source.worlds)}, {windows} windows, "
        f"seed {navigation.seed}: largest mean PSNR."
    )
    write_weights(folder / FILE, chosen_weights(choices), comment)
    return ChosenWeights(choices, folder / FILE, windows, setup.selection.notes)


def check_validation(settings: MemorySuiteSettings) -> None:
    """Refuse to choose weights on anything but validation worlds."""
    if settings.source.paths:
        raise ConfigError("--choose-weights takes validation worlds (--worlds 10000-10009), no recording")
    for seed in settings.source.worlds:
        if split_of(seed) != "validation":
            raise ConfigError(
                f"--choose-weights takes validation worlds alone, e.g. --worlds 10000-10009; world {seed} is for "
                f"{split_of(seed)}"
            )


def choose(setup: MemorySetup, keys: Sequence[str]) -> list[Choice]:
    """Search the weights of every row, with contrast and without."""
    score = Scorer(setup)
    base = setup.settings.weights.composed_row("base", True)
    choices = [Choice(base, score(base))]
    with setup.progress(2 * len(keys), "weights", "row") as bar:
        for contrast in (True, False):
            found: dict[str, tuple[Weights, float]] = {}
            for key in keys:
                starts = [(1.0,) * len(EXPERTS[key]), *_from_smaller(key, found)]
                best = max((climb(score.of(key, contrast), start) for start in starts), key=lambda each: each[1])
                found[key] = best
                choices.append(Choice(_row(key, contrast, best[0]), best[1]))
                bar.add(f"{choices[-1].composed_row.name} {best[1]:.2f} dB")
    return choices


def climb(score: Callable[[Weights], float], start: Weights) -> tuple[Weights, float]:
    """Return the weights that no step of a single weight improves, and their score.

    One weight after the other goes up or down as long as that gains; weights stay in [0, MOST].
    """
    best, value = start, score(start)
    for step in STEPS:
        moved = True
        while moved:
            moved = False
            for index in range(len(best)):
                for change in (step, -step):
                    weight = best[index] + change
                    if not 0.0 <= weight <= MOST:
                        continue
                    candidate = (*best[:index], weight, *best[index + 1 :])
                    other = score(candidate) if any(candidate) else float("-inf")
                    if other > value + LEAST_GAIN_DB:
                        best, value, moved = candidate, other, True
                        break
    return best, value


class Scorer:
    """Mean PSNR of a composition over all windows. Contexts and memories are made once, scores are remembered."""

    def __init__(self, setup: MemorySetup) -> None:
        rows = setup.settings.weights.compositions(EXPERTS)
        self._cache = setup.cache(rows, room=len(setup.found.drives))  # all windows are imagined again and again
        self._older_frames = setup.navigation.experts.older_frames
        told = experts_of(setup.settings.weights.composed_row("base", True), setup.model, self._older_frames)
        images = images_of(setup.model)
        self._batches: list[tuple[Batch, BatchContexts]] = []
        for _, group in groupby(setup.selection.windows, key=lambda window: window.window.recording_id):
            own = list(group)
            for start in range(0, len(own), WINDOWS_PER_BATCH):
                batch = read_batch(own[start : start + WINDOWS_PER_BATCH], images)
                self._batches.append((batch, BatchContexts(self._cache, told)))
        self._known: dict[tuple[str, tuple[tuple[str, float], ...]], float] = {}

    def of(self, key: str, contrast: bool) -> Callable[[Weights], float]:
        """Return the score of the row ``key`` as a function of its weights."""
        return lambda weights: self(_row(key, contrast, weights))

    def __call__(self, composed_row: ComposedRow) -> float:
        """Return the mean PSNR, dB."""
        name = (composed_row.mode, tuple(sorted(composed_row.counting.items())))
        if name not in self._known:
            values = []
            for batch, contexts in self._batches:
                row: QualityRow = composition_row(composed_row, self._cache, contexts, self._older_frames)
                values.append(measure(row.imagine(batch).flatten(0, 1), batch.truth.flatten(0, 1))["psnr_db"])
            self._known[name] = float(torch.cat(values).mean())
        return self._known[name]


def chosen_weights(choices: Sequence[Choice]) -> CompositionWeights:
    """Return the weights of all rows that compose several experts."""
    sections: dict[str, dict[str, Mapping[str, float]]] = {CONTRAST: {}, AVERAGE: {}}
    for choice in choices:
        if len(EXPERTS[choice.composed_row.key]) > 1:
            section = CONTRAST if choice.composed_row.contrast else AVERAGE
            sections[section][choice.composed_row.key] = dict(choice.composed_row.weights)
    return CompositionWeights(sections)


def _row(key: str, contrast: bool, weights: Weights) -> ComposedRow:
    return ComposedRow(key, contrast, dict(zip(EXPERTS[key], weights, strict=True)))


def _from_smaller(key: str, found: Mapping[str, tuple[Weights, float]]) -> list[Weights]:
    """Return the best weights of a row with fewer experts as a start: an expert that hurts can stay at 0."""
    inside = [other for other in found if {*EXPERTS[other]} < {*EXPERTS[key]}]
    if not inside:
        return []
    best = max(inside, key=lambda other: found[other][1])
    given = dict(zip(EXPERTS[best], found[best][0], strict=True))
    return [tuple(given.get(name, 0.0) for name in EXPERTS[key])]
