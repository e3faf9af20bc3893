"""What a closed loop has shown: successes with intervals, medians, and maps of the drives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.evaluation.metrics.statistics import wilson_interval
from come_nav.evaluation.suites.closed_loop.course import Course, LoopGoal
from come_nav.evaluation.suites.closed_loop.settings import KINDS, ROWS
from come_nav.evaluation.suites.closed_loop.suite import LoopResult, Record
from come_nav.viz.frames import TopDownView
from come_nav.viz.maps import MapDrawing

HEADER = [
    "row",
    *(f"{kind}, 95 %" for kind in KINDS),
    "left [m]",
    "time [s]",
    "way / shortest",
    "collision steps",
    "wrong arrivals",
]


def summarise(result: LoopResult) -> dict[str, Any]:
    """Return one entry per row: successes by kind, medians of the reached goals, collision steps, wrong arrivals."""
    keys = list(dict.fromkeys(record["row"] for record in result.records))
    return {"rows": [_row(key, [record for record in result.records if record["row"] == key]) for key in keys]}


def _row(key: str, records: Sequence[Record]) -> dict[str, Any]:
    reached = [record for record in records if record["success"]]
    found: dict[str, Any] = {"key": key, "row": ROWS[key].name}
    for kind in KINDS:
        own = [record for record in records if record["kind"] == kind]
        count = sum(record["success"] for record in own)
        found[kind] = {"n": len(own), "reached": count, "interval": list(wilson_interval(count, len(own)))}
    for name in ("left_m", "simulated_s", "driven_over_shortest"):
        found[f"median_{name}"] = float(np.median([record[name] for record in reached])) if reached else None
    found["collision_steps"] = sum(record["collisions"] for record in records)
    found["wrong_arrivals"] = sum(record["wrong_arrival"] for record in records)
    return found


def summary_lines(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells of the table."""
    lines = []
    for own in summary["rows"]:
        cells = [own["row"]]
        for kind in KINDS:
            low, high = own[kind]["interval"]
            n = own[kind]["n"]
            cells.append(f"{own[kind]['reached']} of {n} [{low:.2f}, {high:.2f}]" if n else "-")
        for name in ("left_m", "simulated_s", "driven_over_shortest"):
            value = own[f"median_{name}"]
            cells.append("-" if value is None else f"{value:.2f}")
        lines.append([*cells, str(own["collision_steps"]), str(own["wrong_arrivals"])])
    return HEADER, lines


def map_of_drive(
    course: Course, goal: LoopGoal, driven_world_xy: NDArray[np.float64], height_px: int = 480
) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) of the world from above with the way driven and the goal."""
    shapes, colours = zip(*course.world.polygons(), strict=True)
    x0, y0, x1, y1 = (float(value) for value in course.world.bounds)
    view = TopDownView((x0, y0, x1, y1), height_px, MapDrawing(shapes, colours))
    start = goal.start_world_xyyaw
    way = driven_world_xy if len(driven_world_xy) > 1 else np.array([start[:2], start[:2]])
    step = way[-1] - way[-2]
    heading = float(np.arctan2(step[1], step[0])) if np.hypot(*step) > 0.0 else float(start[2])
    return view.draw(np.array([*way[-1], heading]), driven=way, goal=goal.goal_world_xyyaw)
