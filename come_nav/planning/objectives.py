"""Terms of the planner's cost: how far an imagined view is from the goal, and what a path itself costs.

Each term maps an :class:`Imagination` of S candidates to costs (S,), lower is better; +inf rejects a candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch.nn import functional

from come_nav.core.checks import check_choice, check_range, check_shape
from come_nav.core.errors import PlanningError
from come_nav.core.geometry import se2
from come_nav.core.geometry.pose_mixture import LEAST_SIGMA, PoseMixture
from come_nav.core.types import Imagination
from come_nav.planning.twists import twists_of_path


class LatentDistance:
    """Distance of the imagined latents to the goal's: mean squared difference, or one minus the cosine."""

    name = "latent_distance"
    needs_view = True

    def __init__(self, goal_latents: torch.Tensor, kind: Literal["mse", "cosine"] = "mse") -> None:
        """Take the goal's latents (C, h, w), or (1, C, h, w)."""
        goal = goal_latents[0] if goal_latents.ndim == 4 and len(goal_latents) == 1 else goal_latents
        check_shape("LatentDistance.goal_latents", goal, "C h w")
        self._goal = goal
        self._kind = check_choice("LatentDistance.kind", kind, ("mse", "cosine"))

    def __call__(self, imagination: Imagination) -> torch.Tensor:
        """Return costs (S,)."""
        if imagination.latents is None:
            raise PlanningError("the imaginer returns no latents; use an image or pose objective with it")
        latents = imagination.latents.float()
        goal = self._goal.to(latents)[None]
        check_shape("imagined latents", latents, "S " + " ".join(map(str, goal.shape[1:])))
        if self._kind == "cosine":
            return 1.0 - functional.cosine_similarity(latents.flatten(1), goal.flatten(1))
        return ((latents - goal) ** 2).mean(dim=(1, 2, 3))


class Doubt:
    """Costs a candidate how much the imagined view at its end varies from noise to noise.

    Where it does, the world model knows little: an end is not trusted because it looks good once.
    """

    name = "doubt"
    needs_view = True
    draws = 2  # noises that each candidate is imagined with at least

    def __call__(self, imagination: Imagination) -> torch.Tensor:
        """Return costs (S,); nothing for what was imagined once."""
        if imagination.spread is None:
            return torch.zeros(len(imagination.poses_xyyaw), device=imagination.poses_xyyaw.device)
        return imagination.spread


def with_spread(drawn: Sequence[Imagination]) -> list[Imagination]:
    """Return imaginations of the same candidates from at least two noises, each with the spread over all of them.

    Raises:
        PlanningError: for an imaginer that returns no latents.
    """
    latents = [imagination.latents for imagination in drawn if imagination.latents is not None]
    if len(latents) < max(2, len(drawn)):
        raise PlanningError("doubt needs an imaginer that returns latents, asked twice or more")
    spread = torch.stack(latents).float().var(dim=0).flatten(1).mean(dim=1)
    return [replace(imagination, spread=spread) for imagination in drawn]


class ImageDistance:
    """Difference between imagined and goal image, averaged over a pyramid of blurred copies.

    A pixel-wise difference falls only within the width of an edge; the coarse levels of the pyramid widen that valley
    and the fine ones keep its bottom sharp.
    """

    name = "image_distance"
    needs_view = True

    def __init__(
        self, goal_image: torch.Tensor, kind: Literal["l1", "l2"] = "l1", scales: Sequence[int] = (1, 2, 4, 8)
    ) -> None:
        """Take the goal (3, H, W) in [-1, 1] and the block sizes, px, over which each level averages."""
        goal = goal_image[0] if goal_image.ndim == 4 and len(goal_image) == 1 else goal_image
        sizes = check_shape("ImageDistance.goal_image", goal, "3 H W")
        for scale in scales:
            check_range("ImageDistance.scales", scale, 1, min(sizes["H"], sizes["W"]))
        self._goal = goal
        self._kind = check_choice("ImageDistance.kind", kind, ("l1", "l2"))
        self._scales = tuple(scales)

    def __call__(self, imagination: Imagination) -> torch.Tensor:
        """Return costs (S,)."""
        if imagination.images is None:
            raise PlanningError("the imaginer returns no images; use the latent objective, or let it decode")
        images = imagination.images.float()
        goal = self._goal.to(images)[None]
        check_shape("imagined images", images, "S " + " ".join(map(str, goal.shape[1:])))
        difference = images - goal
        cost = images.new_zeros(len(images))
        for scale in self._scales:
            level = functional.avg_pool2d(difference, scale) if scale > 1 else difference
            cost = cost + (level.abs() if self._kind == "l1" else level**2).mean(dim=(1, 2, 3))
        return cost / len(self._scales)


