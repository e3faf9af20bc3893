"""Running ATE and RPE: every plan is compared with the way that odometry then tells the robot has really gone."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.types import Plan, PlanStatus
from come_nav.data.timing.odometry_track import OdometryTrack
from come_nav.evaluation.metrics.trajectory_metrics import PlanErrors, plan_errors


@dataclass(frozen=True)
class EvaluatedPlan:
    """One past plan with the way driven instead, both (T, 3) in the start frame, and their errors."""

    plan: Plan
    driven_xyyaw: NDArray[np.float64]
    errors: PlanErrors

    def values(self) -> dict[str, str]:
        """Return the plan's stamp and its errors, as text that keeps what is measured."""
        errors = self.errors
        found = {"ate_m": errors.ate_m, "rpe_m": errors.rpe_m, "final_m": errors.final_m}
        return {"plan_stamp_s": f"{self.plan.stamp_s:.9f}", **{name: f"{value:.9g}" for name, value in found.items()}}


class RunningAccuracy:
    """Waits until a plan's time has passed, then evaluates it. Keeps the last ``window`` evaluations."""

    def __init__(self, window: int = 50, waiting: int = 64) -> None:
        self._waiting: deque[Plan] = deque(maxlen=waiting)
        self.evaluated: deque[EvaluatedPlan] = deque(maxlen=window)
        self.count = 0

    def add(self, plan: Plan) -> None:
        """Take a plan that was given out."""
        if plan.status is PlanStatus.OK and len(plan.poses_xyyaw) > 0:
            self._waiting.append(plan)

    def update(self, track: OdometryTrack) -> list[EvaluatedPlan]:
        """Evaluate the plans whose last pose is in the past; plans that odometry does not cover are dropped."""
        newest, fresh = track.newest, []
        while newest is not None and self._waiting:
            plan = self._waiting[0]
            end_s = plan.stamp_s + plan.dt_s * len(plan.poses_xyyaw)
            if plan.stamp_s - newest.stamp_s > 1.0:  # the clock was set back
                self._waiting.popleft()
                continue
            if end_s > newest.stamp_s:
                break
            self._waiting.popleft()
            stamps_s = plan.stamp_s + plan.dt_s * np.arange(1, len(plan.poses_xyyaw) + 1)
            poses = track.poses_at(stamps_s)
            if poses is not None:
                driven = se2.relative(plan.start_odom_xyyaw[None], poses)
                fresh.append(EvaluatedPlan(plan, driven, plan_errors(plan.poses_xyyaw, driven)))
        self.evaluated.extend(fresh)
        self.count += len(fresh)
        return fresh

    def clear(self) -> None:
        """Forget plans that wait and those that were evaluated."""
        self._waiting.clear()
        self.evaluated.clear()
        self.count = 0

    def values(self) -> dict[str, float | int]:
        """Return the mean errors over the last evaluated plans; empty before the first."""
        if not self.evaluated:
            return {}
        errors = [evaluated.errors for evaluated in self.evaluated]
        return {
            "plans_evaluate": self.count,
            "window": len(errors),
            "ate_m": float(np.mean([error.ate_m for error in errors])),
            "rpe_m": float(np.mean([error.rpe_m for error in errors])),
            "final_m": float(np.mean([error.final_m for error in errors])),
            "last_ate_m": errors[-1].ate_m,
            "last_rpe_m": errors[-1].rpe_m,
        }
