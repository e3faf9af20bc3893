"""Suite "recall": views of places seen long before, by every composition of memory experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from come_nav.core.errors import ComeNavError, DataError
from come_nav.core.settings import to_mapping
from come_nav.evaluation.metrics.perceptual import Distance, pair_distance
from come_nav.evaluation.protocols.memory_windows import MemoryWindow
from come_nav.evaluation.protocols.quality import (
    KEEPS_TILT,
    TRUTH,
    WINDOWS_PER_BATCH,
    FeaturesFunction,
    ImagesFunction,
    QualityRow,
    camera_tilts,
    evaluate_quality,
    truth_row,
)
from come_nav.evaluation.protocols.results import Record, ResultStore
from come_nav.evaluation.reports.memory_report import RecallEvaluation, write_recall_report, write_recall_results
from come_nav.evaluation.reports.memory_tables import FACTS, GEOMETRY, NEAREST, recall_table
from come_nav.evaluation.suites.fingerprints import machine_facts
from come_nav.evaluation.suites.inputs import frames_of
from come_nav.evaluation.suites.memory.compositions import (
    MEMORY_NET,
    ComposedRow,
    base_notes,
    base_row,
    main_row,
    sampling_notes,
    weight_lines,
)
from come_nav.evaluation.suites.memory.drive_memories import MemoryCache, experts_of
from come_nav.evaluation.suites.memory.optional_rows import ADAPTED_LIKELIHOOD, optional_rows
from come_nav.evaluation.suites.memory.passes import passes_of_rows
from come_nav.evaluation.suites.memory.rows import RECALL_ROWS, available_rows, recall_rows, told_extrinsics
from come_nav.evaluation.suites.memory.sequence_rows import load_sequences, sequence_recall_rows, stored_sequences
from come_nav.evaluation.suites.memory.settings import IMAGES, MemorySuiteSettings, stored_settings
from come_nav.evaluation.suites.memory.setup import MemorySetup, set_up
from come_nav.evaluation.suites.outcome import Outcome
from come_nav.evaluation.suites.progress import Progress, silent
from come_nav.evaluation.suites.quality_rows import images_of
from come_nav.evaluation.suites.set_features import FEATURES_OF, reference_features
from come_nav.navigation.loading import load_configured_model
from come_nav.navigation.settings import NavigationSettings

LONGEST_S = (16.0,)  # to the farthest target


def run_recall(
    settings: MemorySuiteSettings, navigation: NavigationSettings, folder: Path, progress: Progress = silent
) -> Outcome[RecallEvaluation]:
    """Evaluate recall, or go on in ``folder``; write the results and the report.

    Raises:
        ConfigError: for settings that do not fit the input or the results that are there, or rows without experts.
        DataError: where no window fits.
    """
    setup = set_up_recall(settings, navigation, folder, progress)
    wanted = RECALL_ROWS if settings.rows is None else settings.rows
    evaluation = _evaluate(setup, available_rows(wanted, settings.rows is not None, setup.model))
    write_recall_results(folder, evaluation)
    page = write_recall_report(folder, evaluation) if settings.report else None
    return Outcome(setup.found.source, evaluation, folder, page)


def set_up_recall(
    settings: MemorySuiteSettings,
    navigation: NavigationSettings,
    folder: Path,
    progress: Progress,
) -> MemorySetup:
    """Load the model, drive the worlds or open the recordings, and choose the windows.

    Raises:
        DataError: where no window fits, or no tilt can be told.
    """
    model = load_configured_model(navigation)
    longest = frames_of(settings.horizons_s or LONGEST_S, model.rate_hz)[-1]
    setup = set_up(settings, navigation, folder, progress, model, range(1, longest + 1))
    if settings.tilt_told and not camera_tilts(setup.found.source.recordings):
        raise DataError(f"{setup.found.source.title}: {KEEPS_TILT}, so leave --tilt-told out")
    return setup


def image_distance(device: torch.device | str) -> tuple[Distance | None, str]:
    """Return LPIPS on a device, or None and the line that says why it is left out."""
    try:
        return pair_distance("lpips", device), ""
    except ComeNavError as error:
        return None, f"LPIPS left out: {str(error).splitlines()[0]}"


def note_coverage(windows: Sequence[MemoryWindow], cache: MemoryCache, store: ResultStore) -> None:
    """Keep in the store what the point cloud knows of each target, where it is not there yet."""
    for name, own in groupby(windows, key=lambda window: window.window.recording_id):
        missing = [window for window in own if store.get(window.window, FACTS) is None]
        if not missing:
            continue
        poses = np.stack([np.asarray(window.window.recording.poses_xyyaw)[window.targets[0]] for window in missing])
        shares = cache.of(name).coverage(torch.from_numpy(poses), told_extrinsics(missing, cache)).tolist()
        for window, share in zip(missing, shares, strict=True):
            place = {"recording": name, "start": window.window.start, "goal": window.window.goal}
            store.add({**place, "row": FACTS, "coverage": share})


def references(names: Sequence[str], compositions: Sequence[ComposedRow], main: str) -> Mapping[str, list[str]]:
    """Return what each row is compared with: the base; the full composition with everything; and contrast with none."""
    base = base_row(compositions)
    found = {name: [base] for name in names}
    found[main] = [base, GEOMETRY, NEAREST, *(name for name in names if name not in (base, GEOMETRY, NEAREST, main))]
    for composed_row in compositions:
        if composed_row.blend:
            found[composed_row.name].append(replace(composed_row, blend=False).name)
        elif composed_row.contrast and composed_row.name != main:
            found[composed_row.name] += [
                other.name
                for other in compositions
                if other.key == composed_row.key and not other.contrast and not other.blend
            ]
    return found


def _evaluate(setup: MemorySetup, wanted: list[str]) -> RecallEvaluation:
    navigation, found, selection = setup.navigation, setup.found, setup.selection
    windows, weights = selection.windows, setup.settings.weights
    distance, note = image_distance(setup.model.device)
    contrast, older_frames = setup.settings.contrast, navigation.experts.older_frames
    adapted = weights.composed_row("base+ltm", True)
    looked_at = [*weights.compositions(wanted, contrast), *([adapted] if ADAPTED_LIKELIHOOD in wanted else [])]
    cache = setup.cache(looked_at)
    rows, compositions = recall_rows(wanted, contrast, weights, setup.model, cache, older_frames)
    told = [experts_of(row, setup.model, older_frames) for row in (weights.composed_row("base", True), adapted)]
    rows += optional_rows(wanted, cache, *told)
    sequences = load_sequences(setup.settings.sequences, navigation, setup.model)
    rows += sequence_recall_rows(sequences, cache, older_frames, setup.model)
    images = images_of(setup.model)
    stored = stored_settings(found.source.fingerprint, to_mapping(setup.protocol), navigation, setup.model, weights) | {
        "limits": selection.stored,
        **({"tilt_told": True} if setup.settings.tilt_told else {}),
        **stored_sequences(setup.settings.sequences),
        "recall": {
            "windows_per_batch": WINDOWS_PER_BATCH,
            "lpips": distance is not None,
            "images": IMAGES,
            "features": FEATURES_OF,
        },
    }
    chosen = [item.window for item in windows]
    with ResultStore(setup.folder / "results.jsonl", stored, setup.settings.fresh) as store:
        evaluated = [*rows, truth_row()]
        with setup.progress(len(windows) * len(evaluated), "views", "window") as bar:
            measures = (distance, reference_features(setup.model.device))
            _drive_by_drive(windows, evaluated, images, cache, store, measures, lambda record: bar.add(record["row"]))
        records = {row.name: store.table(chosen, row.name) for row in rows}
        facts, truths = store.table(chosen, FACTS), store.table(chosen, TRUTH)
    main = main_row(compositions)
    compared = references([row.name for row in rows], compositions, main)
    return RecallEvaluation(
        title=found.source.title,
        windows=windows,
        rows=rows,
        main=main,
        images=images,
        records=records,
        table=recall_table(
            windows, records, facts, compared, navigation.seed, found.source.groups, setup.settings.ages_s, truths
        ),
        limits=selection.limits,
        weights=weight_lines(compositions),
        passes=passes_of_rows(compositions, setup.model, memory_network=MEMORY_NET in wanted),
        settings={"windows": len(windows), **stored},
        facts={**found.source.facts, **machine_facts()},
        notes=[
            *selection.notes,
            *base_notes(setup.model.depth is not None),
            *sampling_notes(setup.model.sampler.steps),
            *([note] if note else []),
        ],
    )


def _drive_by_drive(
    windows: Sequence[MemoryWindow],
    rows: Sequence[QualityRow],
    images: ImagesFunction,
    cache: MemoryCache,
    store: ResultStore,
    measures: tuple[Distance | None, FeaturesFunction],
    on_record: Callable[[Record], None],
) -> None:
    """Evaluate every row on all windows, drive by drive: the windows of one drive share its memories."""
    distance, features = measures
    for _, own in groupby(windows, key=lambda window: window.window.recording_id):
        part = list(own)
        note_coverage(part, cache, store)
        evaluate_quality(part, rows, images, store, on_record, distance=distance, features=features)