class GoalPose:
    """Squared distance to a goal pose, ``position * d^2 + yaw * dyaw^2``, of the last pose and of those on the way.

    With ``path_cost_fraction`` h it is (1 - h) times that of the last pose and h times the mean over the path: of two
    paths that end alike, the one that gets there sooner is better. A robot that plans anew all the time drives the
    first parts of paths only; without ``path_cost_fraction`` these may all be slow.
    """

    name = "goal_pose"
    needs_view = False

    def __init__(
        self,
        goal_xyyaw: torch.Tensor,
        position_weight: float = 1.0,
        yaw_weight: float = 0.1,
        path_cost_fraction: float = 0.0,
    ) -> None:
        """Take the goal (3,) in the start frame; the weights are per m^2 and per rad^2."""
        check_shape("GoalPose.goal_xyyaw", goal_xyyaw, "3")
        self._goal = goal_xyyaw
        self._position_weight = check_range("GoalPose.position_weight", position_weight, 0.0)
        self._yaw_weight = check_range("GoalPose.yaw_weight", yaw_weight, 0.0)
        self._path_cost_fraction = check_range("GoalPose.path_cost_fraction", path_cost_fraction, 0.0, 1.0)

    def __call__(self, imagination: Imagination) -> torch.Tensor:
        """Return costs (S,)."""
        poses = imagination.poses_xyyaw
        goal = torch.as_tensor(self._goal).to(poses)
        distance_squared = ((poses[..., :2] - goal[:2]) ** 2).sum(-1)
        dyaw = se2.wrap_angle(poses[..., 2] - goal[2])
        apart = self._position_weight * distance_squared + self._yaw_weight * dyaw**2
        return (1.0 - self._path_cost_fraction) * apart[:, -1] + self._path_cost_fraction * apart.mean(dim=1)


class RegisteredGoal:
    """Distance to a goal whose image was registered, in standard deviations of the registration.

    ``p log(1 + d^2)`` with the probability p that the registration is right and the squared Mahalanobis distance d^2:
    minus the logarithm of a distribution with heavy tails (Cauchy). What is certain pulls strongly from near and still
    from afar; what is uncertain, or not likely right, hardly pulls, and the view decides. A share of it is taken over
    the path, against the smooth one that leads there.
    """

    name = "registered_goal"
    needs_view = False

    def __init__(
        self,
        goal_xyyaw: torch.Tensor,
        covariance: torch.Tensor,
        probability: float,
        path_xyyaw: torch.Tensor | None = None,
        path_cost_fraction: float = 0.2,
        path_sigma_m: float = 0.1,
    ) -> None:
        """Take the goal (3,) in the start frame with its covariance (3, 3), and the smooth path (T, 3) there.

        ``path_sigma_m`` is how far from that path a robot may well drive.
        """
        check_shape("RegisteredGoal.goal_xyyaw", goal_xyyaw, "3")
        check_shape("RegisteredGoal.covariance", covariance, "3 3")
        self._goal, self._information = goal_xyyaw, torch.linalg.inv(covariance.double())
        self._probability = check_range("RegisteredGoal.probability", probability, 0.0, 1.0)
        share = check_range("RegisteredGoal.path_cost_fraction", path_cost_fraction, 0.0, 1.0)
        self._path, self._share = path_xyyaw, share if path_xyyaw is not None else 0.0
        self._path_sigma_m = check_range("RegisteredGoal.path_sigma_m", path_sigma_m, 0.0, open_low=True)

    def __call__(self, imagination: Imagination) -> torch.Tensor:
        """Return costs (S,)."""
        poses = imagination.poses_xyyaw
        away = poses[:, -1] - self._goal.to(poses)
        away = torch.cat([away[:, :2], se2.wrap_angle(away[:, 2:])], dim=1)
        cost = torch.log1p(torch.einsum("si,ij,sj->s", away, self._information.to(poses), away))
        if self._path is not None and self._share > 0.0:
            beside = ((poses[..., :2] - self._path[:, :2].to(poses)) ** 2).sum(-1) / self._path_sigma_m**2
            cost = (1.0 - self._share) * cost + self._share * torch.log1p(beside).mean(dim=1)
        return self._probability * cost


