"""What is wanted of an imagined future: the terms of the planner's cost for one goal, and their weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.protocols import Objective, WorldModel
from come_nav.core.types import Goal
from come_nav.navigation.navigation_model import NavigationModel
from come_nav.planning.objectives import (
    Doubt,
    GoalPose,
    ImageDistance,
    LatentDistance,
    LearnedMotionPrior,
    MotionPrior,
    Smoothness,
)
from come_nav.planning.settings import KinematicsSettings, MotionPriorSettings, ObjectiveSettings

STANDING_MPS, STANDING_RADPS = 0.05, 0.1


def objectives_for(
    goal: Goal,
    start_odom_xyyaw: NDArray[np.float64],
    twist: NDArray[np.float64] | None,
    dt_s: float,
    wanted: ObjectiveSettings,
    model: NavigationModel,
    robot: KinematicsSettings,
) -> tuple[list[Objective], dict[str, float]]:
    """Return the terms for a goal and their weights by name.

    Args:
        goal: image, pose in odom, or both; each is a term of its own.
        start_odom_xyyaw: (3,) where paths start.
        twist: (3,) present (vx m/s, vy m/s, w rad/s), or None where it is not known.
        dt_s: time between the poses of a path.
        wanted: weights and kinds.
        model: makes latents of the goal's image.
        robot: how it moves.
    """
    known_twist = None if twist is None else torch.from_numpy(twist)
    objectives: list[Objective] = [Smoothness(dt_s, initial_twist=known_twist, sideways=robot.sideways)]
    weights = {"smoothness": wanted.smoothness_weight}
    if goal.image_rgb is not None:
        view = view_objective(wanted, model.images_from_rgb([goal.image_rgb]), model)
        objectives.append(view)
        weights[view.name] = wanted.view_weight
        if wanted.doubt_weight > 0.0:
            objectives.append(Doubt())
            weights[Doubt.name] = wanted.doubt_weight
    if goal.pose_odom_xyyaw is not None:
        target = torch.from_numpy(se2.relative(start_odom_xyyaw, goal.pose_odom_xyyaw))
        objectives.append(GoalPose(target, wanted.pose_weight, wanted.yaw_weight, wanted.path_cost_fraction))
    return objectives, weights


def motion_terms(
    twist: NDArray[np.float64] | None,
    dt_s: float,
    prior: MotionPriorSettings,
    robot: KinematicsSettings,
    foresee: Callable[[], LearnedMotionPrior | None] = lambda: None,
) -> tuple[list[Objective], dict[str, float]]:
    """Return the prior of motion and its weight, nothing where there is none.

    It is the learned one where the settings name it and ``foresee`` returns one, else one around the present ``twist``
    (3,).
    """
    if twist is None or (prior.use == "auto" and robot.kinematics == "differential" and stands(twist)):
        return [], {}
    learned = foresee() if prior.looks(robot) else None
    if learned is not None:
        return [learned], {learned.name: prior.network_weight}
    weight = prior.weight_of(robot)
    if weight == 0.0:
        return [], {}
    sigmas = (prior.v_sigma_mps, prior.vy_sigma_mps, prior.w_sigma_radps)
    term = MotionPrior(torch.from_numpy(twist), dt_s, sigmas, sideways=robot.sideways)
    return [term], {term.name: weight}


def stands(twist: NDArray[np.float64]) -> bool:
    """Whether a robot with this twist (3,), m/s and rad/s, moves no more than its odometry trembles."""
    return bool(np.hypot(twist[0], twist[1]) < STANDING_MPS and abs(twist[2]) < STANDING_RADPS)


def view_objective(wanted: ObjectiveSettings, goal_image: torch.Tensor, model: WorldModel) -> Objective:
    """Return the distance between imagined view and goal image (1, 3, H, W) that ``wanted.view_distance`` names."""
    if wanted.view_distance == "image_l1":
        return ImageDistance(goal_image, "l1", wanted.image_scales)
    if wanted.view_distance == "image_l2":
        return ImageDistance(goal_image, "l2", wanted.image_scales)
    return LatentDistance(model.encode(goal_image), "mse" if wanted.view_distance == "latent" else "cosine")
