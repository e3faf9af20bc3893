"""Explore, then drive to images, row by row; one record per goal, written as it is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError
from come_nav.core.files import atomic_write_text, writable_folder
from come_nav.core.geometry import se2
from come_nav.core.settings import to_mapping
from come_nav.core.types import CameraIntrinsics
from come_nav.evaluation.protocols.results import settings_hash
from come_nav.evaluation.suites.closed_loop.course import Course, LoopGoal
from come_nav.evaluation.suites.closed_loop.robot import SimulatedRobot
from come_nav.evaluation.suites.closed_loop.settings import ClosedLoop, LoopRow, chosen_rows
from come_nav.evaluation.suites.fingerprints import model_fingerprint, motion_prior_settings, planner_settings
from come_nav.evaluation.suites.progress import Progress, silent
from come_nav.navigation.goals.mission import MissionState
from come_nav.navigation.loading import load_configured_model
from come_nav.navigation.navigator import Navigator
from come_nav.navigation.stack import NavStack
from come_nav.sim.builtin import BuiltInSimulator
from come_nav.sim.sensors.odometry import OdometrySettings
from come_nav.sim.sensors.settings import SensorSettings
from come_nav.sim.world_sets import BUILT_IN, world_set
from come_nav.sim.worlds import generate_world
from come_nav.world_model.model import DiffusionWorldModel

Record = dict[str, Any]
OnDrive = Callable[[str, Course, LoopGoal, NDArray[np.float64], Record], object]


@dataclass(frozen=True)
class LoopResult:
    """All records of a closed loop, in the order of worlds, rows and goals, and the settings they depend on."""

    settings: dict[str, Any]
    records: list[Record]


def run_closed_loop(
    wanted: ClosedLoop,
    folder: Path,
    progress: Progress = silent,
    on_drive: OnDrive | None = None,
    fresh: bool = False,
) -> LoopResult:
    """Run every row in every world, or go on where an earlier run of the same settings stopped.

    Args:
        wanted: what is run.
        folder: gets results.jsonl.
        progress: is told each goal.
        on_drive: is told each drive: row, course, goal, positions (N, 2) driven, and its record.
        fresh: forget earlier results.

    Raises:
        ConfigError: for unknown rows, or a folder that holds results of other settings.
    """
    rows, loop = chosen_rows(wanted.rows), wanted.loop
    settings = loop_settings(wanted)
    with RecordFile(writable_folder(folder) / "results.jsonl", settings, fresh) as kept:
        model = load_configured_model(wanted.stack)
        with progress(len(loop.worlds) * len(rows) * loop.goals, "goals", "goal", leave=True) as bar:
            for seed in loop.worlds:
                for row in rows:
                    known = kept.of(seed, row.key)
                    if len(known) < loop.goals:
                        for record in _drives(seed, row, wanted, model, known, on_drive):
                            kept.add(record)
                            bar.add(f"world {seed} {row.key}: {record['ended']}")
                    else:
                        bar.add(f"world {seed} {row.key}", loop.goals)
        records = [record for seed in loop.worlds for row in rows for record in kept.of(seed, row.key)[: loop.goals]]
    return LoopResult(settings, records)


def loop_settings(wanted: ClosedLoop) -> dict[str, Any]:
    """Return all that a record depends on, but for the number of goals, worlds and rows, which may grow."""
    left_out = {"worlds", "goals"}
    if wanted.loop.sensors == SensorSettings():  # as results say that are older than these settings
        left_out.add("sensors")
    if wanted.loop.world_set == BUILT_IN:
        left_out.add("world_set")
    loop = {name: value for name, value in to_mapping(wanted.loop).items() if name not in left_out}
    prior = motion_prior_settings(wanted.stack.motion_prior, wanted.stack.robot)
    parts = {"planner": planner_settings(wanted.stack.planner), "motion_prior": prior}
    return {
        "loop": loop,
        "stack": to_mapping(wanted.stack) | parts,
        "navigator": to_mapping(wanted.navigator),
        "model": model_fingerprint(wanted.stack.model),
    }


def simulator_of(seed: int, wanted: ClosedLoop) -> BuiltInSimulator:
    """Return the robot's simulator; every one of the same world begins at the same pose."""
    loop = wanted.loop
    size = (loop.image_width, loop.image_height)
    camera = None
    if not loop.sensors.camera.hfov_deg[1]:
        camera = CameraIntrinsics.from_field_of_view(*size, float(np.radians(loop.horizontal_fov_deg)))
    noise = OdometrySettings.from_percent(loop.drift_percent) if loop.drift_percent else None
    # The benchmark over ROS takes the world's seed here too, so that starts and goals are the same.
    simulator = BuiltInSimulator.in_world(
        generate_world(seed, world_set(loop.world_set)),
        camera,
        odometry_noise=noise,
        seed=seed,
        sensors=loop.sensors,
        size_px=size,
    )
    start = simulator.pose_world_xyyaw.copy()
    simulator.reset(start)
    return simulator


