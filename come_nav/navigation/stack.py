"""The whole flow on one page: observe, remember, imagine, score, act."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.core.protocols import Imaginer
from come_nav.core.types import Context, Frame, Goal, Odometry, Plan, PlanStatus
from come_nav.localisation.relocalisation import RelocalisationResult, relocalise
from come_nav.memory.short_term import FrameStatus, Remembered, ShortTermBuffer
from come_nav.navigation.episode_memories import EpisodeMemories
from come_nav.navigation.imagining import PathsOnly, bound, context_of, imagined_rgb
from come_nav.navigation.navigation_model import NavigationModel
from come_nav.navigation.objectives import objectives_for
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
from come_nav.navigation.warm_start import leads_on
from come_nav.planning.cem import CemPlanner
from come_nav.planning.objectives import Clearance
from come_nav.planning.settings import PlannerSettings

ClearanceFrom = Callable[[NDArray[np.float64]], Clearance | None]


class NavStack:
    """Memory, world model and planner of one robot. A sensor that fails becomes a plan's status, never an exception.

    One thread may observe while another plans: a plan starts at the newest frame of the moment when it was asked for.

    Attributes:
        model: the world model.
        memory: the newest frames.
        episode: the memories of the whole episode.
    """

    def __init__(
        self,
        model: NavigationModel,
        settings: NavigationSettings | None = None,
        *,
        background_training: bool = True,
    ) -> None:
        """Take the model and its settings; without ``background_training``, adapters wait for ``episode.train``.

        Raises:
            ConfigError: for settings that do not fit the model.
        """
        self._settings = settings or NavigationSettings()
        _check(self._settings, model)
        self.model = model
        self.memory = ShortTermBuffer(self._settings.memory, self._encode)
        self.episode = EpisodeMemories(model, self._settings, background_training=background_training)
        self._generator = torch.Generator().manual_seed(self._settings.seed)
        self._odometry: Odometry | None = None
        self._last: tuple[Goal, Plan] | None = None
        self._lock, self._episodes = threading.RLock(), 0

    @property
    def settings(self) -> NavigationSettings:
        """What the stack is told. What is set anew counts from the next frame and the next plan on, everywhere."""
        return self._settings

    @settings.setter
    def settings(self, settings: NavigationSettings) -> None:
        _check(settings, self.model)
        with self._lock:
            self._settings = self.episode.settings = settings

    def observe(self, frame: Frame, odometry: Odometry) -> FrameStatus:
        """Take what the robot saw and where it was; return what became of the frame."""
        with self._lock:
            # 1. Observe: the newest odometry tells the present twist.
            # 2. Remember: the buffer encodes and keeps the frame if it is due.
            status = self.memory.observe(frame.over_footprint(odometry.T_odom_base), odometry)
            if status in (FrameStatus.KEPT, FrameStatus.BETWEEN):
                self._odometry = odometry
            if status is FrameStatus.KEPT and self.memory.newest is not None:
                self.episode.observe(self.memory.newest)
            return status

    def plan(
        self,
        goal: Goal | None,
        now_s: float | None = None,
        clearance: Clearance | ClearanceFrom | None = None,
        *,
        generator: torch.Generator | None = None,
        planner: PlannerSettings | None = None,
        experts: ExpertsSettings | None = None,
        imaginer: Imaginer | None = None,
    ) -> Plan:
        """Plan from the newest remembered frame to ``goal``.

        A plan with one of the last four stands alone: it neither begins with the plan before nor serves the next one.

        Args:
            goal: image, pose in odom, or both.
            now_s: present time on the clock of the stamps, to refuse stale sensors; None trusts the newest frame.
            clearance: obstacles in the newest remembered frame's base; or what tells them for that base's pose (3,) in
                odom, where frames may come meanwhile.
            generator: source of this plan's chance, instead of the stack's own.
            planner: the search of this plan, e.g. another horizon.
            experts: what the imagination looks at in this plan.
            imaginer: what imagines this plan's candidates, instead of the world model.

        Returns:
            Plan that starts at the newest remembered frame. Its status and message say why there is no path.
        """
        settings, alone = self._settings, any(own is not None for own in (generator, planner, experts, imaginer))
        search, chance = planner or settings.planner, generator or self._generator
        with self._lock:
            newest, episodes = self.memory.newest, self._episodes
            refusal = self._refusal(goal, newest, now_s)
            if refusal is not None or goal is None or newest is None:
                return _no_plan(refusal or (PlanStatus.NO_CONTEXT, ""), newest, search.dt_s)
            twist = self.present_twist()
            # 3. Imagine: bind what was seen lately, and what is remembered, into the world model.
            imagining, showing, warnings = self._imaginers(goal, search, experts, imaginer)
            # 4. Score: say what is wanted of an imagined future.
            wanted = settings.objective
            objectives, weights = objectives_for(goal, newest.pose_odom_xyyaw, twist, search.dt_s, wanted, self.model)
            warm_start = None if alone else self._warm_start(goal)
        if clearance is not None and not isinstance(clearance, Clearance):
            clearance = clearance(newest.pose_odom_xyyaw)
        if clearance is not None:
            objectives.append(clearance)
            weights[clearance.name] = wanted.clearance_weight
        # 5. Act: search the path whose end is best.
        plan = CemPlanner(
            search if goal.image_rgb is not None else settings.pose_search.instead_of(search), objectives, weights
        ).plan(
            imagining,
            chance,
            stamp_s=newest.stamp_s,
            start_odom_xyyaw=newest.pose_odom_xyyaw,
            initial_twist=twist,
            warm_start=warm_start,
        )
        plan = replace(plan, message="; ".join([plan.message, *warnings] if plan.message else warnings))
        with self._lock:
            if episodes == self._episodes and not alone:
                self._last = (goal, plan)
        if showing is None or plan.status is not PlanStatus.OK:
            return plan
        path = torch.from_numpy(plan.poses_xyyaw).float()[None]
        return replace(plan, imagined_rgb=imagined_rgb(self.model, showing, path, chance)[0])

    def relocalise(
        self,
        image_rgb: NDArray[np.uint8],
        starts_odom_xyyaw: NDArray[np.float64],
        stopped: Callable[[], bool] = lambda: False,
    ) -> RelocalisationResult | None:
        """Return where an image (H, W, 3) was taken, as far as the spatial memory knows; None without one.

        The search begins at ``starts_odom_xyyaw`` (K, 3), the most promising first, and ends early once ``stopped()``.
        """
        wanted = self.model.images_from_rgb([image_rgb])[0]
        rough, exact = (self.episode.difference_to(wanted, rough) for rough in (True, False))
        if rough is None or exact is None:
            return None
        return relocalise(rough, exact, starts_odom_xyyaw, self._generator, self._settings.relocalisation, stopped)

    def context(self, experts: ExpertsSettings | None = None) -> Context | None:
        """Return the newest frames as the world model takes them, or None while there are too few."""
        return context_of(self.model, self.memory, experts or self._settings.experts)

    def imaginer(
        self, experts: ExpertsSettings | None = None, decode: bool = False, planner: PlannerSettings | None = None
    ) -> Imaginer | None:
        """Return what imagines from the newest frames, with images where ``decode``; None while there are too few."""
        context = self.context(experts)
        if context is None:
            return None
        model, _ = self.episode.model(experts)
        return bound(model, context, planner or self._settings.planner, self._settings, decode)

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

    def forget_recent(self) -> None:
        """Forget the newest frames, odometry and the last plan; what the episode taught stays."""
        with self._lock:
            self.memory.clear()
            self._odometry, self._last = None, None
            self._episodes += 1

    def reset(self) -> None:
        """Forget everything, e.g. when the robot was carried away or a new episode begins."""
        with self._lock:
            self.forget_recent()
            self.episode.reset()
            self._generator.manual_seed(self._settings.seed)

    def close(self) -> None:
        """End what runs in the background."""
        self.episode.close()

    def _encode(self, frame: Frame) -> torch.Tensor:
        return self.model.encode(self.model.images_from_rgb([frame.rgb]))[0]

    def _refusal(
        self, goal: Goal | None, newest: Remembered | None, now_s: float | None
    ) -> tuple[PlanStatus, str] | None:
        if goal is None:
            return PlanStatus.GOAL_MISSING, "no goal was given"
        if newest is None:
            return PlanStatus.NO_CONTEXT, "no frame with odometry has come yet"
        if now_s is not None and not now_s - newest.stamp_s <= self._settings.max_sensor_age_s:
            age_s, limit_s = now_s - newest.stamp_s, self._settings.max_sensor_age_s
            return PlanStatus.STALE_SENSOR, f"the newest frame is {age_s:.2f} s old, allowed are {limit_s:g} s"
        if goal.image_rgb is not None and len(self.memory) < self.model.context_frames:
            return PlanStatus.NO_CONTEXT, f"{len(self.memory)} of {self.model.context_frames} context frames so far"
        return None

    def _imaginers(
        self, goal: Goal, planner: PlannerSettings, experts: ExpertsSettings | None, given: Imaginer | None
    ) -> tuple[Imaginer, Imaginer | None, list[str]]:
        """Return what imagines candidates, what imagines the view at the end of a plan if wanted, and warnings."""
        settings, by_view = self._settings, goal.image_rgb is not None
        if given is not None:
            return given, given if settings.show_imagined else None, []
        context = self.context(experts) if by_view or settings.show_imagined else None
        if context is None:
            return PathsOnly(), None, []
        model, warnings = self.episode.model(experts)
        decode = settings.objective.view_distance.startswith("image")
        imaginer = bound(model, context, planner, settings, decode) if by_view else PathsOnly()
        showing = bound(model, context, planner, settings, True) if settings.show_imagined else None
        return imaginer, showing, warnings if by_view else []

    def _warm_start(self, goal: Goal) -> Plan | None:
        if not self._settings.warm_start or self._last is None or not leads_on(self._last[0], goal):
            return None
        return self._last[1]


def _check(settings: NavigationSettings, model: NavigationModel) -> None:
    dt_s = settings.planner.dt_s
    if settings.imagination == "rollout" and abs(dt_s * model.rate_hz - 1.0) > 1e-6:
        raise ConfigError(f"planner.dt_s must be {1 / model.rate_hz:g} for a rollout, got {dt_s:g}")
    if abs(settings.memory.rate_hz - model.rate_hz) > 1e-6:
        raise ConfigError(f"memory.rate_hz must be the model's {model.rate_hz:g}, got {settings.memory.rate_hz:g}")


def _no_plan(refusal: tuple[PlanStatus, str], newest: Remembered | None, dt_s: float) -> Plan:
    status, message = refusal
    stamp_s = 0.0 if newest is None else newest.stamp_s
    start = np.zeros(3) if newest is None else newest.pose_odom_xyyaw
    return Plan(status, stamp_s, dt_s, np.zeros((0, 3)), start, message=message)