PAIRS = 4_000_000  # of positions and obstacles that are compared at once
STANDING_M = 1e-3  # that a robot turning on the spot beside an obstacle seems nearer by rounding


class Clearance:
    """Keeps the path away from obstacles: +inf where the footprint touches one, rising softly within a margin.

    The soft part is ``((margin - gap) / margin)^2``, where the gap between footprint and obstacle is below the margin,
    integrated over the way driven, m: a metre that nearly touches costs 1. Were it a mean over time, a robot before a
    narrow passage would wait, because each plan would be cheaper for entering it only at its end.
    A robot that touches an obstacle already may leave it, but not come any nearer.
    """

    name = "clearance"
    needs_view = False

    def __init__(
        self,
        obstacles: torch.Tensor | Callable[[torch.Tensor], torch.Tensor],
        radius_m: float = 0.2,
        margin_m: float = 0.2,
    ) -> None:
        """Take points (N, 2) in the start frame, or a function from positions (M, 2) to distances (M,) in metres."""
        self._radius_m = check_range("Clearance.radius_m", radius_m, 0.0, open_low=True)
        self._margin_m = check_range("Clearance.margin_m", margin_m, 0.0, open_low=True)
        if isinstance(obstacles, torch.Tensor):
            check_shape("Clearance.obstacles", obstacles, "N 2")
            obstacles = _distance_to_points(obstacles, radius_m, radius_m + margin_m)
        self._distance = obstacles

    def __call__(self, imagination: Imagination) -> torch.Tensor:
        """Return costs (S,). Checked at every pose and half-way between poses."""
        ends = imagination.poses_xyyaw[..., :2]
        starts = torch.cat([torch.zeros_like(ends[:, :1]), ends[:, :-1]], dim=1)
        positions = torch.cat([0.5 * (starts + ends), ends], dim=1)
        gap = self._distance(positions.flatten(0, 1)).reshape(positions.shape[:2]) - self._radius_m
        soft = ((self._margin_m - gap) / self._margin_m).clamp(min=0.0) ** 2
        half_m = 0.5 * (ends - starts).norm(dim=-1)
        along = (soft * half_m.repeat(1, 2)).sum(dim=1)
        return torch.where((gap < 0).any(dim=1), torch.inf, along)


class Smoothness:
    """Mean squared change of the twist from step to step: ``mean (dvx^2 + dvy^2) / v^2 + (dw / w)^2``, scales v and w.

    Of a robot that cannot move ``sideways`` vy does not count.
    """

    name = "smoothness"
    needs_view = False

    def __init__(
        self,
        dt_s: float = 0.25,
        v_scale_mps: float = 1.0,
        w_scale_radps: float = 1.0,
        initial_twist: torch.Tensor | None = None,
        *,
        sideways: bool = False,
    ) -> None:
        """Take the step time and, where known, the present twist (3,), which the first step is compared with."""
        self._dt_s = check_range("Smoothness.dt_s", dt_s, 0.0, open_low=True)
        self._v_scale = check_range("Smoothness.v_scale_mps", v_scale_mps, 0.0, open_low=True)
        self._w_scale = check_range("Smoothness.w_scale_radps", w_scale_radps, 0.0, open_low=True)
        self._initial_twist = initial_twist
        self._axes = [0, 1, 2] if sideways else [0, 2]

    def __call__(self, imagination: Imagination) -> torch.Tensor:
        """Return costs (S,)."""
        twists = twists_of_path(imagination.poses_xyyaw, self._dt_s)
        if self._initial_twist is not None:
            first = self._initial_twist.to(twists).expand(len(twists), 1, 3)
            twists = torch.cat([first, twists], dim=1)
        scales = twists.new_tensor([self._v_scale, self._v_scale, self._w_scale])
        change = twists.diff(dim=1)[..., self._axes] / scales[self._axes]
        return (change**2).sum(dim=(1, 2)) / imagination.poses_xyyaw.shape[1]


