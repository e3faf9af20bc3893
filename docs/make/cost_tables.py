"""Tables of time and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sections import Table

MEMORY = ("rss_mb", "private_dirty_mb")


def composition_cost(result: dict[str, Any]) -> Sequence[Table]:
    """Return what a sampling step costs."""
    rows = [
        [own["name"], str(own["passes"]), f"{own['over_base']:.2f}", f"{own['over_base'] / own['passes']:.2f}"]
        for own in result["rows"]
    ]
    return [(["experts", "passes", "time over the base's", "over that of as many passes"], rows)]


def plan_curve(result: dict[str, Any]) -> Sequence[Table]:
    """Return what fewer candidates, or fewer that are imagined, cost and save."""
    rows = []
    for own in result["rows"]:
        ate, worse = own["ate_m_interval"], own["worse_m_interval"]
        rows.append(
            [
                own["setting"],
                f"{own['ate_m']:.3f} [{ate[0]:.3f}, {ate[1]:.3f}]",
                f"{own['worse_m']:+.4f} [{worse[0]:+.4f}, {worse[1]:+.4f}]",
                f"{own['time_ratio']:.2f}",
                str(own["windows"]),
            ]
        )
    headings = ["first, next, iterations, share imagined, precision", "ATE (m)", "worse by (m)", "time", "windows"]
    return [(headings, rows)]


RATES = ("hz", "p50_s", "p99_s")


def plan_rates(result: dict[str, Any]) -> Sequence[Table]:
    """Return plans a second, and what an adapter that trains beside costs them."""
    rows = [
        [
            own["name"],
            f"{own['imagined_share']:g}",
            *(f"{own[key]:.2f}" for key in RATES),
            f"{own['n']}",
        ]
        for own in result["rows"]
    ]
    beside = result["training"]
    training = [
        [name, *(f"{beside[key][value]:.2f}" for value in RATES), f"{beside[key]['n']}"]
        for name, key in (("alone", "alone"), (f"{beside['training_steps_per_s']:.1f} steps a second", "beside"))
    ]
    times = ["plans a second (median)", "median [s]", "slowest of a hundred [s]", "n"]
    return [(["plan", "share imagined", *times], rows), (["beside an adapter's training", *times], training)]


def process_memory(result: dict[str, Any]) -> Sequence[Table]:
    """Return what a planner's process is made of, step by step."""
    trees = result["trees"]
    steps = list(trees["after"]["steps"])
    rows = [[step, *(f"{own['steps'][step][kind]:.0f}" for own in trees.values() for kind in MEMORY)] for step in steps]
    rows.append(["most at any time", *(text for own in trees.values() for text in (f"{own['peak_mb']:.0f}", ""))])
    headings = [f"{name}: {what} (MB)" for name in trees for what in ("resident", "its own")]
    return [(["after", *headings], rows)]


def growth(result: dict[str, Any]) -> Sequence[Table]:
    """Return what memory costs as it grows."""
    rows = [
        [
            str(own["frames"]),
            f"{own['cloud_mb']:.1f}",
            f"{own['observe_ms_median']:.1f}",
            f"{own['render_ms_median']:.1f}",
        ]
        for own in result["rows"]
    ]
    return [(["frames", "cloud [MB]", "a frame [ms]", "a view [ms]"], rows)]


def latency(result: dict[str, Any]) -> Sequence[Table]:
    """Return how long odometry waits for its callback."""
    rows = []
    for number, run in enumerate(result["runs"], 1):
        for node, own in run["nodes"].items():
            cells = [f"{own[name]:.1f}" for name in ("p50_ms", "p95_ms", "p99_ms")]
            plan = f"{own['plan_p50_s']:.1f}" if "plan_p50_s" in own else ""
            rows.append([str(number), node, *cells, plan])
    return [(["run", "node", "p50 [ms]", "p95 [ms]", "p99 [ms]", "plan, p50 [s]"], rows)]
