"""The whole flow on one page: observe, remember, imagine, score, act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.config import Config, ObjectiveConfig, find_resource
from come_nav.core.errors import ConfigError, PlanningError
from come_nav.core.geometry import se2
from come_nav.core.protocols import Imaginer, Objective, WorldModel
from come_nav.core.types import Context, Frame, Goal, Imagination, Odometry, Plan, PlanStatus
from come_nav.memory.short_term import Observed, Remembered, ShortTermBuffer
from come_nav.planning.cem import CemPlanner
from come_nav.planning.objectives import Clearance, GoalPose, ImageDistance, LatentDistance, Smoothness


class NavigationModel(WorldModel, Protocol):
    """A world model that also prepares camera images and binds a context for the planner."""

    def images_from_rgb(self, frames: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Return (T, 3, S, S) in [-1, 1] of camera images of any size."""
        ...

    def context_from_frames(
        self,
        frames: Sequence[Frame],
        poses_xyyaw: NDArray[np.float64],
        frame_offsets: Sequence[float],
        *,
        latents: torch.Tensor | None = None,
    ) -> Context:
        """Return the context of frames, oldest first, seen from poses (T, 3) in odom; ``latents`` are theirs."""
        ...

    def imaginer(
        self, context: Context, rel_frames: float, mode: Literal["jump", "rollout"] = "jump", *, decode: bool = False
    ) -> Imaginer:
        """Return an imaginer of candidates that end ``rel_frames`` protocol frames after the context."""
        ...


class NavStack:
    """Memory, world model and planner of one robot. Sensor trouble becomes a plan's status, never an exception."""

    def __init__(self, model: NavigationModel, config: Config | None = None) -> None:
        self.config = config or Config()
        self.model = model
        self.memory = ShortTermBuffer(self.config.memory, self._encode)
        self._generator = torch.Generator().manual_seed(self.config.seed)
        self._odometry: Odometry | None = None
        self._last: tuple[Goal, Plan] | None = None
        planner, steps_per_frame = self.config.planner, self.config.planner.dt_s * model.rate_hz
        if self.config.imagination == "rollout" and abs(steps_per_frame - 1.0) > 1e-6:
            raise ConfigError(f"planner.dt_s must be {1 / model.rate_hz:g} for a rollout, got {planner.dt_s:g}")
        if abs(self.config.memory.rate_hz - model.rate_hz) > 1e-6:
            raise ConfigError(
                f"memory.rate_hz must be the model's {model.rate_hz:g}, got {self.config.memory.rate_hz:g}"
            )

    def observe(self, frame: Frame, odometry: Odometry) -> Observed:
        """Take what the robot saw and where it was; return what became of the frame."""
        # 1. Observe: the newest odometry tells the present twist.
        # 2. Remember: the buffer encodes and keeps the frame if it is due.
        verdict = self.memory.observe(frame, odometry)
        if verdict in (Observed.KEPT, Observed.BETWEEN):
            self._odometry = odometry
        return verdict

    def plan(self, goal: Goal | None, now_s: float | None = None, clearance: Clearance | None = None) -> Plan:
        """Plan from the newest remembered frame to ``goal``.

        Args:
            goal: image, pose in odom, or both.
            now_s: present time on the clock of the stamps, to refuse stale sensors; None trusts the newest frame.
            clearance: obstacles in the newest remembered frame's base.

        Returns:
            Plan that starts at the newest remembered frame. Its status and message say why there is no path.
        """
        newest = self.memory.newest
        refusal = self._refusal(goal, newest, now_s)
        if refusal is not None or goal is None or newest is None:
            return _no_plan(refusal or (PlanStatus.NO_CONTEXT, ""), newest, self.config.planner.dt_s)
        twist = self.present_twist()
        # 3. Imagine: bind what was seen lately into the world model.
        imaginer = self._imaginer() if goal.image_rgb is not None else _PathsOnly()
        # 4. Score: say what is wanted of an imagined future.
        objectives, weights = self._objectives(goal, newest, twist)
        # 5. Act: search the path whose end is best.
        plan = CemPlanner(self.config.planner, objectives, weights).plan(
            imaginer,
            self._generator,
            stamp_s=newest.stamp_s,
            start_odom_xyyaw=newest.pose_odom_xyyaw,
            initial_twist=twist,
            warm_start=self._warm_start(goal),
            clearance=clearance,
        )
        self._last = (goal, plan)
        return self._with_picture(plan, imaginer) if goal.image_rgb is not None else plan

    def reset(self) -> None:
        """Forget everything, e.g. when the robot was carried away or a new episode begins."""
        self.memory.clear()
        self._odometry, self._last = None, None
        self._generator.manual_seed(self.config.seed)

    def context(self) -> Context | None:
        """Return the newest frames as the world model takes them, or None while there are too few."""
        frames = self.memory.context_frames(self.model.context_frames)
        if not frames:
            return None
        latents = torch.stack([frame.features for frame in frames if frame.features is not None])
        poses = np.stack([frame.pose_odom_xyyaw for frame in frames])
        ages_s = np.array([frame.stamp_s - frames[-1].stamp_s for frame in frames])
        offsets = np.round(ages_s * self.model.rate_hz).tolist()
        return self.model.context_from_frames([frame.frame for frame in frames], poses, offsets, latents=latents)

    def present_twist(self) -> NDArray[np.float64] | None:
        """Return (v m/s, w rad/s) as odometry measured it, else from the last two remembered poses."""
        odometry = self._odometry
        if odometry is not None and odometry.v_mps is not None and odometry.w_radps is not None:
            measured = np.array([odometry.v_mps, odometry.w_radps])
            return measured if np.isfinite(measured).all() else None
        frames = self.memory.context_frames(2)
        if not frames:
            return None
        before, now = frames
        v, w = se2.twist_between(before.pose_odom_xyyaw, now.pose_odom_xyyaw, now.stamp_s - before.stamp_s)
        return np.array([v, w])

    def _encode(self, frame: Frame) -> torch.Tensor:
        return self.model.encode(self.model.images_from_rgb([frame.rgb]))[0]

    def _refusal(
        self, goal: Goal | None, newest: Remembered | None, now_s: float | None
    ) -> tuple[PlanStatus, str] | None:
        if goal is None:
            return PlanStatus.GOAL_MISSING, "no goal was given"
        if newest is None:
            return PlanStatus.NO_CONTEXT, "no frame with odometry has come yet"
        if now_s is not None and not now_s - newest.stamp_s <= self.config.max_sensor_age_s:
            age_s, limit_s = now_s - newest.stamp_s, self.config.max_sensor_age_s
            return PlanStatus.STALE_SENSOR, f"the newest frame is {age_s:.2f} s old, allowed are {limit_s:g} s"
        if goal.image_rgb is not None and len(self.memory) < self.model.context_frames:
            return PlanStatus.NO_CONTEXT, f"{len(self.memory)} of {self.model.context_frames} context frames so far"
        return None

    def _imaginer(self) -> Imaginer:
        context = self.context()
        if context is None:
            raise RuntimeError("the context was checked before")
        rel_frames = self.config.planner.horizon_steps * self.config.planner.dt_s * self.model.rate_hz
        decode = self.config.objective.view_distance.startswith("image")
        return self.model.imaginer(context, rel_frames, self.config.imagination, decode=decode)

    def _objectives(
        self, goal: Goal, newest: Remembered, twist: NDArray[np.float64] | None
    ) -> tuple[list[Objective], dict[str, float]]:
        wanted, planner = self.config.objective, self.config.planner
        known_twist = None if twist is None else torch.from_numpy(twist)
        objectives: list[Objective] = [Smoothness(planner.dt_s, initial_twist=known_twist)]
        weights = {"smoothness": wanted.smoothness_weight}
        if goal.image_rgb is not None:
            image = self.model.images_from_rgb([goal.image_rgb])
            view = view_objective(wanted, image, self.model)
            objectives.append(view)
            weights[view.name] = wanted.view_weight
        if goal.pose_odom_xyyaw is not None:
            target = se2.relative(newest.pose_odom_xyyaw, goal.pose_odom_xyyaw)
            objectives.append(GoalPose(torch.from_numpy(target), wanted.pose_weight, wanted.yaw_weight))
        return objectives, weights

    def _warm_start(self, goal: Goal) -> Plan | None:
        same = self.config.warm_start and self._last is not None and self._last[0] is goal
        return self._last[1] if same and self._last is not None else None

    def _with_picture(self, plan: Plan, imaginer: Imaginer) -> Plan:
        if plan.status is not PlanStatus.OK or not self.config.show_imagined:
            return plan
        path = torch.from_numpy(plan.poses_xyyaw).float()[None]
        return replace(plan, imagined_rgb=imagined_rgb(self.model, imaginer, path, self._generator)[0])