def _drives(
    seed: int,
    row: LoopRow,
    wanted: ClosedLoop,
    model: DiffusionWorldModel,
    known: list[Record],
    on_drive: OnDrive | None,
) -> Iterable[Record]:
    """Explore, and drive to the goals of one row; those that are known already are driven again, but not yielded."""
    robot, course = _robot(seed, row, wanted, model)
    if row.follows is None:
        robot.explore()
    touched = robot.simulator.collisions
    try:
        for number, goal in enumerate(islice(course.goals(), wanted.loop.goals)):
            record = {"world": seed, "row": row.key, "number": number} | _reach(robot, course, goal, wanted, row)
            if on_drive is not None:
                on_drive(row.key, course, goal, np.array(robot.driven_world_xy), record)
            if number >= len(known):
                yield record | {"collisions_while_led": touched}
    finally:
        robot.navigator.stack.close()


def _robot(seed: int, row: LoopRow, wanted: ClosedLoop, model: DiffusionWorldModel) -> tuple[SimulatedRobot, Course]:
    course, simulator = Course(simulator_of(seed, wanted)), simulator_of(seed, wanted)
    stack = NavStack(model, row.stack(wanted.stack), background_localisation=False)  # time is simulated
    own = row.navigator(wanted.navigator)
    arrival = replace(own.arrival, time_limit_s=min(own.arrival.time_limit_s, wanted.loop.time_limit_s))
    navigator = Navigator(stack, replace(own, arrival=arrival))
    return SimulatedRobot(simulator, navigator, course, wanted.loop), course


def _reach(robot: SimulatedRobot, course: Course, goal: LoopGoal, wanted: ClosedLoop, row: LoopRow) -> Record:
    robot.stand_at(goal.start_world_xyyaw)
    images = []
    if row.follows is not None:
        images = robot.shown_way(goal.goal_world_xyyaw)
        robot.stand_at(goal.start_world_xyyaw)
    simulator, loop = robot.simulator, wanted.loop
    began, began_s, hits = simulator.pose_world_xyyaw.copy(), robot.now_s, simulator.collisions
    robot.driven_world_xy.clear()
    if row.follows is None:
        state = robot.reach(course.image(goal.goal_world_xyyaw))
    else:
        state = robot.follow(images, row.follows == "search")
    left = se2.relative(simulator.pose_world_xyyaw, goal.goal_world_xyyaw)
    left_m, left_rad = float(np.hypot(*left[:2])), float(abs(left[2]))
    near = left_m <= loop.reached_m and left_rad <= loop.reached_rad
    driven = np.array([began[:2], *robot.driven_world_xy])
    driven_m = float(np.hypot(*np.diff(driven, axis=0).T).sum())
    shortest_m = course.way_m(began, goal.goal_world_xyyaw)
    return {
        "kind": goal.kind,
        "ended": "TIME_LIMIT" if state is MissionState.ACTIVE else state.value,
        "code": robot.navigator.mission.code,
        "success": near and state is MissionState.REACHED,
        "wrong_arrival": state is MissionState.REACHED and not near,
        "left_m": round(left_m, 3),
        "left_rad": round(left_rad, 3),
        "simulated_s": round(robot.now_s - began_s, 2),
        "shortest_m": round(shortest_m, 3),
        "driven_over_shortest": round(driven_m / shortest_m, 3),
        "collisions": simulator.collisions - hits,
    }


class RecordFile:
    """results.jsonl of a closed loop: the settings in the first line, then a record per goal."""

    def __init__(self, path: Path, settings: dict[str, Any], fresh: bool) -> None:
        self._path = path
        self._head = {"hash": settings_hash(settings), "settings": settings}
        self._records: list[Record] = []
        if path.is_file() and not fresh:
            self._load()
        self._write()

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._write()

    def of(self, world: int, row: str) -> list[Record]:
        """Return the records of one row in one world, in the order of goals."""
        found = [record for record in self._records if record["world"] == world and record["row"] == row]
        return sorted(found, key=lambda record: int(record["number"]))

    def add(self, record: Record) -> None:
        """Keep a record; it is on the disk when this returns."""
        self._records.append(record)
        self._write()

    def _load(self) -> None:
        lines = [line for line in self._path.read_text(encoding="utf-8").splitlines() if line]
        try:
            head, *records = [json.loads(line) for line in lines]
            known = head["hash"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self._path}: is damaged; start over with --fresh") from error
        if known != self._head["hash"]:
            raise ConfigError(f"{self._path}: holds results of other settings; choose another --out, or --fresh")
        self._records = records

    def _write(self) -> None:
        lines = [json.dumps(line, default=str) for line in (self._head, *self._records)]
        atomic_write_text(self._path, "\n".join(lines) + "\n")
