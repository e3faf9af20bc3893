"""The whole flow on one page: observe, remember, imagine, score, act."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.device.heap import give_back_heap
from come_nav.core.protocols import Imaginer
from come_nav.core.types import Context, Frame, Goal, Odometry, Plan, PlanStatus
from come_nav.localisation.relocalisation import RelocalisationResult, relocalise
from come_nav.memory.short_term import FrameStatus, ShortTermBuffer
from come_nav.navigation.calibrating.robot_calibration import RobotCalibration
from come_nav.navigation.localising.goal_finder import GoalFinder
from come_nav.navigation.localising.robot_localisation import RobotLocalisation
from come_nav.navigation.memories.episode_memories import EpisodeMemories
from come_nav.navigation.navigation_model import NavigationModel
from come_nav.navigation.planning.imagining import (
    Imaginers,
    bound,
    context_of,
    doubt_at_end,
    imagined_rgb,
    imaginers_for,
)
from come_nav.navigation.planning.motion import MotionForesight
from come_nav.navigation.planning.objectives import motion_terms, objectives_for
from come_nav.navigation.planning.present_twist import present_twist
from come_nav.navigation.planning.proposing import Proposer, suggestions
from come_nav.navigation.planning.refusals import check_fits, no_plan, refusal
from come_nav.navigation.planning.warm_start import leads_on
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
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
        localisation: where images were taken, and what odometry has drifted by.
        goals: where goals' images were taken, near the newest frames or among key frames.
        episode: the memories of the whole episode.
        calibration: weights of the experts that follow what came true, where settings say so.
    """

    def __init__(
        self,
        model: NavigationModel,
        settings: NavigationSettings | None = None,
        *,
        background_training: bool = True,
        background_localisation: bool | None = None,
    ) -> None:
        """Take the model and its settings; without ``background_training``, adapters wait for ``episode.train``.

        Key frames are localised in the background where ``background_localisation`` says so, as training is when None;
        else ``observe`` takes the time.

        Raises:
            ConfigError: for settings that do not fit the model.
        """
        self._settings = settings or NavigationSettings()
        check_fits(self._settings, model)
        self.model = model
        self.memory = ShortTermBuffer(
            self._settings.memory, lambda frame: self.model.encode(self.model.images_from_rgb([frame.rgb]))[0]
        )
        waits_for_nobody = background_training if background_localisation is None else background_localisation
        self.localisation = RobotLocalisation(
            self._settings.localisation, self._settings.seed, background=waits_for_nobody
        )
        self.goals = GoalFinder(self.localisation, self.memory)
        self.episode = EpisodeMemories(model, self._settings, background_training=background_training)
        self.localisation.on_correction.append(self.episode.move)
        self.calibration = RobotCalibration(self.episode, self.memory, self._settings)
        self._generator = torch.Generator().manual_seed(self._settings.seed)
        self._proposer = Proposer(self._settings.device)
        self._foresight = MotionForesight(self._settings.device)
        self._proposer.policy(self._settings.planner)  # what is not there is told now, not at the first goal
        self._foresight.model(self._settings)
        self._odometry: Odometry | None = None
        self._last: tuple[Goal, Plan] | None = None
        self._lock, self._episodes = threading.RLock(), 0

    @property
    def settings(self) -> NavigationSettings:
        """What the stack is told. What is set anew counts from the next frame and the next plan on, everywhere."""
        return self._settings

    @settings.setter
    def settings(self, settings: NavigationSettings) -> None:
        check_fits(settings, self.model)
        self._proposer.policy(settings.planner)
        self._foresight.model(settings)
        with self._lock:
            self._settings = self.episode.settings = settings
            self.localisation.settings = settings.localisation

    def observe(self, frame: Frame, odometry: Odometry) -> FrameStatus:
        """Take what the robot saw and where it was; return what became of the frame."""
        with self._lock:
            # 1. Observe: the newest odometry tells the present twist.
            # 2. Remember: the buffer encodes and keeps the frame if it is due.
            status = self.memory.observe(frame.over_footprint(odometry.T_odom_base), odometry)
            if status in (FrameStatus.KEPT, FrameStatus.BETWEEN):
                self._odometry = odometry
            if status is FrameStatus.KEPT and self.memory.newest is not None:
                # 3. Localise: a key frame may tell what odometry has drifted by.
                if not self.episode.frozen:
                    self.localisation.observe(self.memory.newest)
                self.episode.observe(self.memory.newest)
                self.calibration.observe(self.memory.newest)
            return status

    def correct(self, T_map_odom_xyyaw: NDArray[np.float64]) -> None:
        """Take where odom lies in map (3,) from another localiser (slam_toolbox, RTAB-Map); memory moves with it.

        From then on that localiser alone corrects what is remembered. Plans and goals stay in odom.

        Raises:
            DataError: for a pose that is not finite.
        """
        self.localisation.correct(T_map_odom_xyyaw)

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
        registers: bool = True,
    ) -> Plan:
        """Plan from the newest remembered frame to ``goal``.

        A plan with a generator, planner, experts or imaginer of its own stands alone: it neither begins with the plan
        before nor serves the next one.

        Args:
            goal: image, pose in odom, or both.
            now_s: present time on the clock of the stamps, to refuse stale sensors; None trusts the newest frame.
            clearance: obstacles in the newest remembered frame's base; or what tells them for that base's pose (3,) in
                odom, where frames may come meanwhile.
            generator: source of this plan's chance, instead of the stack's own.
            planner: the search of this plan, e.g. another horizon.
            experts: what the imagination looks at in this plan.
            imaginer: what imagines this plan's candidates, instead of the world model.
            registers: whether a goal's image is registered to what the robot has seen; where that is certain the plan
                leads there.

        Returns:
            Plan that starts at the newest remembered frame. Its status and message say why there is no path.
        """
        settings, alone = self._settings, any(own is not None for own in (generator, planner, experts, imaginer))
        search, chance = planner or settings.planner, generator or self._generator
        with self._lock:
            newest, episodes = self.memory.newest, self._episodes
            refused = refusal(goal, self.memory, self.model.context_frames, now_s, settings.max_sensor_age_s)
            if refused is not None or goal is None or newest is None:
                return replace(refused or no_plan(PlanStatus.NO_CONTEXT, "", newest), dt_s=search.dt_s)
            twist, by_view = self.present_twist(), goal.image_rgb is not None
            # 4. Imagine: bind what was seen lately, and what is remembered, into the world model.
            if imaginer is None:
                context = self.context(experts) if by_view or settings.show_imagined else None
                found = imaginers_for(by_view, context, self.episode, experts, search, settings)
            else:
                found = Imaginers(imaginer, imaginer if settings.show_imagined else None)
            # 5. Score: say what is wanted of an imagined future.
            wanted, robot, start = settings.objective, settings.robot, newest.pose_odom_xyyaw
            objectives, weights = objectives_for(goal, start, twist, search.dt_s, wanted, self.model, robot)
            warm_start = None if alone else self._warm_start(goal)
            recent, proposing = self.goals.recent(), self._proposer.policy(search) if by_view else None
            seen = [] if proposing is None else self.memory.newest_frames(proposing.frames)
            lately = self.memory.newest_frames(settings.memory.capacity) if by_view else []
        proposed = self._proposer.paths([own.frame.rgb for own in seen], goal.image_rgb, search, robot, twist, chance)
        tried, registered = registers and by_view and self.goals.tries(recent, settings.localisation), None
        if tried:
            registered = self.goals.registered(goal, recent, twist, search, settings.localisation, robot)
        if registered is not None:
            objectives.append(registered.objective)
            weights[registered.objective.name] = settings.localisation.goal_weight
        elif by_view:  # what is imagined is doubtful; a pose and a registered image are certain
            terms, own_weights = motion_terms(
                twist, search.dt_s, settings.motion_prior, robot, lambda: self._foresight.term(settings, lately, search)
            )
            objectives, weights = [*objectives, *terms], weights | own_weights
        if clearance is not None and not isinstance(clearance, Clearance):
            clearance = clearance(newest.pose_odom_xyyaw)
        if clearance is not None:
            objectives.append(clearance)
            weights[clearance.name] = wanted.clearance_weight
        # 6. Act: search the path whose end is best.
        search = search if by_view else settings.pose_search.instead_of(search)
        plan = CemPlanner(search, objectives, weights, robot=robot).plan(
            found.candidates,
            chance,
            stamp_s=newest.stamp_s,
            start_odom_xyyaw=newest.pose_odom_xyyaw,
            initial_twist=twist,
            warm_start=warm_start,
            suggested_xyyaw=suggestions(None if registered is None else registered.path_xyyaw[None], proposed),
        )
        plan = replace(plan, doubt=doubt_at_end(found, plan, wanted.doubt_draws, settings.seed))
        if by_view:
            give_back_heap()
        told = [] if registered is None else [registered.message]
        plan = replace(plan, message="; ".join(filter(None, [plan.message, *found.warnings, *told])))
        if tried:
            plan = replace(plan, registered_to="nothing" if registered is None else registered.sighting.found_by)
        with self._lock:
            if episodes == self._episodes and not alone:
                self._last = (goal, plan)
        if found.shown is None or plan.status is not PlanStatus.OK:
            return plan
        path = torch.from_numpy(plan.poses_xyyaw).float()[None]
        return replace(plan, imagined_rgb=imagined_rgb(self.model, found.shown, path, chance)[0])

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
        names, older_frames = self.episode.in_use(experts).names, (experts or self._settings.experts).older_frames
        return context_of(self.model, self.memory, names, older_frames, self.episode.frames)

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
        """Return (vx m/s, vy m/s, w rad/s) as odometry says, else from the last two poses; None = unknown."""
        return present_twist(self._odometry, self.memory)

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
            self.localisation.reset()
            self.episode.reset()
            self.calibration.clear()
            self._generator.manual_seed(self._settings.seed)

    def start(self) -> None:
        """Go on with what :meth:`close` ended."""
        self.episode.start()

    def close(self) -> None:
        """End what runs in the background; what was learnt stays in use."""
        self.localisation.close()
        self.episode.close()

    def _warm_start(self, goal: Goal) -> Plan | None:
        if not self._settings.warm_start or self._last is None or not leads_on(self._last[0], goal):
            return None
        return self._last[1]
