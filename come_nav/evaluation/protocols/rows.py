"""The competitors of the planning table: trivial baselines here, anything else through a planner that is handed in."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.types import Frame, Plan, PlanStatus
from come_nav.evaluation.metrics.image_metrics import psnr, sharpness_ratio, ssim
from come_nav.evaluation.metrics.trajectory_metrics import plan_errors
from come_nav.evaluation.protocols.protocol import Window
from come_nav.planning.settings import KinematicsSettings

STAND_STILL = "stand still"
CONSTANT_VELOCITY = "constant velocity"
REGISTRATION = "registration"
WORLD_MODEL = "world model"
HYBRID = "hybrid: world model + registration"
PERFECT_MODEL = "perfect model"
HINDSIGHT = "best candidate in hindsight"

PSNR_CEILING_DB = 60.0  # equal images have infinite PSNR, which has no mean; 8-bit rounding alone is 59 dB

PlanFunction = Callable[[Window, torch.Generator], Plan]
# (window, paths (S, T, 3) in the start frame, generator) -> views (S, 3, H, W) in [-1, 1] at the ends of the paths
ImagineFunction = Callable[[Window, torch.Tensor, torch.Generator], torch.Tensor]
# camera frame -> (3, H, W) in [-1, 1] at the size of the imagined views
ImageFunction = Callable[[Frame], torch.Tensor]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: as printed.
        plan: answers each window.
        imagine: imagined views, to evaluate them as images; None where the row imagines nothing.
        image: brings the real frames to the same size; needed with ``imagine``.
        hindsight: name of a further row that holds the best of all candidates that this row's plans tried.
        device: where the row's random generator lives.
        kinematics: of the robot whose paths the row plans; empty where there is no motion.
    """

    name: str
    plan: PlanFunction
    imagine: ImagineFunction | None = None
    image: ImageFunction | None = None
    hindsight: str | None = None
    device: str = "cpu"
    kinematics: str = ""

    @property
    def names(self) -> list[str]:
        """Names of all rows that one run of this one fills."""
        return [self.name] if self.hindsight is None else [self.name, self.hindsight]


def stand_still(window: Window, generator: torch.Generator) -> Plan:
    """Plan to stay: every waypoint is the start."""
    return _plan(window, np.zeros_like(window.driven_xyyaw))


def constant_velocity(window: Window, generator: torch.Generator) -> Plan:
    """Go on with the twist of the last context motion: an arc of constant speed and turn, without speed to the side."""
    return _constant_twist(window, sideways=False)


def constant_planar_velocity(window: Window, generator: torch.Generator) -> Plan:
    """Go on with the twist of the last context motion, that to the side as well."""
    return _constant_twist(window, sideways=True)


def trivial_rows(robot: KinematicsSettings | None = None) -> list[Row]:
    """Return the two rows that no table may miss, as a differential drive or ``robot`` moves."""
    robot = robot or KinematicsSettings()
    going_on = constant_planar_velocity if robot.sideways else constant_velocity
    return [Row(STAND_STILL, stand_still), Row(CONSTANT_VELOCITY, going_on, kinematics=robot.kinematics)]


def evaluate(row: Row, window: Window) -> list[dict[str, Any]]:
    """Run one row on one window; return its record and, where the row has one, that of its hindsight row.

    A plan that is not OK is never driven: it counts as standing still, and its status is kept.
    """
    started_s = time.perf_counter()
    plan = row.plan(window, window.generator("plan", row.device))
    seconds = time.perf_counter() - started_s
    path = driven_path(plan, window)
    record = _record(row.name, window, path) | {"status": plan.status.value, "cost": _finite(plan.cost)}
    if plan.registered_to is not None:
        record["registered_to"] = plan.registered_to
    candidates = tried_paths(plan)
    if len(candidates):
        record["candidates"] = len(candidates)
        record["hindsight_ate_m"] = float(_candidate_ates(candidates, window).min())
    if row.imagine is not None and row.image is not None:
        record |= _evaluate_images(row.imagine, row.image, window, path, row.device)
    records = [record | {"seconds": seconds}]
    if row.hindsight is not None:
        best = candidates[int(np.argmin(_candidate_ates(candidates, window)))] if len(candidates) else path
        records.append(_record(row.hindsight, window, best) | {"status": plan.status.value, "seconds": 0.0})
    return records


def driven_path(plan: Plan, window: Window) -> NDArray[np.float64]:
    """Return the path (T, 3) that a robot would drive: the plan's where it is OK, else the start pose."""
    return plan.poses_xyyaw if plan.status is PlanStatus.OK else np.zeros_like(window.driven_xyyaw)


def tried_paths(plan: Plan) -> NDArray[np.float64]:
    """Return all candidates (S, T, 3) of all iterations that the plan's trace holds; (0, 0, 3) without a trace."""
    if plan.trace is None or not plan.trace.iterations:
        return np.zeros((0, 0, 3))
    return np.concatenate([step.poses_xyyaw.detach().cpu().double().numpy() for step in plan.trace.iterations])


def _candidate_ates(candidates: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    offsets = candidates[..., :2] - window.driven_xyyaw[None, :, :2]
    return np.asarray(np.sqrt((offsets**2).sum(-1).mean(-1)))


def _record(name: str, window: Window, path: NDArray[np.float64]) -> dict[str, Any]:
    errors = plan_errors(path, window.driven_xyyaw)
    offsets = path[:, :2] - window.driven_xyyaw[:, :2]
    return {
        "recording": window.recording_id,
        "start": window.start,
        "goal": window.goal,
        "row": name,
        "ate_m": errors.ate_m,
        "rpe_m": errors.rpe_m,
        "final_m": errors.final_m,
        "final_yaw_rad": errors.final_yaw_rad,
        "step_errors_m": [float(value) for value in np.linalg.norm(offsets, axis=1)],
    }


def _evaluate_images(
    imagine: ImagineFunction, image: ImageFunction, window: Window, path: NDArray[np.float64], device: str
) -> dict[str, Any]:
    """Compare the views imagined at the chosen and at the true final pose, and the last frame, with the goal frame."""
    paths = torch.from_numpy(np.stack([path, window.driven_xyyaw])).float().to(device)
    views = imagine(window, paths, window.generator("image", device))
    real = image(window.goal_frame())[None].to(views)
    last = image(window.recording.frame(window.start))[None].to(views)
    return {
        "imagined": _quality(views[:1], real),
        "prediction": _quality(views[1:], real),
        "copy_last_frame": _quality(last, real),
    }


def _quality(image: torch.Tensor, real: torch.Tensor) -> dict[str, float]:
    return {
        "psnr_db": min(float(psnr(image, real)[0]), PSNR_CEILING_DB),
        "ssim": float(ssim(image, real)[0]),
        "sharpness": float(sharpness_ratio(image, real)[0]),
    }


def _constant_twist(window: Window, sideways: bool) -> Plan:
    times_s = window.dt_s * np.arange(1, len(window.driven_xyyaw) + 1)
    vx, vy, w = (np.full_like(times_s, value) for value in window.initial_twist)
    return _plan(window, se2.integrate_twist(vx, w, times_s, vy if sideways else None))


def _plan(window: Window, poses_xyyaw: NDArray[np.float64]) -> Plan:
    return Plan(PlanStatus.OK, window.stamp_s, window.dt_s, poses_xyyaw, window.start_odom_xyyaw)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
