"""NWM's planning protocol on its own data sets: windows from the index files, records in metres and in spacings.

The released evaluation has habits that change figures. Each is a switch here, off by default; ``NwmQuirks.official()``
turns all of them on, to compare with published tables.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.types import Plan
from come_nav.data.nwm.dataset import CONTEXT_FRAMES, RATE_HZ, NwmDataset
from come_nav.evaluation.metrics.statistics import Interval, bootstrap_mean, enough_clusters
from come_nav.evaluation.protocols.protocol import ProtocolSettings, Window, make_window
from come_nav.evaluation.protocols.results import Record, ResultStore
from come_nav.evaluation.protocols.rows import Row, driven_path, tried_paths

HORIZON_STEPS = 8
METRICS = ("ate_m", "rpe_m", "ate_spacings", "rpe_spacings", "final_m", "final_spacings", "final_yaw_rad")


@dataclass(frozen=True)
class NwmQuirks:
    """Habits of the released evaluation.

    Attributes:
        turn_pi_twice: the search refits the last turn in radians and multiplies it by pi again.
        repeat_steps: each rollout step of a candidate is told the same (dx, dy) in the newest frame's base, though the
            first step turned.
        rollout_offset: the rollout evaluation takes differences of normalised waypoints, which tells every step but
            the first 1.25 spacings too many, in the axes of the start frame.
        goal_in_spacings: goals and errors are in waypoint spacings; the table leads with those, not with metres.
        start_excluded: ATE and RPE are over the waypoints without the start pose, so RPE has no first step and ATE no
            zero of the common start.
    """

    turn_pi_twice: bool = False
    repeat_steps: bool = False
    rollout_offset: bool = False
    goal_in_spacings: bool = False
    start_excluded: bool = False

    @classmethod
    def official(cls) -> NwmQuirks:
        """Return all habits of the released code."""
        return cls(True, True, True, True, True)


def planning_windows(
    dataset: NwmDataset, seed: int, count: int | None = None, context_frames: int = CONTEXT_FRAMES
) -> list[Window]:
    """Return the windows that the data set's ``navigation_eval.pkl`` lists, the first ``count`` of them.

    Raises:
        DataError: naming the index file and the trajectory that is absent or too short.
    """
    config = ProtocolSettings(context_frames=context_frames, horizon_steps=HORIZON_STEPS, rate_hz=RATE_HZ, seed=seed)
    windows = []
    for entry in dataset.index("navigation")[:count]:
        recording = dataset.window(entry, HORIZON_STEPS, "navigation", context_frames)
        windows.append(make_window(entry.trajectory, recording, entry.start, entry.start + HORIZON_STEPS, config))
    return windows


def path_errors(
    planned_xyyaw: NDArray[np.float64], driven_xyyaw: NDArray[np.float64], start_excluded: bool
) -> tuple[float, float]:
    """Return ATE and RPE in metres of planned and driven poses (T, 3) in the start frame, without alignment.

    ATE is the root mean square of the position errors, RPE that of the errors of consecutive steps. With
    ``start_excluded``, they run over the T waypoints alone; else the common start pose is the first of T + 1.
    """
    error = (planned_xyyaw - driven_xyyaw)[:, :2]
    if not start_excluded:
        error = np.concatenate([np.zeros((1, 2)), error])
    steps = np.diff(error, axis=0)
    rpe_m = float(np.sqrt((steps**2).sum(axis=1).mean())) if len(steps) else 0.0
    return float(np.sqrt((error**2).sum(axis=1).mean())), rpe_m


def evaluate(row: Row, window: Window, spacing_m: float, quirks: NwmQuirks) -> Record:
    """Plan one window and return its record; a plan that is not OK counts as standing still."""
    started_s = time.perf_counter()
    plan = row.plan(window, window.generator("plan", row.device))
    seconds = time.perf_counter() - started_s
    path, driven = driven_path(plan, window), window.driven_xyyaw
    ate_m, rpe_m = path_errors(path, driven, quirks.start_excluded)
    final_m = float(np.linalg.norm((path - driven)[-1, :2]))
    return {
        "recording": window.recording_id,
        "start": window.start,
        "goal": window.goal,
        "row": row.name,
        "ate_m": ate_m,
        "rpe_m": rpe_m,
        "ate_spacings": ate_m / spacing_m,
        "rpe_spacings": rpe_m / spacing_m,
        "final_m": final_m,
        "final_spacings": final_m / spacing_m,
        "final_yaw_rad": float(np.abs(se2.wrap_angle(path[-1:, 2] - driven[-1:, 2]))[0]),
        "step_errors_m": [float(value) for value in np.linalg.norm((path - driven)[:, :2], axis=1)],
        "status": plan.status.value,
        "seconds": seconds,
        **_search_facts(plan),
    }


def evaluate_planning(
    windows: Sequence[Window],
    rows: Sequence[Row],
    store: ResultStore,
    spacing_m: float,
    quirks: NwmQuirks,
    on_record: Callable[[Record], None] = lambda record: None,
) -> dict[str, list[Record]]:
    """Evaluate every row on every window that ``store`` does not have yet; return row -> records in window order."""
    records: dict[str, list[Record]] = {row.name: [] for row in rows}
    for window in windows:
        for row in rows:
            record = store.get(window, row.name)
            if record is None:
                record = evaluate(row, window, spacing_m, quirks)
                store.add(record)
            records[row.name].append(record)
            on_record(record)
    return records


def summarise(records: Mapping[str, Sequence[Record]], seed: int) -> dict[str, dict[str, Interval]]:
    """Return row -> metric -> mean with a bootstrap interval; whole trajectories are resampled if there are enough."""
    table = {}
    for row, found in records.items():
        clusters = enough_clusters([record["recording"] for record in found])
        table[row] = {
            metric: bootstrap_mean(np.array([record[metric] for record in found]), seed, clusters) for metric in METRICS
        }
    return table


def _search_facts(plan: Plan) -> dict[str, Any]:
    facts: dict[str, Any] = {"cost": float(plan.cost) if np.isfinite(plan.cost) else None}
    candidates = tried_paths(plan)
    if len(candidates):
        facts["candidates"] = len(candidates)
    return facts
