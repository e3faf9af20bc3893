"""From goals to plans without ROS: recognise the goal's place, lead there through memory, retreat, arrive.

A robot's node and a simulator's loop drive it alike::

    navigator = Navigator(stack, NavigatorSettings())
    navigator.observe(frame, odometry)               # as often as frames come
    navigator.obstacles.see(points_odom_xyz, stamp_s)  # whenever there is a new cloud
    navigator.begin(GoalRequest(image_rgb=image))    # or a pose, a time, a place, or explore=True
    step = navigator.step(now_s, pose_odom_xyyaw)    # as often as plans are wanted
    if step.drive is not None:                       # None: go on with the plan before
        follower.set_plan(step.drive)                # one that is not OK stands for standing still
    if follower is stuck:
        navigator.blocked(stamp_s, pose_odom_xyyaw)  # the next steps back off and plan around
    step.state                                       # ACTIVE until REACHED, FAILED or CANCELLED

One thread observes, another steps; ``begin``, ``cancel``, ``blocked`` and ``forget`` may be called by any thread. Only
``step`` takes long: it searches memory for where a new goal's image was taken, which a later goal or a cancellation
ends early, and it searches the plan. All times are on the clock of the stamps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.types import Frame, Goal, Odometry, Plan, PlanStatus
from come_nav.memory.keyframes import Keyframes
from come_nav.memory.short_term import FrameStatus, Remembered
from come_nav.navigation.exploring import Explorer
from come_nav.navigation.goals.corrected import follow_correction, renew_goal
from come_nav.navigation.goals.guide import Guide
from come_nav.navigation.goals.mission import SEARCHING, Mission, MissionState
from come_nav.navigation.goals.obstacles import ObstacleMap
from come_nav.navigation.goals.places import Places
from come_nav.navigation.goals.recognition import Recognition, encoded
from come_nav.navigation.goals.rescue import Rescue
from come_nav.navigation.goals.routes import Routes
from come_nav.navigation.goals.step import GoalRequest, Progress, Step
from come_nav.navigation.planning.refusals import no_plan, refusal
from come_nav.navigation.settings import NavigatorSettings
from come_nav.navigation.stack import NavStack
from come_nav.planning.grid_route import Route, RouteStatus

BLIND = (PlanStatus.STALE_SENSOR, PlanStatus.NO_CONTEXT)  # nothing was tried: that is not being stuck
MOST_REOPENED = 3  # times that an arrival is taken back; a robot does not waver for ever

__all__ = ["GoalRequest", "Navigator", "Progress", "Step"]


class Navigator:
    """Drives one robot from goal to goal; see the module's text for how it is used.

    Attributes:
        stack: what sees, remembers and plans.
        places: key frames and the ways between them.
        guide: turns the goal into subgoals.
        mission: the goal, and how far it has come.
        obstacles: what to keep away from.
        routes: whole ways over what is known.
    """

    def __init__(
        self,
        stack: NavStack,
        settings: NavigatorSettings | None = None,
        log: Callable[[str], object] = lambda text: None,
    ) -> None:
        """Take the stack, which others may go on using; ``log`` is told where images were found."""
        self._settings = settings or NavigatorSettings()
        self.stack = stack
        self.places = Places(Keyframes(self._settings.keyframes), lambda images: encoded(stack, images))
        self.guide = Guide(self.places, self._settings.guiding)
        self.mission = Mission(self._settings.arrival)
        self.obstacles = ObstacleMap(self._settings.obstacles)
        stack.localisation.on_correction.append(self.places.move)
        self._T_map_odom_xyyaw = self.places.T_map_odom_xyyaw  # as goals know it
        self._found_again = stack.localisation.found_again
        self._recognition = Recognition(stack, self.places, self._settings.recognition, log)
        self.routes = Routes(self.places, self.obstacles, stack.episode)
        self._rescue = Rescue(self.mission, self.guide, self.obstacles, self.routes)
        self._rescue.rules = self._settings.recovery
        self._explorer = Explorer(stack, lambda: self.places.poses_xyyaw)
        self._goal_latents: torch.Tensor | None = None
        self._sought: Goal | None = None  # its place is still to be looked for in memory
        self._doubted: Goal | None = None  # its place is looked for anew once the robot has looked around
        self._pose_now: Callable[[], NDArray[np.float64] | None] | None = None  # of a goal of another frame
        self._lock = threading.RLock()
        self._changes = self._episodes = 0  # goals that came or went, episodes that ended

    @property
    def settings(self) -> NavigatorSettings:
        """Rules. What is set anew counts from the next step on; key frames' settings from the next start on."""
        return self._settings

    @settings.setter
    def settings(self, settings: NavigatorSettings) -> None:
        with self._lock:
            self._settings = settings
            self.mission.rules, self.guide.rules = settings.arrival, settings.guiding
            self.obstacles.settings, self._recognition.settings = settings.obstacles, settings.recognition
            self._rescue.rules = settings.recovery

    # -- what comes in -------------------------------------------------------------------------------------------------

    def observe(self, frame: Frame, odometry: Odometry) -> FrameStatus:
        """Remember what the robot saw and where it was; return what became of the frame."""
        status = self.stack.observe(frame, odometry)
        newest = self.stack.memory.newest
        if status is FrameStatus.KEPT and newest is not None:
            self.places.observe(frame, odometry, newest.features)
        return status

    def correct(self, T_map_odom_xyyaw: NDArray[np.float64]) -> None:
        """Take where odom lies in map (3,) from another localiser; what is remembered moves with it, and so do goals.

        Told for the first time it only says where its map lies: in odom, goals stay where they are.

        Raises:
            DataError: for a pose that is not finite.
        """
        with self._lock:
            first = self.stack.localisation.outside_xyyaw is None
            self.stack.correct(T_map_odom_xyyaw)
            if first:
                self._T_map_odom_xyyaw = self.places.T_map_odom_xyyaw

    def begin(self, request: GoalRequest) -> Goal | None:
        """Take a new goal, which the next step looks for; the one before is dropped. Return what it means.

        Raises:
            DataError: where it is no goal, or no place is remembered; the goal before then stays.
            ConfigError: to explore with a policy that needs a goal (``planner.proposals``), likewise.
        """
        if request.explore:
            self._explorer.policy()
        goal = request.goal(self.places.keyframes)
        latents = None if goal is None or goal.image_rgb is None else self._recognition.latents(goal.image_rgb)
        with self._lock:
            self._changes += 1
            self._T_map_odom_xyyaw = self.places.T_map_odom_xyyaw
            self._goal_latents, self._pose_now = latents, request.pose_now
            self.mission.begin(goal)
            self._rescue.begin()
            self.guide.begin(goal)
            seeks = self._settings.recognises and goal is not None and goal.pose_odom_xyyaw is None
            self._sought, self._doubted = (goal if seeks else None), None
            if self._sought is not None:
                self.mission.doing(SEARCHING)
        return goal

    def cancel(self, reason: str = "cancelled") -> None:
        """End the mission, if one is under way."""
        with self._lock:
            self._changes += 1
            self._sought = None
            self.mission.cancel(reason)

    def blocked(self, stamp_s: float, blocked_odom_xyyaw: NDArray[np.float64]) -> None:
        """Take when, and the pose (3,) of a robot that faces what blocks it (whichever way its own front points)."""
        with self._lock:
            self.obstacles.touch(blocked_odom_xyyaw, stamp_s)
            self._rescue.blocked(stamp_s, blocked_odom_xyyaw)

    def forget(self, everything: bool = False, T_before_after_xyyaw: NDArray[np.float64] | None = None) -> None:
        """Begin a new episode: the robot may have been carried; with ``everything`` key frames are forgotten too.

        Where odometry began anew and ``T_before_after_xyyaw`` (3,) tells where the new odom lies in the one before,
        nothing but the newest frames is forgotten: memory, obstacles and the goal stay where they are in the world.
        """
        with self._lock:
            self._episodes += 1
            if T_before_after_xyyaw is not None:
                self.stack.forget_recent()
                self.stack.localisation.rebase(T_before_after_xyyaw)
                self.stack.episode.reset(T_before_after_xyyaw)
                self.obstacles.rebase(T_before_after_xyyaw)
                self.places.rebase(T_before_after_xyyaw)
                return
            kept = None if everything else self.stack.localisation.state()
            self.stack.reset()
            if kept is not None:  # the robot looks for itself among them
                self.stack.localisation.reset(kept, carried=True)
            self.obstacles.forget()
            self.places.begin_leg()
            if everything:
                self.places.clear()

    # -- what comes out ------------------------------------------------------------------------------------------------

    def step(
        self,
        now_s: float,
        pose_odom_xyyaw: NDArray[np.float64] | None = None,
        overtaken: Callable[[], bool] = lambda: False,
    ) -> Step:
        """Go one step on: look for a new goal's place, back off from what blocks, or plan.

        Args:
            now_s: present time, to refuse stale sensors.
            pose_odom_xyyaw: (3,) where the robot is, where that is known better than by the newest frame.
            overtaken: whether a search of memory has become pointless for a reason of the caller's.
        """
        with self._lock:
            if self._found_again != self.stack.localisation.found_again:  # which moved memory: goals in odom stay
                self._found_again = self.stack.localisation.found_again
                self._T_map_odom_xyyaw = self.places.T_map_odom_xyyaw
            self._T_map_odom_xyyaw = follow_correction(
                self.mission, self.guide, self._T_map_odom_xyyaw, self.places.T_map_odom_xyyaw
            )
            if self._pose_now is not None and self.mission.active:
                renew_goal(self.mission, self.guide, self._pose_now())
            self.obstacles.expire(now_s)
            changes = self._changes

        def pointless() -> bool:
            return changes != self._changes or overtaken()

        if self.mission.active:
            self._look_for_goal(pointless)
        if not self.mission.active or pointless():
            return Step(self.mission.state)
        newest = self.stack.memory.newest
        here = newest.pose_odom_xyyaw if pose_odom_xyyaw is None and newest is not None else pose_odom_xyyaw
        if here is not None and not self.obstacles.blindness(now_s):
            busy, plan = self._rescue.manoeuvre(now_s, here)
            if busy:
                return Step(self.mission.state, plan, retreating=True)
            with self._lock:
                self._sought, self._doubted = self._doubted or self._sought, None
        return self._plan(now_s, pose_odom_xyyaw, pointless)

    def path_to(
        self,
        pose_odom_xyyaw: NDArray[np.float64],
        now_s: float,
        start_odom_xyyaw: NDArray[np.float64] | None = None,
    ) -> Route:
        """Return the whole way to a pose (3,) for somebody else who drives; the robot's own mission is not touched.

        It leads over key frames and round obstacles, from ``start_odom_xyyaw`` (3,) or from where the robot is.
        """
        self.obstacles.expire(now_s)
        newest, most_s = self.stack.memory.newest, self.stack.settings.max_sensor_age_s
        unready = refusal(Goal(pose_odom_xyyaw=pose_odom_xyyaw), self.stack.memory, 0, now_s, most_s)
        unready = unready or _blind(self.obstacles, now_s, newest)
        if unready is not None or newest is None:
            return Route(RouteStatus.NOT_READY, message="no frame" if unready is None else unready.message)
        start = newest.pose_odom_xyyaw if start_odom_xyyaw is None else start_odom_xyyaw
        return self.routes.route(start, pose_odom_xyyaw, leaves=start_odom_xyyaw is None)

    def progress(self, stamp_s: float = 0.0, pose_odom_xyyaw: NDArray[np.float64] | None = None) -> Progress:
        """Return how far the mission is; time and pose are the newest frame's where not given."""
        newest, mission = self.stack.memory.newest, self.mission
        if pose_odom_xyyaw is None:
            stamp_s = stamp_s if newest is None else newest.stamp_s
            pose_odom_xyyaw = np.zeros(3) if newest is None else newest.pose_odom_xyyaw
        difference, way_xy = self._recognition.difference(self._goal_latents), self.guide.way_xy
        left_m = float("nan") if way_xy is None else float(np.hypot(*np.diff(way_xy, axis=0).T).sum())
        unlike = float("nan") if difference is None else difference
        activity = self._rescue.activity
        return Progress(
            stamp_s, pose_odom_xyyaw, mission.message, unlike, left_m, mission.state, mission.code, activity
        )

    # -- one step ------------------------------------------------------------------------------------------------------

    def _look_for_goal(self, overtaken: Callable[[], bool]) -> None:
        """Find out where a new goal's image was taken, if memory knows."""
        with self._lock:
            goal, latents, self._sought = self._sought, self._goal_latents, None
        if goal is None or goal.image_rgb is None or latents is None:
            return
        found = self._recognition.find(goal.image_rgb, latents, overtaken, goal.camera)
        with self._lock:
            self._T_map_odom_xyyaw = self.places.T_map_odom_xyyaw
            if self.mission.goal is goal:  # else it was dropped meanwhile
                if found.pose_odom_xyyaw is None and self._settings.recognition.unknown == "refuse":
                    self.mission.fail("NOT_RECOGNISED", found.message)
                    return
                known = goal if found.pose_odom_xyyaw is None else replace(goal, pose_odom_xyyaw=found.pose_odom_xyyaw)
                self.mission.found(known)
                self.guide.begin(known, found.rough_xyyaw)

    def _plan(self, now_s: float, pose_odom_xyyaw: NDArray[np.float64] | None, overtaken: Callable[[], bool]) -> Step:
        with self._lock:
            marks, goal, newest = (self._changes, self._episodes), self.mission.goal, self.stack.memory.newest
            if not self.mission.active:
                return Step(self.mission.state)
            target, final = goal, True
            if goal is not None and newest is not None and self._settings.use_places:
                target, final = self.guide.target(newest.pose_odom_xyyaw, self.obstacles.clear)
            way_xy = self.guide.way_xy
        started_s = time.monotonic()
        plan = _blind(self.obstacles, now_s, newest)
        if plan is None and target is None:
            plan = self._explorer.plan(now_s, self.obstacles.clearance)
        elif plan is None and target is not None:
            sought = target if self._settings.use_imagination else _without_image(target)
            plan = self.stack.plan(sought, now_s, self.obstacles.clearance)
        assert plan is not None
        duration_s = time.monotonic() - started_s
        seen = self.stack.memory.newest
        if seen is not None:  # who tells of obstacles may have died while the search ran: its plan is not driven
            plan = _blind(self.obstacles, max(now_s, seen.stamp_s), seen) or plan
        with self._lock:
            if marks != (self._changes, self._episodes):
                return Step(self.mission.state)  # for a goal, or in an episode, that is over
            here = plan.start_odom_xyyaw if pose_odom_xyyaw is None else pose_odom_xyyaw
            state = self.mission.evaluate(plan, here, self._recognition.difference(self._goal_latents), final)
            if goal is None and plan.status is PlanStatus.ALL_IN_COLLISION:
                self._rescue.look_around()
            elif plan.status not in BLIND:
                self._rescue.check(now_s, here)
        if state is MissionState.REACHED and goal is not None and goal.image_rgb is not None:
            self._confirm(goal, goal.image_rgb, here, overtaken)
        return Step(self.mission.state, plan, target, way_xy=way_xy, duration_s=duration_s)

    def _confirm(
        self,
        goal: Goal,
        image_rgb: NDArray[np.uint8],
        here_odom_xyyaw: NDArray[np.float64],
        overtaken: Callable[[], bool],
    ) -> None:
        """Look once more where an image was taken whose place seems reached: the robot stands near it now.

        Its features tell where they can, at most ``MOST_REOPENED`` times; else memory is asked about an image that was
        reached by its view alone, as it has seen more meanwhile. Where it would sooner look for that image elsewhere,
        without being sure, the arrival is taken back: the robot looks around, asks again and goes on.
        """
        latents = self._goal_latents
        if latents is None or not self._settings.recognises:
            return
        by_features = self.stack.goals.has_features(image_rgb)
        if (goal.pose_odom_xyyaw is not None and not by_features) or self.mission.reopened >= MOST_REOPENED:
            return
        found = self._recognition.again(image_rgb, latents, overtaken, goal.camera)
        place = found.pose_odom_xyyaw
        with self._lock:
            if self.mission.goal is not goal or overtaken():
                return
            if place is None:
                guess = found.guess_odom_xyyaw
                if (
                    goal.pose_odom_xyyaw is None
                    and guess is not None
                    and not self.mission.at_goal(here_odom_xyyaw, guess)
                ):
                    self.mission.reopen(None, MOST_REOPENED)
                    self._rescue.look_around()
                    self._doubted = goal
                return
            if self.mission.at_goal(here_odom_xyyaw, place):
                self.mission.confirm(se2.relative(here_odom_xyyaw, place))
                return
            elsewhere = replace(goal, pose_odom_xyyaw=place)
            self.mission.reopen(elsewhere, MOST_REOPENED)
            self.guide.begin(elsewhere)


def _blind(obstacles: ObstacleMap, now_s: float, newest: Remembered | None) -> Plan | None:
    """Return the plan that says why obstacles are not seen; None where they are, or do not count."""
    blindness = obstacles.blindness(now_s)
    return no_plan(PlanStatus.STALE_SENSOR, blindness, newest) if blindness else None


def _without_image(target: Goal) -> Goal | None:
    """Return what is left to score paths by where nothing is imagined; None where the pose is not known."""
    return None if target.pose_odom_xyyaw is None else Goal(pose_odom_xyyaw=target.pose_odom_xyyaw)
