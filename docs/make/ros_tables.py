"""Tables of what was measured over ROS with robots that are simulated behind the topics of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sections import Table


def soak(result: dict[str, Any]) -> Sequence[Table]:
    """Return what a soak is judged on: goals, collisions, kills and memory."""
    own = result["summary"]
    tables: list[Table] = []
    if own["goals"]:
        low, high = own["interval"]
        reached = round(own["goals"] * own["success"])
        faults = ", ".join(f"{count} {name}" for name, count in sorted(own["faults"].items()))
        ended = ", ".join(f"{count} {name}" for name, count in own["ended"].items())
        rows = [
            ["goals reached (Wilson 95 %)", f"{reached} of {own['goals']} [{low:.2f}, {high:.2f}]"],
            ["what the robot said", ended],
            ["collision steps", str(own["collisions"])],
            ["faults", faults or "none"],
        ]
        tables.append((["", ""], rows))
    return [*tables, killed(own["kills"]), memory(own["memory_mb"])]


def kills(result: dict[str, Any]) -> Sequence[Table]:
    """Return what a run of kills is judged on."""
    return [killed(result["summary"]["kills"])]


def killed(nodes: dict[str, dict[str, Any]]) -> Table:
    """Return what became of the robot and of memory when nodes were killed."""
    header = [
        "killed",
        "kills",
        "while driving",
        "drove on at most [s]",
        "blind",
        "most lost, of",
        "back after at most [s]",
    ]
    rows = [
        [
            name,
            str(own["n"]),
            str(own["while moving"]),
            f"{own['longest went_on_s']:.1f}",
            str(own["blind"]),
            f"{own['most lost']} of {own['of']}" if own["of"] else "keeps nothing",
            "" if own["longest back_s"] is None else f"{own['longest back_s']:.0f}",
        ]
        for name, own in nodes.items()
    ]
    return header, rows


def memory(nodes: dict[str, dict[str, Any]]) -> Table:
    """Return the largest memory of each node by third of the run."""
    rows = [
        [name, *("" if value is None else f"{value:.0f}" for value in own["largest by third"])]
        for name, own in nodes.items()
    ]
    return ["memory, largest [MB]", "first third", "second", "last"], rows


def load(result: dict[str, Any]) -> Sequence[Table]:
    """Return what the nodes take of the machine."""
    waits, taken, megabytes = result["odometry callback_p99_s"], result["cores taken"], result["memory_mb"]
    rows = []
    for name in dict.fromkeys((*taken, *waits)):
        used = result["nodes"].get(name, {})
        kept = used.get("frames kept per s")
        rows.append(
            [
                name,
                f"{taken[name]:.2f}" if name in taken else "",
                f"{megabytes[name]:.0f}" if name in megabytes else "",
                f"{100.0 * max(0.0, used['lost on the way']):.0f} %" if used else "",
                "" if kept is None else f"{kept:.1f}",
                f"{1000.0 * waits[name]:.0f}" if name in waits else "",
            ]
        )
    header = [
        "process",
        "cores",
        "memory [MB]",
        "images lost on the way",
        "frames kept per s",
        "odometry waits, p99 [ms]",
    ]
    return [(header, rows)]


def fake_robots(result: dict[str, Any]) -> Sequence[Table]:
    """Return what was launched, what came up and which goals were reached."""
    rows = []
    for own in result["robots"]:
        robot, up = own["robot"], own["came up"]
        width, height = robot["size"]
        camera = f"`{up['camera']}`, {robot['encoding']}, {width}x{height} at {robot['rate_hz']:g} Hz, {robot['qos']}"
        goals = [f"{goal['goal']}: {goal['ended']}, {goal['left_m']:.2f} m left" for goal in own["goals"]]
        rows.append([own["launched"], camera, up["commands"], ", ".join(up["active"]), "; ".join(goals)])
    return [(["launched", "camera", "commands", "came up", "goals"], rows)]
