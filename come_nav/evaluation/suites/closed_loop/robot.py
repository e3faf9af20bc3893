"""A simulated robot with NavStack, Navigator and path follower: what the nodes do over ROS, in one loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.core.types import Plan, PlanStatus
from come_nav.evaluation.suites.closed_loop.course import Course
from come_nav.evaluation.suites.closed_loop.settings import ClosedLoopSettings
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.settings import LATENT, RGB
from come_nav.navigation.goals.mission import MissionState
from come_nav.navigation.navigator import GoalRequest, Navigator
from come_nav.navigation.topological import MapFollower
from come_nav.planning.follower import FollowerSettings, PathFollower
from come_nav.planning.retiming import retimed
from come_nav.planning.settings import RobotLimits
from come_nav.planning.stall import StallDetector
from come_nav.sim.builtin import BuiltInSimulator

TICK_S = 0.05
OBSTACLES_PERIOD_S = 0.5
OBSTACLES_RANGE_M = 5.0
NODE_PERIOD_S = 1.0  # of topological maps, as create_topomap's
STAND_S = 1.5  # standing before a goal is given: the context holds no way that was led
FOLLOWER = FollowerSettings(
    limits=RobotLimits(v_min_mps=-0.2, v_max_mps=0.6, w_max_radps=1.5, a_max_mps2=1.0, alpha_max_radps2=3.0)
)
STAND = Plan(PlanStatus.GOAL_MISSING, 0.0, 1.0, np.zeros((0, 3)), np.zeros(3))


class SimulatedRobot:
    """Camera, odometry, memory and wheels of one robot in one world; time passes in ticks of 50 ms.

    Attributes:
        simulator: the truth.
        navigator: what drives it, once it is told to.
        driven_world_xy: positions (2,) of all ticks.
    """

    def __init__(
        self, simulator: BuiltInSimulator, navigator: Navigator, course: Course, settings: ClosedLoopSettings
    ) -> None:
        """Take the simulator, which stands where the course begins; raise ConfigError for a holonomic robot."""
        self.simulator, self.navigator, self._course, self._settings = simulator, navigator, course, settings
        self._robot = navigator.stack.settings.robot
        if self._robot.sideways:
            raise ConfigError(
                "robot.kinematics holonomic: the simulated robot cannot move sideways; set differential or car"
            )
        self._follower, self._stall = PathFollower(FOLLOWER, self._robot), StallDetector()
        spatial = navigator.stack.episode.spatial
        # Latents lie too far apart to tell what is in the way: colours are then remembered beside them.
        own = spatial is None or spatial.config.features == LATENT
        colours = replace(navigator.stack.settings.spatial, features=RGB)
        self._cloud = SpatialMemory(colours) if own or spatial is None else spatial
        self._fills_cloud = own
        self._pending: list[tuple[float, Plan]] = []  # when a plan is ready, and the plan
        self._next_frame_s = self._next_obstacles_s = self._next_plan_s = 0.0
        self._blocked_s = self._newest_stamp_s = float("-inf")
        self.driven_world_xy: list[NDArray[np.float64]] = []
        self._seen: list[NDArray[np.uint8]] | None = None  # of the nodes of a map, while one is made
        self._next_node_s = 0.0

    @property
    def now_s(self) -> float:
        """Simulated time."""
        return self.simulator.time_s

    # -- led by hand -------------------------------------------------------------------------------------------------

    def explore(self, tell: Callable[[], object] = lambda: None) -> float:
        """Be led through the whole course, and be turned around in each room; return how long that took, s."""
        began_s = self.now_s
        for leg in self._course.legs:
            self._lead(leg)
            self._turn(2.0 * math.pi)
            tell()
        return self.now_s - began_s

    def stand_at(self, pose_world_xyyaw: NDArray[np.float64]) -> None:
        """Be led to a pose (3,), and stand still long enough for a context."""
        way = self._course.way(self.simulator.pose_world_xyyaw, pose_world_xyyaw)
        if way is not None:
            self._lead(way)
        self._turn(float(se2.wrap_angle(pose_world_xyyaw[2] - self.simulator.pose_world_xyyaw[2])))
        until_s = self.now_s + STAND_S
        while self.now_s < until_s:
            self._tick(0.0, 0.0)

    def _lead(self, way_xy: NDArray[np.float64]) -> None:
        """Drive along a way (N, 2) by hand, with a look ahead of 0.35 m."""
        end_s, done = self.now_s + 300.0, 0
        while self.now_s < end_s and np.hypot(*(way_xy[-1] - self.simulator.pose_world_xyyaw[:2])) > 0.15:
            pose = self.simulator.pose_world_xyyaw
            done += int(np.hypot(*(way_xy[done : done + 8] - pose[:2]).T).argmin())
            beyond = np.flatnonzero(np.hypot(*(way_xy[done:] - pose[:2]).T) > 0.35)
            aim = way_xy[done + beyond[0]] if len(beyond) else way_xy[-1]
            x, y = se2.transform_points(se2.inverse(pose), aim[None])[0]
            bearing = math.atan2(y, x)
            v_mps = 0.5 * max(0.0, math.cos(bearing)) ** 2 if abs(bearing) < 1.0 else 0.0
            self._tick(v_mps, max(-1.2, min(1.2, 2.5 * bearing)))

    def _turn(self, angle_rad: float) -> None:
        last, left = self.simulator.pose_world_xyyaw[2], angle_rad
        end_s = self.now_s + 60.0
        while abs(left) > 0.05 and self.now_s < end_s:
            self._tick(0.0, max(-0.9, min(0.9, 2.0 * left)))
            now = self.simulator.pose_world_xyyaw[2]
            left, last = left - float(se2.wrap_angle(now - last)), now

    # -- driving itself ----------------------------------------------------------------------------------------------

    def reach(self, image_rgb: NDArray[np.uint8]) -> MissionState:
        """Drive to where an image (H, W, 3) was taken; return how that ended, ACTIVE where the time was over."""
        self._begin()
        self.navigator.begin(GoalRequest(image_rgb=image_rgb))
        # The navigator has a limit of its own, which counts from the first plan on.
        end_s = self.now_s + self._settings.time_limit_s + 2.0 * self._settings.plan_period_s
        while self.navigator.mission.active and self.now_s < end_s:
            self._plan_if_due()
            self._drive()
        state = self.navigator.mission.state
        self.navigator.cancel("time is over")
        self._follower.set_plan(STAND)
        return state

    def shown_way(self, pose_world_xyyaw: NDArray[np.float64]) -> list[NDArray[np.uint8]]:
        """Be led from here to a pose (3,); return what was seen on the way, an image each second and one at its end."""
        images: list[NDArray[np.uint8]] = []
        way = self._course.way(self.simulator.pose_world_xyyaw, pose_world_xyyaw)
        self._seen, self._next_node_s = images, self.now_s
        try:
            if way is not None:
                self._lead(way)
            self._turn(float(se2.wrap_angle(pose_world_xyyaw[2] - self.simulator.pose_world_xyyaw[2])))
        finally:
            self._seen = None
        return [*images, self._course.image(pose_world_xyyaw)]

    def follow(self, images_rgb: Sequence[NDArray[np.uint8]], searches: bool) -> MissionState:
        """Drive along the nodes of a topological map; return REACHED at its end, ACTIVE where the time was over."""
        follower = MapFollower(self.navigator.stack, images_rgb, searches)
        self._begin()
        end_s = self.now_s + self._settings.time_limit_s
        while not follower.reached and self.now_s < end_s:
            if self.now_s >= self._next_plan_s - 1e-9:
                self._next_plan_s = self.now_s + self._settings.plan_period_s
                plan = follower.plan(self.now_s, self.navigator.obstacles.clearance)
                self._pending.append((self.now_s + self._settings.latency_s, plan))
            self._drive()
        self._follower.set_plan(STAND)
        return MissionState.REACHED if follower.reached else MissionState.ACTIVE

    def roam(self, duration_s: float) -> None:
        """Explore alone for some simulated time, or until the navigator gives up."""
        self._begin()
        self.navigator.begin(GoalRequest(explore=True))
        end_s = self.now_s + duration_s
        while self.navigator.mission.active and self.now_s < end_s - 1e-9:
            self._plan_if_due()
            self._drive()
        self.navigator.cancel("time is over")
        self._follower.set_plan(STAND)

    def _begin(self) -> None:
        """Forget the way before; plan at once."""
        self._follower, self._pending = PathFollower(FOLLOWER, self._robot), []
        self._stall.clear()
        self._next_plan_s = self.now_s

    def _plan_if_due(self) -> None:
        now_s, settings = self.now_s, self._settings
        if now_s < self._next_plan_s - 1e-9:
            return
        step = self.navigator.step(now_s, self.simulator.odometry().pose_xyyaw)
        if not step.retreating:
            self._next_plan_s = now_s + settings.plan_period_s
        if step.drive is not None:
            self._pending.append((now_s + settings.latency_s, step.drive))

    def _drive(self) -> None:
        """Follow the newest plan that is ready for one tick; tell where the robot is blocked."""
        now_s, pose = self.now_s, self.simulator.odometry().pose_xyyaw
        while self._pending and self._pending[0][0] <= now_s + 1e-9:
            plan = self._pending.pop(0)[1]
            if plan.stamp_s >= self._blocked_s:  # else it does not know yet what blocks the robot
                self._follower.set_plan(retimed(plan, now_s, pose))
        v_mps, _, w_radps = self._follower.command(now_s, pose)
        if self._stall.update(now_s, v_mps, pose):
            facing = se2.compose(pose, np.array([0.0, 0.0, self._stall.bearing_rad]))
            self.navigator.blocked(now_s, facing)
            self._blocked_s, self._next_plan_s = now_s, now_s
            self._follower.set_plan(STAND)
            self._stall.clear()
            v_mps = w_radps = 0.0
        self._tick(v_mps, w_radps)

    # -- time --------------------------------------------------------------------------------------------------------

    def _tick(self, v_mps: float, w_radps: float) -> None:
        if self.now_s >= self._next_frame_s - 1e-9:
            self._next_frame_s = self.now_s + 1.0 / self._settings.camera_rate_hz
            frame, odometry = self.simulator.observe()
            if frame.stamp_s > self._newest_stamp_s:  # else the next frame was lost
                self._newest_stamp_s = frame.stamp_s
                self.navigator.observe(frame, odometry)
                if self._seen is not None and self.now_s >= self._next_node_s - 1e-9:
                    self._seen.append(frame.rgb)
                    self._next_node_s = self.now_s + NODE_PERIOD_S
                if self._fills_cloud:
                    self._cloud.observe(frame, odometry.T_odom_base)
        if self.now_s >= self._next_obstacles_s - 1e-9:
            self._next_obstacles_s = self.now_s + OBSTACLES_PERIOD_S
            self._see_obstacles()
        self.simulator.step(v_mps, w_radps, TICK_S)
        self.driven_world_xy.append(self.simulator.pose_world_xyyaw[:2])

    def _see_obstacles(self) -> None:
        pose, own = self.simulator.odometry().pose_xyyaw, self.navigator.settings.obstacles
        points = self._cloud.points_near(pose, OBSTACLES_RANGE_M, (own.min_height_m, own.max_height_m))
        points[:, :2] = se2.transform_points(pose, points[:, :2].astype(np.float64))
        self.navigator.obstacles.see(points)
