"""Tables of localisation, of calibration on the way, and of closed loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sections import Table, interval


def _closed(closure: dict[str, Any], row: str) -> str:
    return interval(closure[row], 2) if row in closure else "-"


def closed_loop(result: dict[str, Any]) -> Sequence[Table]:
    """Return successes of drives to images."""
    rows = []
    for kind in ("in view", "out of view"):
        own = result["summary"][kind]
        low, high = own["interval"]
        reached = round(own["n"] * own["success"])
        left_m = own["median left_m where reached"]
        left = "" if left_m is None else f"{left_m:.2f}"
        rows.append([kind, f"{reached} of {own['n']} [{low:.2f}, {high:.2f}]", left])
    rows.append(["collision steps", str(result["summary"]["collisions"]), ""])
    goals = [goal for world in result["worlds"] for goal in world["goals"]]
    waits_s = sorted(goal["goal_to_motion_s"] for goal in goals if goal.get("goal_to_motion_s") is not None)
    if waits_s:
        told = f"{waits_s[len(waits_s) // 2]:.2f} ({waits_s[0]:.2f} to {waits_s[-1]:.2f})"
        rows.append(["goal to first motion, median (range) [s]", told, ""])
    return [(["goals", "reached (Wilson 95 %)", "median left [m]"], rows)]


def ablations(result: dict[str, Any]) -> Sequence[Table]:
    """Return successes of the closed loop with its parts switched off one by one."""
    rows = [
        [
            own["row"],
            *(f"{own[kind]['reached']} of {own[kind]['n']}" for kind in ("in view", "out of view")),
            f"{own['collision_steps']}",
            f"{own['wrong_arrivals']}",
        ]
        for own in result["rows"]
    ]
    return [(["what is on", "in view", "out of view", "collision steps", "said reached, but was not"], rows)]


def drift(result: dict[str, Any]) -> Sequence[Table]:
    """Return what drift correction leaves of odometry's error."""
    header = ["drive", "drift [%]", "odometry [m]", "corrected, at once [m]", "corrected, afterwards [m]", "closures"]
    keys = ("odometry m", "corrected at once m", "corrected afterwards m")
    rows = [
        [str(row.get("recording", f"world {row.get('world')}")), f"{row['drift %']:g}"]
        + [f"{row[key]:.3f}" for key in keys]
        + [str(row["closures"])]
        for row in result["rows"]
    ]
    return [(header, rows)]


def recognised(result: dict[str, Any]) -> Sequence[Table]:
    """Return how many images are found and recognised, for each memory and kind of search."""
    header = ["memory, search", "right", "recall, recognised", "precision", "never seen, recognised", "CPU [ms]"]
    rows = [
        [
            name,
            f"{own['right']} of {own['n']}",
            f"{own['recall']:.2f} [{own['recall, 95 %'][0]:.2f}, {own['recall, 95 %'][1]:.2f}]",
            "-" if own["precision"] is None else f"{own['precision']:.2f}",
            f"{own['never seen, recognised']} of {own['never seen']}",
            f"{own['median cpu_ms']:.0f}",
        ]
        for name, own in result.items()
    ]
    return [(header, rows)]


def consistent(result: dict[str, Any]) -> Sequence[Table]:
    """Return how far a recording's poses, images and depth are apart."""
    kinds = ("loop", "registration - poses", "depth - poses", "depth - registration")
    header = ["recording", "colour camera", "images later by [s]", *(f"{kind} [cm, rad]" for kind in kinds)]
    rows = [
        [
            row["recording"],
            f"{row['colour focal px']:.1f} px, {100 * row['colour x m']:.1f} cm to the right",
            f"{row['lag s']:g}",
            *(f"{100 * row[kind]['median m']:.1f}, {row[kind]['median rad']:.3f}" for kind in kinds),
        ]
        for row in result["rows"]
    ]
    return [(header, rows)]


def calibrated_online(result: dict[str, Any]) -> Sequence[Table]:
    """Return errors with weights as set and with those that follow."""
    header = ["drives", "tests", "as set", "calibrated", "ratio", "experts alone", "CPU of a frame [ms]"]
    rows = [
        [
            name,
            str(own["tests"]),
            f"{own['prior']:.3f}",
            f"{own['calibrated']:.3f}",
            f"{own['ratio']:.3f} [{own['ratio, 95 %'][0]:.3f}, {own['ratio, 95 %'][1]:.3f}]",
            ", ".join(f"{expert} {error:.3f}" for expert, error in own["alone"].items()),
            f"{own['CPU ms a frame']:.0f}",
        ]
        for name, own in result["rows"].items()
    ]
    return [(header, rows)]


def calibrated_plans(result: dict[str, Any]) -> Sequence[Table]:
    """Return ATE of plans with weights as set and with those that follow."""
    header = ["drives", "plans", "ATE as set [m]", "ATE calibrated [m]", "calibrated - as set [m]"]
    cells = ("ATE of plans, prior [m]", "ATE of plans, calibrated [m]", "calibrated - prior [m]")
    rows = []
    for name, own in result["rows"].items():
        told = (own[cell] for cell in cells)
        rows.append([name, str(own["plans"]), *(f"{value:.4f} [{low:.4f}, {high:.4f}]" for value, low, high in told)])
    return [(header, rows)]


def localisation_cost(result: dict[str, Any]) -> Sequence[Table]:
    """Return what one more key frame costs after so many."""
    header = ["key frames before", "CPU of one more, median [ms]", "most [ms]", "MB"]
    rows = [
        [str(row["key frames"]), f"{row['CPU ms']:.0f}", f"{row['most ms']:.0f}", f"{row['MB']:.0f}"]
        for row in result["rows"]
    ]
    return [(header, rows)]


def fuzzed(result: dict[str, Any]) -> Sequence[Table]:
    """Return what readers made of mutated files."""
    header = ["files", "mutations", "read", "refused in one line", "tracebacks", "hangs", "died", "attacks", "code run"]
    rows = [
        [kind]
        + [
            str(own[key] if isinstance(own[key], int) else len(own[key]))
            for key in ("mutations", "read", "refused", "tracebacks", "hangs", "died", "attacks", "code_run")
        ]
        for kind, own in result["kinds"].items()
    ]
    return [(header, rows)]


def relocalised(result: dict[str, Any]) -> Sequence[Table]:
    """Return how often the place of an image was found."""
    rows = []
    for kind, own in result["summary"].items():
        value, low, high = own["found right"]
        known = own["recognised"]
        cpu_s = own["median cpu_s"]
        rows.append([kind, f"{value:.2f} [{low:.2f}, {high:.2f}]", f"{known['right']} of {known['n']}", f"{cpu_s:.1f}"])
    return [(["images", "found within 0.5 m and 0.6 rad", "recognised rightly", "median CPU [s]"], rows)]
