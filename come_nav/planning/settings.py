"""Settings of the planner. Each field says its meaning, unit and range; a value out of range is refused by name."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_args

from come_nav.core.checks import check_choice, check_range
from come_nav.core.errors import ConfigError
from come_nav.core.types import Kinematics

PARAMETERISATIONS = ("straight", "arc", "spline")
INITIAL_SAMPLING = ("gaussian", "sobol", "uniform", "mixed")
PROPOSALS = ("gaussian", "mixture")
RESULTS = ("best", "mean", "cheaper")
ViewDistanceName = Literal["latent", "latent_cosine", "image_l1", "image_l2"]


@dataclass(frozen=True)
class RobotLimits:
    """What the robot can do. Every candidate path respects these limits.

    Attributes:
        v_min_mps: slowest forward speed, m/s, <= 0 or a creeping speed; negative allows driving backwards.
        v_max_mps: fastest forward speed, m/s, > v_min_mps.
        w_max_radps: fastest turn to either side, rad/s, > 0.
        a_max_mps2: largest change of speed, m/s^2, > 0; null = no limit.
        alpha_max_radps2: largest change of yaw rate, rad/s^2, > 0; null = no limit.
    """

    v_min_mps: float = 0.0
    v_max_mps: float = 0.6
    w_max_radps: float = 1.5
    a_max_mps2: float | None = None
    alpha_max_radps2: float | None = None

    def __post_init__(self) -> None:
        check_range("limits.v_min_mps", self.v_min_mps, -20.0, 20.0)
        check_range("limits.v_max_mps", self.v_max_mps, 0.0, 20.0, open_low=True)
        check_range("limits.w_max_radps", self.w_max_radps, 0.0, 20.0, open_low=True)
        if self.v_min_mps >= self.v_max_mps:
            raise ConfigError(f"limits.v_min_mps must be below limits.v_max_mps {self.v_max_mps}, got {self.v_min_mps}")
        if self.a_max_mps2 is not None:
            check_range("limits.a_max_mps2", self.a_max_mps2, 0.0, 100.0, open_low=True)
        if self.alpha_max_radps2 is not None:
            check_range("limits.alpha_max_radps2", self.alpha_max_radps2, 0.0, 100.0, open_low=True)


@dataclass(frozen=True)
class KinematicsSettings:
    """How the robot's base moves. Search, path follower and every row of a planning table keep to it.

    Attributes:
        kinematics: differential (forward and turning), holonomic (sideways too: legs, omnidirectional wheels, a camera
            in the hand) or car (forward and turning along curves that are not too tight).
        vy_max_mps: fastest speed to either side (holonomic only), m/s, > 0; limits.a_max_mps2 holds for it too.
        min_turn_radius_m: of the tightest curve (car only), m, > 0. It goes before limits.alpha_max_radps2.
    """

    kinematics: Kinematics = "differential"
    vy_max_mps: float = 0.6
    min_turn_radius_m: float = 5.0

    def __post_init__(self) -> None:
        check_choice("robot.kinematics", self.kinematics, get_args(Kinematics))
        check_range("robot.vy_max_mps", self.vy_max_mps, 0.0, 20.0, open_low=True)
        check_range("robot.min_turn_radius_m", self.min_turn_radius_m, 0.0, 100.0, open_low=True)

    @property
    def sideways(self) -> bool:
        """Whether the robot can move sideways."""
        return self.kinematics == "holonomic"


@dataclass(frozen=True)
class MotionPriorSettings:
    """How strongly the search believes that the robot goes on as it moves now.

    The twist a time t from now is taken for normal around the present one, with standard deviations that grow with the
    square root of t. Where the present twist is not known there is no prior.

    Attributes:
        use: auto (each robot by its own weight), always (``weight`` for every robot) or never.
        weight: of minus the logarithm of its density, averaged over the path, >= 0; of holonomic robots, whose search
            is wider, and of cars, which are fast.
        differential_weight: the same of robots with a differential drive, while they move: of one that stands nobody
            knows where it wants to go.
        v_sigma_mps: change of the forward speed in 1 s, m/s, > 0.
        vy_sigma_mps: change of the sideways speed in 1 s, m/s, > 0.
        w_sigma_radps: change of the yaw rate in 1 s, rad/s, > 0.
        network: name or folder of a learned prior (``come-nav train --motion``), which differential drives that move
            take instead: it looks where a robot would go on; empty = none.
        network_weight: of minus the logarithm of its density, averaged over the path, >= 0; 0 = as without it.
    """

    use: Literal["auto", "always", "never"] = "auto"
    weight: float = 0.1
    differential_weight: float = 0.0
    v_sigma_mps: float = 0.2
    vy_sigma_mps: float = 0.2
    w_sigma_radps: float = 0.4
    network: str = ""
    network_weight: float = 0.01

    def __post_init__(self) -> None:
        check_choice("motion_prior.use", self.use, ("auto", "always", "never"))
        for name in ("weight", "differential_weight", "network_weight"):
            check_range(f"motion_prior.{name}", getattr(self, name), 0.0)
        for name in ("v_sigma_mps", "vy_sigma_mps", "w_sigma_radps"):
            check_range(f"motion_prior.{name}", getattr(self, name), 0.0, open_low=True)

    def weight_of(self, robot: KinematicsSettings) -> float:
        """Return how much it counts for such a robot; 0 where it does not."""
        if self.use == "never":
            return 0.0
        return self.weight if self.use == "always" or robot.kinematics != "differential" else self.differential_weight

    def looks(self, robot: KinematicsSettings) -> bool:
        """Whether the learned prior counts for such a robot: it was taught how differential drives go on."""
        wanted = bool(self.network) and self.network_weight > 0.0 and self.use != "never"
        return wanted and robot.kinematics == "differential"


@dataclass(frozen=True)
class PlannerSettings:
    """How the cross-entropy method searches.

    Attributes:
        parameterisation: shape of a candidate path: straight (one step repeated, NWM), arc (constant v, w) or spline.
        samples: candidates per iteration after the first, >= 1.
        initial_samples: candidates of the first iteration, >= 1; null = the same as samples.
        iterations: refinements of the distribution, >= 1.
        elites: cheapest candidates that form the next distribution, in [1, samples].
        repeats: times that each candidate is imagined; costs are averaged (a diffusion model is noisy), >= 1.
        imagined_share: of an iteration's candidates that are imagined, in (0, 1]: those whose end looks most like the
            goal in what was seen before, moved there without a network. 1 = all of them.
        horizon_steps: steps of a path, >= 1.
        dt_s: time of one step, s, > 0.
        initial_sampling: gaussian (draws around the present twist or the warm start), sobol (the same, evenly
            covered), uniform (the whole range of the limits, evenly covered) or mixed (half sobol, half uniform).
        proposal: gaussian (classic CEM, one mean and spread) or mixture (samples around every elite, so that
            several promising valleys stay alive).
        std_floor: smallest spread as a fraction of each parameter's half range, in (0, 1]; keeps one elite finite.
        smoothing: weight of the previous mean and spread in the update, in [0, 1).
        bandwidth: spread around each elite as a fraction of the elites' spread (mixture only), in (0, 2].
        include_mean: also try the mean of the distribution in every iteration after the first.
        keep_elites: elites stay in the pool of the next iteration, with the cost that they had.
        result: best (cheapest candidate tried), mean (of the last distribution, NWM) or cheaper (of these two).
        v_knots: knots of the speed, and of that to the side, after the present one (spline only), in [1, 8].
        w_knots: knots of the yaw rate after the present one (spline only), in [1, 8].
        interpolation: between the knots (spline only): linear or cubic.
        prior_v_mps: expected speed where the present twist is unknown, m/s.
        prior_v_std_mps: spread of the speed, and of that to the side, m/s, > 0.
        prior_w_std_radps: spread of the yaw rate, rad/s, > 0.
        warm_start_std: spread around a warm start as a fraction of the prior's, in (0, 1].
        time_limit_s: stop searching after this time, s, > 0; null = no limit.
        keep_best_on_timeout: a plan that timed out still carries the best path so far (its status is TIMED_OUT).
        proposals: a learned planner (gnm, vint, nomad: name of a model or path of its folder) whose paths to a goal's
            image are tried in the first iteration; empty = none.
        proposed_paths: how many of them, >= 1; gnm and vint have but one.
        proposal_spacing_m: metres between its waypoints, m, > 0; null = as its config.yaml says.
        proposals_alone: try nothing else, which ranks them by what they are imagined to lead to.
        limits: of the robot.
    """

    parameterisation: Literal["straight", "arc", "spline"] = "spline"
    samples: int = 40
    initial_samples: int | None = 240
    iterations: int = 5
    elites: int = 10
    repeats: int = 1
    imagined_share: float = 1.0
    horizon_steps: int = 8
    dt_s: float = 0.25
    initial_sampling: Literal["gaussian", "sobol", "uniform", "mixed"] = "mixed"
    proposal: Literal["gaussian", "mixture"] = "mixture"
    std_floor: float = 0.02
    smoothing: float = 0.0
    bandwidth: float = 0.8
    include_mean: bool = True
    keep_elites: bool = True
    result: Literal["best", "mean", "cheaper"] = "cheaper"
    v_knots: int = 1
    w_knots: int = 2
    interpolation: Literal["linear", "cubic"] = "cubic"
    prior_v_mps: float = 0.5
    prior_v_std_mps: float = 0.2
    prior_w_std_radps: float = 0.9
    warm_start_std: float = 0.5
    time_limit_s: float | None = None
    keep_best_on_timeout: bool = False
    proposals: str = ""
    proposed_paths: int = 16
    proposal_spacing_m: float | None = None
    proposals_alone: bool = False
    limits: RobotLimits = field(default_factory=RobotLimits)

    def __post_init__(self) -> None:
        check_choice("planner.parameterisation", self.parameterisation, PARAMETERISATIONS)
        check_choice("planner.initial_sampling", self.initial_sampling, INITIAL_SAMPLING)
        check_choice("planner.proposal", self.proposal, PROPOSALS)
        check_choice("planner.result", self.result, RESULTS)
        check_choice("planner.interpolation", self.interpolation, ("linear", "cubic"))
        check_range("planner.samples", self.samples, 1)
        check_range("planner.iterations", self.iterations, 1)
        check_range("planner.elites", self.elites, 1, min(self.samples, self.first_samples))
        check_range("planner.repeats", self.repeats, 1)
        check_range("planner.imagined_share", self.imagined_share, 0.0, 1.0, open_low=True)
        check_range("planner.horizon_steps", self.horizon_steps, 1)
        check_range("planner.dt_s", self.dt_s, 0.0, open_low=True)
        check_range("planner.std_floor", self.std_floor, 0.0, 1.0, open_low=True)
        check_range("planner.smoothing", self.smoothing, 0.0, 0.999)
        check_range("planner.bandwidth", self.bandwidth, 0.0, 2.0, open_low=True)
        check_range("planner.v_knots", self.v_knots, 1, min(8, self.horizon_steps))
        check_range("planner.w_knots", self.w_knots, 1, min(8, self.horizon_steps))
        check_range("planner.prior_v_mps", self.prior_v_mps, -20.0, 20.0)
        check_range("planner.prior_v_std_mps", self.prior_v_std_mps, 0.0, open_low=True)
        check_range("planner.prior_w_std_radps", self.prior_w_std_radps, 0.0, open_low=True)
        check_range("planner.warm_start_std", self.warm_start_std, 0.0, 1.0, open_low=True)
        check_range("planner.proposed_paths", self.proposed_paths, 1, 4096)
        if self.proposal_spacing_m is not None:
            check_range("planner.proposal_spacing_m", self.proposal_spacing_m, 0.0, 100.0, open_low=True)
        if self.proposals_alone and not self.proposals:
            raise ConfigError("planner.proposals_alone needs planner.proposals to name a policy, e.g. nomad")
        if self.time_limit_s is not None:
            check_range("planner.time_limit_s", self.time_limit_s, 0.0, open_low=True)

    @property
    def first_samples(self) -> int:
        """Candidates of the first iteration."""
        return self.samples if self.initial_samples is None else self.initial_samples


@dataclass(frozen=True)
class PoseSearchSettings:
    """What is different where the goal is a pose alone: nothing is imagined then, so that many more paths can be tried.

    Attributes:
        samples: candidates per iteration after the first, >= 1.
        initial_samples: candidates of the first iteration, >= 1.
        iterations: refinements of the distribution, >= 1.
        elites: cheapest candidates that form the next distribution, in [1, samples].
        v_knots: knots of the speed after the present one, in [1, 8]: more of them can brake before they turn.
        w_knots: knots of the yaw rate after the present one, in [1, 8].
    """

    samples: int = 200
    initial_samples: int = 1000
    iterations: int = 5
    elites: int = 20
    v_knots: int = 3
    w_knots: int = 3

    def __post_init__(self) -> None:
        for name in ("samples", "initial_samples", "iterations"):
            check_range(f"pose_search.{name}", getattr(self, name), 1)
        check_range("pose_search.elites", self.elites, 1, min(self.samples, self.initial_samples))
        for name in ("v_knots", "w_knots"):
            check_range(f"pose_search.{name}", getattr(self, name), 1, 8)

    def instead_of(self, planner: PlannerSettings) -> PlannerSettings:
        """Return ``planner`` with these numbers."""
        most = planner.horizon_steps
        numbers = {own.name: getattr(self, own.name) for own in fields(self)}
        numbers |= {"v_knots": min(self.v_knots, most), "w_knots": min(self.w_knots, most)}
        return replace(planner, **numbers)


@dataclass(frozen=True)
class ObjectiveSettings:
    """What a good path is.

    Attributes:
        view_distance: between imagined view and goal image: latent, latent_cosine, image_l1 or image_l2 (the image
            distances decode every candidate and compare a pyramid of blurred copies).
        image_scales: block sizes of that pyramid, px, each >= 1.
        view_weight: weight of the view distance, >= 0.
        pose_weight: weight of the distance to a goal pose, per m^2, >= 0.
        yaw_weight: weight of the turn to a goal pose, per rad^2, >= 0.
        path_cost_fraction: share of the distance to a goal pose that is taken over the whole path, not at its end,
            in [0, 1].
        smoothness_weight: weight of changes of the twist, >= 0.
        doubt_weight: weight of the variance of a candidate's imagined latents over noises, >= 0; above 0 each candidate
            is imagined twice at least.
        doubt_draws: noises that the end of the chosen path is imagined with, to tell how far to trust it (``doubt`` of
            the plan): 0 = not told, else >= 2.
        clearance_weight: weight of coming near to obstacles, per metre of nearly touching them, >= 0; who touches one
            is rejected whatever the weight.
    """

    view_distance: ViewDistanceName = "latent"
    image_scales: tuple[int, ...] = (1, 2, 4, 8)
    view_weight: float = 1.0
    pose_weight: float = 1.0
    yaw_weight: float = 0.1
    path_cost_fraction: float = 0.2
    smoothness_weight: float = 0.0
    doubt_weight: float = 0.0
    doubt_draws: int = 3
    clearance_weight: float = 1.0

    def __post_init__(self) -> None:
        check_choice("objective.view_distance", self.view_distance, get_args(ViewDistanceName))
        for scale in self.image_scales:
            check_range("objective.image_scales", scale, 1)
        check_range("objective.doubt_draws", self.doubt_draws, 0 if self.doubt_draws == 0 else 2)
        weights = ("view_weight", "pose_weight", "yaw_weight", "smoothness_weight", "doubt_weight", "clearance_weight")
        for name in weights:
            check_range(f"objective.{name}", getattr(self, name), 0.0)
        check_range("objective.path_cost_fraction", self.path_cost_fraction, 0.0, 1.0)
