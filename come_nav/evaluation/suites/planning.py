"""Suite "planning": one open-loop plan per window, by every row, against what was really driven."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from come_nav.core.errors import ConfigError, DataError
from come_nav.core.settings import to_mapping
from come_nav.evaluation.metrics.success import SuccessSettings
from come_nav.evaluation.protocols.protocol import ProtocolSettings, Window, choose_windows
from come_nav.evaluation.protocols.results import Record, ResultStore, evaluate_windows
from come_nav.evaluation.protocols.rows import WORLD_MODEL, Row, trivial_rows
from come_nav.evaluation.reports.report import Evaluation, write_report, write_results
from come_nav.evaluation.reports.tables import planning_table
from come_nav.evaluation.suites.fingerprints import machine_facts, model_settings, planner_settings
from come_nav.evaluation.suites.inputs import Input, SourceSettings, frames_of, open_input
from come_nav.evaluation.suites.kinematics import (
    kinematics_by_row,
    stored_motion,
    told_kinematics,
    with_kinematics,
)
from come_nav.evaluation.suites.outcome import Outcome
from come_nav.evaluation.suites.planning_rows import hybrid_row, perfect_model_row, world_model_row
from come_nav.evaluation.suites.policy_rows import load_policies, policy_rows, stored_policies, world_model_searcher
from come_nav.evaluation.suites.progress import Progress, silent
from come_nav.evaluation.suites.registration_rows import (
    registration_facts,
    registration_row,
    stored_registration,
    too_narrow,
)
from come_nav.navigation.device import choose_device
from come_nav.navigation.loading import load_configured_model
from come_nav.navigation.settings import NavigationSettings
from come_nav.world_model.model import DiffusionWorldModel

PLANNING_ROWS = ("trivial", "model", "hybrid", "perfect")
CONTEXT_FRAMES, RATE_HZ = 4, 4.0  # without a model
RESULTS = "results.jsonl"


@dataclass(frozen=True)
class PlanningSuiteSettings:
    """How plans are evaluated.

    Attributes:
        source: what is evaluated.
        rows: of PLANNING_ROWS; None takes all that apply.
        policies: names or folders of learned planners (gnm, vint, nomad) that get rows as well.
        horizon_s: seconds to the goal; the planner's own horizon where None. Several are evaluated one after another.
        success: when a plan counts as a success.
        fresh: forget earlier results in the folder.
        report: make the video and the HTML page.
        share: K of N; only every N-th window, from the K-th on, is evaluated, without a table.
    """

    source: SourceSettings = field(default_factory=SourceSettings)
    rows: tuple[str, ...] | None = None
    policies: tuple[str, ...] = ()
    horizon_s: tuple[float, ...] | None = None
    success: SuccessSettings = field(default_factory=SuccessSettings)
    fresh: bool = False
    report: bool = True
    share: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.share is not None and not 1 <= self.share[0] <= self.share[1]:
            raise ConfigError(f"share K/N needs 1 <= K <= N, got {self.share[0]}/{self.share[1]}")


def run_planning(
    settings: PlanningSuiteSettings, navigation: NavigationSettings, folder: Path, progress: Progress = silent
) -> Outcome[Evaluation]:
    """Evaluate plans of one horizon, or go on with an evaluation in ``folder``; write its results and the report.

    Raises:
        ConfigError: for settings that do not fit the input or the results that are there, or several horizons.
        DataError: for recordings without a window, or without the world that a row needs.
    """
    if settings.horizon_s is not None and len(settings.horizon_s) > 1:
        raise ConfigError("one horizon is evaluated here; run_horizons takes several")
    if settings.share is not None:
        raise ConfigError("a share has no table; run_horizons evaluates it")
    return run_horizons(settings, navigation, folder, progress)[0]


def run_horizons(
    settings: PlanningSuiteSettings, navigation: NavigationSettings, folder: Path, progress: Progress = silent
) -> list[Outcome[Evaluation]]:
    """Evaluate plans of every horizon, one after another, each on the windows that fit it; nothing of a share.

    One horizon is written into ``folder`` itself, several into a folder each below it, named ``4s``.

    A share evaluates every N-th window into a file of its own below, ``share-K-of-N``, and makes no table: as many
    processes as there are shares may work at once, on machines that see one folder. Without a share, what shares have
    is taken over first.

    Raises:
        ConfigError: for settings that do not fit the input or the results that are there.
        DataError: for recordings without a window of one of the horizons, or without the world that a row needs;
            before any plan is made.
    """
    wanted = PLANNING_ROWS if settings.rows is None else settings.rows
    model = load_configured_model(navigation) if {"model", "hybrid"} & {*wanted} else None
    protocols = _protocols(settings, navigation, model)
    source = open_input(settings.source, protocols[0].rate_hz, navigation.seed, navigation.device)
    navigation, source = told_kinematics(navigation, source, settings.source.kinematics)
    count = source.default_windows if settings.source.windows is None else settings.source.windows
    windows = [choose_windows(source.recordings, protocol, count) for protocol in protocols]
    rows = _rows(wanted, settings.rows is not None, source, navigation, model)
    policies = load_policies(settings.policies, navigation)
    searcher = world_model_searcher(policies, navigation, model)
    rows += with_kinematics(policy_rows(policies, navigation, searcher), navigation.robot)
    outcomes = []
    for protocol, chosen in zip(protocols, windows, strict=True):
        own = folder if len(protocols) == 1 else folder / f"{protocol.horizon_s:g}s"
        stored = stored_settings(source, protocol, navigation, model, settings.policies)
        if settings.share is not None:
            number, count = settings.share
            with ResultStore(own / f"share-{number}-of-{count}" / RESULTS, stored, settings.fresh) as store:
                evaluate_with_progress(chosen[number - 1 :: count], rows, store, progress)
            continue
        with ResultStore(own / RESULTS, stored, settings.fresh) as store:
            for path in sorted(own.glob(f"share-*-of-*/{RESULTS}")):
                store.take(path)
            evaluate_with_progress(chosen, rows, store, progress)
            left_out = registration_facts(too_narrow(source, navigation))
            evaluation = _summary(source, chosen, rows, store, navigation.seed, settings.success, left_out)
        write_results(own, evaluation)
        outcomes.append(Outcome(source, evaluation, own, write_report(own, evaluation) if settings.report else None))
    return outcomes


def _protocols(
    settings: PlanningSuiteSettings, navigation: NavigationSettings, model: DiffusionWorldModel | None
) -> list[ProtocolSettings]:
    """Return what a window is, for each horizon."""
    rate_hz = RATE_HZ if model is None else model.rate_hz
    own_steps = [navigation.planner.horizon_steps]
    steps = own_steps if settings.horizon_s is None else frames_of(settings.horizon_s, rate_hz)
    return [
        ProtocolSettings(
            context_frames=CONTEXT_FRAMES if model is None else model.context_frames,
            horizon_steps=count,
            rate_hz=rate_hz,
            choice=settings.source.choice,
            seed=navigation.seed,
            part=settings.source.part or (0.0, 1.0),
        )
        for count in dict.fromkeys(steps)
    ]


def evaluate_with_progress(
    windows: Sequence[Window], rows: Sequence[Row], store: ResultStore, progress: Progress
) -> None:
    """Evaluate what ``store`` does not have yet; the bar shows the running mean ATE of the row that matters."""
    names = [row.name for row in rows]
    shown = WORLD_MODEL if WORLD_MODEL in names else names[-1]
    ates: list[float] = []
    with progress(len(windows) * sum(len(row.names) for row in rows), "plans", "plan", leave=True) as bar:

        def count(record: Record) -> None:
            if record["row"] == shown:
                ates.append(record["ate_m"])
            bar.add(f"{shown} ATE {sum(ates) / len(ates):.3f} m" if ates else "")

        evaluate_windows(windows, rows, store, count)


def stored_settings(
    source: Input,
    protocol: ProtocolSettings,
    navigation: NavigationSettings,
    model: DiffusionWorldModel | None,
    policies: Sequence[str] = (),
) -> dict[str, Any]:
    """Return all that a record depends on: a folder of results belongs to exactly these values."""
    imagined = None
    if model is not None:
        imagined = model_settings(navigation.model, model) | {"imagination": navigation.imagination}
    return {
        "input": source.fingerprint,
        "protocol": to_mapping(protocol),
        "planner": planner_settings(navigation.planner),
        "objective": to_mapping(navigation.objective),
        "device": choose_device(navigation.device).partition(":")[0],
        "model": imagined,
        **stored_motion(navigation),
        **stored_registration(navigation, too_narrow(source, navigation)),
        **stored_policies(policies),
    }


def _rows(
    wanted: Sequence[str],
    asked: bool,
    source: Input,
    navigation: NavigationSettings,
    model: DiffusionWorldModel | None,
) -> list[Row]:
    rows, narrow = trivial_rows(navigation.robot), too_narrow(source, navigation)
    if not narrow:
        rows.append(registration_row(navigation))
    if model is not None and "model" in wanted:
        rows.append(world_model_row(model, navigation))
    if model is not None and "hybrid" in wanted and not narrow:
        rows.append(hybrid_row(model, navigation))
    elif "hybrid" in wanted and asked and narrow:
        raise DataError(f"{source.title}: no goal registers, so take 'hybrid' out of --rows: {narrow}")
    if "perfect" in wanted and source.places:
        rows.append(perfect_model_row(source.places, navigation, model))
    elif "perfect" in wanted and asked:
        raise DataError(f"{source.title} was not made in a built-in world, so take 'perfect' out of --rows")
    return with_kinematics(rows, navigation.robot)


def _summary(
    source: Input,
    windows: list[Window],
    rows: list[Row],
    store: ResultStore,
    seed: int,
    success: SuccessSettings,
    left_out: Mapping[str, str],
) -> Evaluation:
    records = {name: store.table(windows, name) for row in rows for name in row.names}
    return Evaluation(
        title=source.title,
        windows=windows,
        rows=rows,
        records=records,
        table=planning_table(windows, records, seed, source.groups, success, kinematics_by_row(rows)),
        settings={"windows": len(windows), **store.settings},
        facts={**source.facts, **left_out, **machine_facts(), "candidates_per_plan": _candidates(records)},
        map_of=source.map_of,
    )


def _candidates(records: Mapping[str, Sequence[Record]]) -> dict[str, int]:
    """Return row -> most candidates that one of its plans tried."""
    tried = {row: max((record.get("candidates", 0) for record in found), default=0) for row, found in records.items()}
    return {row: count for row, count in tried.items() if count}
