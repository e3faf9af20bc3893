"""Exploration without a goal in built-in worlds: how far the robot comes in some time, and what it touches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from come_nav.evaluation.suites.closed_loop.course import Course
from come_nav.evaluation.suites.closed_loop.robot import SimulatedRobot
from come_nav.evaluation.suites.closed_loop.settings import ClosedLoop
from come_nav.evaluation.suites.closed_loop.suite import simulator_of
from come_nav.evaluation.suites.progress import Progress, silent
from come_nav.navigation.loading import load_configured_model
from come_nav.navigation.navigator import Navigator
from come_nav.navigation.stack import NavStack

CELL_M = 0.5


def run_exploration(wanted: ClosedLoop, duration_s: float, progress: Progress = silent) -> list[dict[str, Any]]:
    """Let the robot roam for ``duration_s`` simulated seconds in every world; return a record of each.

    Raises:
        ConfigError: ``planner.proposals`` names a policy that needs a goal.
    """
    model = load_configured_model(wanted.stack)
    records = []
    with progress(len(wanted.loop.worlds), "worlds", "world", leave=True) as bar:
        for seed in wanted.loop.worlds:
            stack = NavStack(model, replace(wanted.stack, show_imagined=False), background_localisation=False)
            simulator = simulator_of(seed, wanted)
            navigator = Navigator(stack, wanted.navigator)
            robot = SimulatedRobot(simulator, navigator, Course(simulator_of(seed, wanted)), wanted.loop)
            try:
                robot.stand_at(simulator.pose_world_xyyaw.copy())
                robot.driven_world_xy.clear()
                touched = simulator.collisions
                robot.roam(duration_s)
            finally:
                stack.close()
            records.append(_record(seed, robot, duration_s, simulator.collisions - touched))
            bar.add(f"world {seed}: {records[-1]['driven_m']} m")
    return records


def _record(seed: int, robot: SimulatedRobot, duration_s: float, collisions: int) -> dict[str, Any]:
    driven = np.array(robot.driven_world_xy)
    rooms = robot.simulator.world.rooms.numpy()
    inside = [((driven > room[:2]) & (driven < room[2:])).all(axis=1).any() for room in rooms]
    return {
        "world": seed,
        "simulated_s": duration_s,
        "driven_m": round(float(np.hypot(*np.diff(driven, axis=0).T).sum()), 2),
        "cells": len(np.unique(np.floor(driven / CELL_M), axis=0)),
        "rooms": int(np.sum(inside)),
        "rooms_in_all": len(rooms),
        "collisions": collisions,
    }
