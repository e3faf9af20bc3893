"""Suite "quality": imagined views at several horizons against the real ones; plans with the same model after them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from come_nav.core.errors import DataError
from come_nav.core.settings import to_mapping
from come_nav.evaluation.protocols.protocol import ProtocolSettings
from come_nav.evaluation.protocols.quality import (
    KEEPS_TILT,
    WINDOWS_PER_BATCH,
    camera_tilts,
    evaluate_quality,
    has_depth,
    quality_windows,
)
from come_nav.evaluation.protocols.results import ResultStore
from come_nav.evaluation.reports.quality_report import QualityEvaluation, write_quality_report, write_quality_results
from come_nav.evaluation.reports.quality_tables import quality_table
from come_nav.evaluation.reports.report import Evaluation
from come_nav.evaluation.suites.fingerprints import machine_facts, model_settings
from come_nav.evaluation.suites.inputs import DEFAULT_WINDOWS, Input, SourceSettings, frames_of, open_input
from come_nav.evaluation.suites.outcome import Outcome
from come_nav.evaluation.suites.planning import CONTEXT_FRAMES, RATE_HZ, PlanningSuiteSettings, run_planning
from come_nav.evaluation.suites.progress import Progress, silent
from come_nav.evaluation.suites.quality_rows import images_of, quality_rows
from come_nav.navigation.device import choose_device
from come_nav.navigation.loading import load_configured_model
from come_nav.navigation.settings import NavigationSettings
from come_nav.world_model.model import DiffusionWorldModel

QUALITY_ROWS = ("copy", "autoencoder", "depth", "jump", "tilted", "rollout")
OF_MODEL = ("autoencoder", "jump", "tilted", "rollout")
HORIZONS_S = (1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class QualitySuiteSettings:
    """How imagined views are evaluated.

    Attributes:
        source: what is evaluated.
        rows: of QUALITY_ROWS; None takes all that apply.
        horizons_s: seconds from the start to the views, increasing.
        planning_windows: plans that follow with the same model, in the folder ``planning``; None takes the planning
            suite's number in built-in worlds and none on recordings.
        fresh: forget earlier results in the folder.
        report: make the HTML page.
    """

    source: SourceSettings = field(default_factory=lambda: SourceSettings("quality"))
    rows: tuple[str, ...] | None = None
    horizons_s: tuple[float, ...] = HORIZONS_S
    planning_windows: int | None = None
    fresh: bool = False
    report: bool = True


@dataclass(frozen=True)
class QualityOutcome(Outcome[QualityEvaluation]):
    """Imagined views, and the plans that followed (or None)."""

    planning: Outcome[Evaluation] | None


def run_quality(
    settings: QualitySuiteSettings, navigation: NavigationSettings, folder: Path, progress: Progress = silent
) -> QualityOutcome:
    """Evaluate imagined views, or go on in ``folder``; write the results and the report; then plan.

    Raises:
        ConfigError: for settings that do not fit the input or the results that are there.
        DataError: for recordings without a window, or without the depth that a row needs.
    """
    wanted = QUALITY_ROWS if settings.rows is None else settings.rows
    model = load_configured_model(navigation) if any(name in OF_MODEL for name in wanted) else None
    rate_hz = RATE_HZ if model is None else model.rate_hz
    steps = frames_of(settings.horizons_s, rate_hz)
    protocol = ProtocolSettings(
        context_frames=CONTEXT_FRAMES if model is None else model.context_frames,
        horizon_steps=steps[-1],
        rate_hz=rate_hz,
        choice=settings.source.choice,
        seed=navigation.seed,
        part=settings.source.part or (0.0, 1.0),
    )
    source = open_input(settings.source, rate_hz, navigation.seed, navigation.device)
    evaluation = _evaluate(settings, source, protocol, steps, navigation, model, folder, progress)
    write_quality_results(folder, evaluation)
    page = write_quality_report(folder, evaluation) if settings.report else None
    planning = _plan(settings, navigation, folder, progress, planned=model is not None)
    return QualityOutcome(source, evaluation, folder, page, planning)


def _evaluate(
    settings: QualitySuiteSettings,
    source: Input,
    protocol: ProtocolSettings,
    steps: list[int],
    navigation: NavigationSettings,
    model: DiffusionWorldModel | None,
    folder: Path,
    progress: Progress,
) -> QualityEvaluation:
    count = source.default_windows if settings.source.windows is None else settings.source.windows
    windows = quality_windows(source.recordings, protocol, steps, count)
    wanted = possible_rows(settings.rows, source, model)
    rows, images = quality_rows(wanted, model, navigation), images_of(model)
    stored: dict[str, Any] = {
        "input": source.fingerprint,
        "protocol": to_mapping(protocol),
        "quality": {"horizon_steps": steps, "windows_per_batch": WINDOWS_PER_BATCH},
        "device": choose_device(navigation.device).partition(":")[0],
        "model": None if model is None else model_settings(navigation.model, model),
    }
    with ResultStore(folder / "results.jsonl", stored, settings.fresh) as store:
        with progress(len(windows) * len(rows), "views", "window", leave=True) as bar:
            evaluate_quality(windows, rows, images, store, lambda record: bar.add(record["row"]))
        chosen = [item.window for item in windows]
        records = {row.name: store.table(chosen, row.name) for row in rows}
    return QualityEvaluation(
        title=source.title,
        windows=windows,
        rows=rows,
        images=images,
        records=records,
        table=quality_table(records, [step / protocol.rate_hz for step in steps], navigation.seed, source.groups),
        settings={"windows": len(windows), **stored},
        facts={**source.facts, **machine_facts()},
    )


def possible_rows(asked: tuple[str, ...] | None, source: Input, model: DiffusionWorldModel | None) -> list[str]:
    """Return the rows that are asked for; those that input and model allow where none are, DataError where not."""
    wanted, recordings = list(QUALITY_ROWS if asked is None else asked), source.recordings
    sees_frames_alone = model is not None and model.depth is None
    needs: list[tuple[str, Callable[[], bool], str]] = [
        ("depth", lambda: has_depth(recordings), "has no depth registered to its images"),
        ("tilted", lambda: not sees_frames_alone, "this model renders no views, so no tilt changes what it imagines"),
        ("tilted", lambda: camera_tilts(recordings), KEEPS_TILT),
    ]
    for row, met, why in needs:
        if row in wanted and not met():
            if asked is not None:
                raise DataError(f"{source.title}: {why}, so take '{row}' out of --rows")
            wanted.remove(row)
    return wanted


def _plan(
    settings: QualitySuiteSettings, navigation: NavigationSettings, folder: Path, progress: Progress, planned: bool
) -> Outcome[Evaluation] | None:
    """Evaluate plans with the same model and inputs in the folder ``planning``; None where none are wanted."""
    default = 0 if settings.source.paths or not planned else DEFAULT_WINDOWS["planning"]
    count = default if settings.planning_windows is None else settings.planning_windows
    if count == 0:
        return None
    recording = settings.source.recording
    if not navigation.inference.measured_depth:  # no plan looks at depth then
        recording = {**recording, "depth_topic": recording.get("depth_topic") or "none"}
    source = replace(settings.source, suite="planning", windows=count, recording=recording)
    plans = PlanningSuiteSettings(source, fresh=settings.fresh, report=settings.report)
    return run_planning(plans, navigation, folder / "planning", progress)