class MotionPrior:
    """Minus the logarithm of how likely a path is of a robot that goes on as it moves now, averaged over its steps.

    The twist at time t is normal around the present one, ``sum_axes (u(t) - u(0))^2 / (2 t sigma^2)``: how far it is
    from the present one after 1 s is ``sigma``, and that grows with the square root of the time.
    """

    name = "motion_prior"
    needs_view = False

    def __init__(
        self, initial_twist: torch.Tensor, dt_s: float, sigmas: Sequence[float], *, sideways: bool = False
    ) -> None:
        """Take the present twist (3,), the step time, and sigma of vx (m/s), vy (m/s) and w (rad/s) after 1 s."""
        check_shape("MotionPrior.initial_twist", initial_twist, "3")
        for sigma in sigmas:
            check_range("MotionPrior.sigmas", sigma, 0.0, open_low=True)
        self._dt_s = check_range("MotionPrior.dt_s", dt_s, 0.0, open_low=True)
        self._initial_twist, self._sigmas = initial_twist, torch.tensor(list(sigmas))
        self._axes = [0, 1, 2] if sideways else [0, 2]

    def __call__(self, imagination: Imagination) -> torch.Tensor:
        """Return costs (S,)."""
        twists = twists_of_path(imagination.poses_xyyaw, self._dt_s)
        middle_s = self._dt_s * (torch.arange(twists.shape[1]).to(twists) + 0.5)
        away = (twists - self._initial_twist.to(twists)) / self._sigmas.to(twists)
        return (0.5 * away[..., self._axes] ** 2 / middle_s[:, None]).sum(dim=-1).mean(dim=-1)


class LearnedMotionPrior:
    """How much less likely a path is than the likeliest one, of a robot that sees what this one sees, nats.

    ``log p(peak) - log p(pose)`` of a mixture of poses at some steps of the path, averaged over them. No standard
    deviation counts below ``LEAST_SIGMA``, and nothing above ``MOST_NATS``: a view that clearly says otherwise is
    believed.
    """

    name = "learned_motion"
    needs_view = False
    MOST_NATS = 20.0  # of one pose

    def __init__(self, mixture: PoseMixture, steps: Sequence[int]) -> None:
        """Take where the robot will be (one of them, T times) and the steps (T,) of a path, from 1, that those are."""
        check_shape("LearnedMotionPrior.mixture", mixture.times_s, f"1 {len(steps)}")
        self._mixture, self._index = mixture, torch.tensor(list(steps)) - 1
        self._peak = mixture.log_peak(LEAST_SIGMA)

    def __call__(self, imagination: Imagination) -> torch.Tensor:
        """Return costs (S,)."""
        poses = imagination.poses_xyyaw[:, self._index]
        mixture = PoseMixture(**{name: tensor.to(poses) for name, tensor in vars(self._mixture).items()})
        density = mixture.log_density(poses, LEAST_SIGMA)
        return (self._peak.to(poses) - density).clamp(max=self.MOST_NATS).mean(dim=1)


def _distance_to_points(
    points_xy: torch.Tensor, radius_m: float, far_m: float
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the distance to the nearest point, at least up to ``far_m``, beyond which it may be called infinite.

    A point inside the radius at the start counts from where it is.
    """
    finite = points_xy[torch.isfinite(points_xy).all(dim=1)]
    away = finite.norm(dim=1)
    inside = (radius_m + STANDING_M - away).clamp(min=0.0)

    def distance(positions_xy: torch.Tensor) -> torch.Tensor:
        if len(positions_xy) == 0:
            return positions_xy[:, 0]
        near = away <= positions_xy.norm(dim=1).max().to(away) + far_m
        points, offset = finite[near].to(positions_xy), inside[near].to(positions_xy)
        if len(points) == 0:
            return torch.full_like(positions_xy[:, 0], torch.inf)
        # In parts, because positions times points would be the largest thing in the planner's memory.
        parts = positions_xy.split(max(1, PAIRS // len(points)))
        return torch.cat([(torch.cdist(part, points) + offset).amin(dim=1) for part in parts])

    return distance