def load_stack(config: Config) -> NavStack:
    """Return a stack with the model and on the device that ``config`` names; raise ConfigError or CheckpointError."""
    from come_nav.world_model.model import DiffusionWorldModel

    model = DiffusionWorldModel.load(find_resource("models", config.model), choose_device(config.device))
    if config.sampler is not None:
        model.sampler = config.sampler
    return NavStack(model, config)


def choose_device(name: str) -> str:
    """Return the torch device that ``auto`` or a name means here; raise ConfigError where it is absent."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device is '{name}', but this machine has no CUDA device; use cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


class _PathsOnly:
    """Imagines nothing: goals that are poses need no pictures."""

    def imagine(self, poses_xyyaw: torch.Tensor, generator: torch.Generator) -> Imagination:
        """Return the paths alone."""
        return Imagination(poses_xyyaw)


def view_objective(wanted: ObjectiveConfig, goal_image: torch.Tensor, model: WorldModel) -> Objective:
    """Return the distance between imagined view and goal image (1, 3, H, W) that ``wanted.view_distance`` names."""
    if wanted.view_distance == "image_l1":
        return ImageDistance(goal_image, "l1", wanted.image_scales)
    if wanted.view_distance == "image_l2":
        return ImageDistance(goal_image, "l2", wanted.image_scales)
    return LatentDistance(model.encode(goal_image), "mse" if wanted.view_distance == "latent" else "cosine")


def imagined_rgb(
    model: WorldModel, imaginer: Imaginer, poses_xyyaw: torch.Tensor, generator: torch.Generator
) -> NDArray[np.uint8]:
    """Return uint8 pictures (S, H, W, 3) of the views imagined at the end of paths (S, T, 3)."""
    imagination = imaginer.imagine(poses_xyyaw, generator)
    images = imagination.images
    if images is None and imagination.latents is not None:
        images = model.decode(imagination.latents)
    if images is None:
        raise PlanningError("the imaginer returns neither images nor latents")
    scaled = ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).cpu().numpy()


def _no_plan(refusal: tuple[PlanStatus, str], newest: Remembered | None, dt_s: float) -> Plan:
    status, message = refusal
    stamp_s = 0.0 if newest is None else newest.stamp_s
    start = np.zeros(3) if newest is None else newest.pose_odom_xyyaw
    return Plan(status, stamp_s, dt_s, np.zeros((0, 3)), start, message=message)
