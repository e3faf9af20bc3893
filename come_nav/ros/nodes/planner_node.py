"""Camera and odometry in, plans out: remembers, imagines, plans at a steady rate, and evaluates its own past plans."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry as OdometryMessage
from nav_msgs.msg import Path as PathMessage
from numpy.typing import NDArray
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from come_nav.core.errors import ComeNavError, DataError, MemoryStoreError
from come_nav.core.types import Goal, Plan, PlanStatus
from come_nav.data.bags.images import decode_colour
from come_nav.evaluation.running_accuracy import RunningAccuracy
from come_nav.localisation.image_difference import latent_difference
from come_nav.localisation.relocalisation import poses_ahead
from come_nav.memory.keyframes import Keyframe, Keyframes, KeyframesSettings
from come_nav.memory.short_term import FrameStatus
from come_nav.navigation.guide import Guide, GuideSettings
from come_nav.navigation.loading import load_stack
from come_nav.navigation.mission import ArrivalSettings, Mission, MissionState
from come_nav.navigation.places import KEYFRAME_PARAMETERS, Places
from come_nav.navigation.retreat import Retreat
from come_nav.navigation.stack import NavStack
from come_nav.ros import messages
from come_nav.ros.action_goals import ActionGoal, ActionGoals, PathRequest, Progress
from come_nav.ros.actions import ACTION_PARAMETERS, serve_actions
from come_nav.ros.adapters import adapter_reports
from come_nav.ros.camera import CAMERA_PARAMETERS, CameraInput
from come_nav.ros.diagnostics import Latency, Level, Report
from come_nav.ros.markers import candidate_markers
from come_nav.ros.node import ManagedNode
from come_nav.ros.nodes.memory_node import load_cloud, store_of
from come_nav.ros.obstacles import OBSTACLE_PARAMETERS, Obstacles
from come_nav.ros.parameters import Parameter, config_from, config_parameters
from come_nav.ros.qos import COMMAND, LATCHED, SENSOR
from come_nav.ros.streams import message_type_name
from come_nav.ros.worker import Worker

PATIENT = ("blocked", "path")  # requests that leave the goal as it is


class PlannerNode(ManagedNode):
    """Plans towards the goal with everything remembered; never blocks its executor."""

    PARAMETERS = (
        *CAMERA_PARAMETERS,
        *OBSTACLE_PARAMETERS,
        Parameter("plan_rate_hz", 2.0, "most plans per second, Hz", 0.05, 20.0),
        Parameter("publish_candidates", True, "publish the candidates of each plan as markers"),
        Parameter("max_candidates", 100, "most candidates shown", 1, 5000),
        Parameter("goal_tolerance_m", 0.25, "a goal is reached within this distance, m", 0.01, 5.0),
        Parameter("goal_tolerance_rad", 0.35, "and within this turn, rad", 0.01, 3.15),
        Parameter("goal_difference", 0.6, "and the view must differ by less than this from a goal image", 0.0, 2.0),
        Parameter("goal_confirmations", 2, "plans in a row that must agree that an image is reached", 1, 50),
        Parameter("max_failures", 20, "failed plans in a row that end a mission", 1, 10000),
        Parameter("time_limit_s", 120.0, "longest mission, s", 1.0, 86400.0),
        Parameter("use_places", True, "lead through remembered places to goals that are far away"),
        Parameter("direct_m", 1.0, "approach goals nearer than this directly, m", 0.1, 50.0),
        Parameter("lookahead_m", 1.0, "distance of the next subgoal on a remembered way, m", 0.1, 10.0),
        Parameter("recognised", 0.4, "an image was taken where the remembered view differs by less", 0.0, 2.0),
        Parameter("approach_by_view", False, "score imagined views too on the last direct_m to a known place"),
        Parameter("trust", 0.7, "how much more similar than the view a remembered place must be, (0, 1]", 0.01, 1.0),
        *KEYFRAME_PARAMETERS,
        *ACTION_PARAMETERS,
        Parameter("memory_folder", "", "where places are saved and found again; empty = nowhere", when="start"),
        Parameter("save_period_s", 10.0, "save places this often, s", 0.5, 3600.0),
        *config_parameters(),
    )

    def __init__(self, **keywords: Any) -> None:
        super().__init__("planner", **keywords)
        self._worker = Worker("planner", self._work, self._work_failed)
        self._watcher = Worker("watcher", self._watch, lambda error: self.diagnose(error, "memory"))

    # -- lifecycle ---------------------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Load the model and the places; subscribe."""
        values = self.values
        self._stack: NavStack = load_stack(config_from(values))
        remembers_space = "spatial" in self._stack.settings.experts.use
        self._camera = CameraInput(self, depth="optional" if remembers_space else "none")
        self._obstacles = Obstacles(self)
        self._mission, self._accuracy = Mission(self._rules()), RunningAccuracy()
        self._places = self._load_places()
        if self._stack.episode.spatial is not None:  # else no image would be recognised after a restart
            load_cloud(self, self._stack.episode.spatial)
        self._guide = Guide(self._places, self._guide_settings())
        self._requests: deque[tuple[str, Any]] = deque()
        self._memory_requests: deque[str] = deque()
        self._action_goals, self._retreat = ActionGoals(), Retreat()
        self._plan_time, self._goal_time, self._memory_time = Latency(), Latency(), Latency()
        self._plan: Plan | None = None
        self._goal_latents: torch.Tensor | None = None
        self._memory_diagnosis: tuple[float, str] | None = None
        self._next_plan_s = self._next_save_s = 0.0
        self._saved_places = len(self._places)
        self._goal_received_s: float | None = None
        self._counts: dict[str, int] = {}
        self._forgotten = self._forgotten_before = 0
        self._advertise()
        self._subscribe()

    def start(self) -> None:
        """Begin to remember and to plan."""
        self._stack.episode.start()
        self._watcher.start()
        self._worker.start()
        self._tell()

    def stop(self) -> None:
        """Stop the robot and the work."""
        finished = self._watcher.stop()
        self._worker.stop()
        self._stack.close()
        self._plans.publish(PathMessage(header=messages.header(self.now_s(), self.values["odom_frame"])))
        self._mission.cancel("planner was deactivated")
        self._action_goals.update(self._mission, self._progress())
        if finished:
            self._save_places()

    def teardown(self) -> None:
        """Release the model."""
        self._watcher.stop()
        self._worker.stop()
        for name in ("_stack", "_camera", "_obstacles"):
            if hasattr(self, name):
                delattr(self, name)

    def parameters_changed(self, names: set[str]) -> None:
        """Take over what may change while running; single assignments, because the worker goes on meanwhile."""
        if self.configured:
            self._stack.settings = config_from(self.values)
            self._mission.rules, self._guide.rules = self._rules(), self._guide_settings()

    def _advertise(self) -> None:
        self._plans = self.advertise(PathMessage, "plan", COMMAND)
        self._route = self.advertise(PathMessage, "route", LATCHED)
        self._markers = self.advertise(MarkerArray, "candidates", COMMAND)
        self._imagined = self.advertise(Image, "imagined_image", COMMAND)
        self._status = self.advertise(DiagnosticStatus, "navigation_status", LATCHED)
        self._evaluate = self.advertise(DiagnosticStatus, "plan_accuracy", COMMAND)

    def _subscribe(self) -> None:
        self._goals = self.watch("goal", "goal_image", float("inf"), required=False)
        self.subscribe(OdometryMessage, "odom", self._take_odometry, SENSOR)
        self.subscribe(Image, "goal_image", lambda message: self._take_goal("image", message), COMMAND)
        self.subscribe(PoseStamped, "goal_pose", lambda message: self._take_goal("pose", message), COMMAND)
        self.subscribe(Time, "goal_time", lambda message: self._take_goal("time", message), COMMAND)
        self.subscribe(PoseStamped, "goal_place", lambda message: self._take_goal("place", message), COMMAND)
        self.subscribe(PointCloud2, "obstacles", self._obstacles.take, SENSOR)
        self.subscribe(PoseStamped, "blocked", lambda message: self._post("blocked", message), COMMAND)
        self.serve(Trigger, "cancel_goal", self._cancel)
        self.serve(Trigger, "reset_memory", self._reset)
        serve_actions(self, self._post)

    # -- callbacks: short, they only keep what came --------------------------------------------------------------------

    def _take_odometry(self, message: OdometryMessage) -> None:
        if self._camera.take_odometry(message):
            self._memory_requests.append("forget")
        if self._camera.due:  # each wake costs the executor a turn at the interpreter's lock
            self._watcher.wake()

    def _take_goal(self, kind: str, message: Any) -> None:
        self._goals.received(time.monotonic())
        self._goal_received_s = time.monotonic()
        self._post(kind, message)

    def _post(self, kind: str, message: Any) -> None:
        self._requests.append((kind, message))
        self._worker.wake()

    def _cancel(self, request: Any, response: Any) -> Any:
        self._post("cancel", None)
        response.success, response.message = True, "the robot stops"
        return response

    def _reset(self, request: Any, response: Any) -> Any:
        self._memory_requests.append("reset")
        self._watcher.wake()
        response.success, response.message = True, "memory is forgotten"
        return response

    # -- the watcher's thread: it goes on remembering while a search runs ----------------------------------------------

    def _watch(self) -> float:
        """Forget if requested, remember what came, save if it is time; return how long to wait."""
        while self._memory_requests:
            self._forget(self._memory_requests.popleft())
        for frame, matched, received_s in self._camera.frames():
            verdict = self._stack.observe(frame, matched.odometry)
            self._counts[verdict.value] = self._counts.get(verdict.value, 0) + 1
            self._memory_time.add(time.monotonic() - received_s)
            newest = self._stack.memory.newest
            if verdict is FrameStatus.KEPT and newest is not None:
                self._places.observe(frame, matched.odometry, newest.features)
        now = time.monotonic()
        if now >= self._next_save_s:
            self._next_save_s = now + self.values["save_period_s"]
            self._save_places()
        return 0.1

    def _forget(self, request: str) -> None:
        self._stack.reset()
        self._forgotten += 1
        self._places.begin_leg()
        if request == "reset":
            self._places.clear()
            self._saved_places = -1
        else:
            self.log.warning("the clock of odometry jumped back; short-term memory starts anew")

    # -- the worker's thread -------------------------------------------------------------------------------------------

    def _work(self) -> float:
        """Take a new goal, evaluate past plans, plan if it is time; return how long to wait."""
        if self._forgotten != self._forgotten_before:
            self._forgotten_before = self._forgotten
            self._accuracy.clear()
            self._obstacles.forget()
        while self._requests:
            self._obey(*self._requests.popleft())
        for evaluated in self._accuracy.update(self._camera.track):
            report = Report("plan", Level.OK, "a past plan against the way driven", evaluated.values())
            self._evaluate.publish(report.to_message(self.get_name()))
        now = time.monotonic()
        if self._mission.active and now >= self._next_plan_s and not self._retreats():
            self._next_plan_s = now + 1.0 / self.values["plan_rate_hz"]
            self._plan_once()
        return 0.02 if self._mission.active else 0.1

    def _retreats(self) -> bool:
        """Back off from what blocked the robot, if that was told; return whether it still does."""
        present = self._camera.track.newest
        if present is None:
            return False
        plan = self._retreat.plan(self.now_s(), present.pose_xyyaw, self._obstacles.clear)
        if plan is not None:
            self._plans.publish(messages.path_message(plan, self.values["odom_frame"]))
        return self._retreat.lasts(self.now_s(), present.pose_xyyaw)

    def _obey(self, kind: str, message: Any) -> None:
        if kind == "path":
            self._answer(message)
            return
        if kind == "blocked":
            pose = self._camera.pose_in_odom(message)
            self._obstacles.touch(pose, self.now_s())
            self._retreat.request(messages.seconds_from_stamp(message.header.stamp), pose)
            return
        if kind == "cancel" or (kind == "cancel action goal" and message is self._action_goals.current):
            self._mission.cancel()
            self._plans.publish(PathMessage(header=messages.header(self.now_s(), self.values["odom_frame"])))
            self._tell()
            return
        if kind == "cancel action goal":
            return  # it has ended meanwhile
        try:
            goal = self._goal_from(kind, message)
        except ComeNavError as error:
            self._goals.failed(time.monotonic(), str(error))
            self.diagnose(error, f"goal_{kind}")
            if isinstance(message, ActionGoal):
                self._action_goals.refuse(message, str(error), self._progress())
            return
        self._mission.begin(goal)
        self._retreat.cancel()
        self._action_goals.begin(message if isinstance(message, ActionGoal) else None, self._progress())
        self._begin_guide(goal)
        self._next_plan_s = 0.0
        self._tell()

    def _goal_from(self, kind: str, message: Any) -> Goal:
        """Return the goal of a message; raise DataError naming what is wrong with it."""
        if kind in ("image", "action_goal"):
            image = message.image if isinstance(message, ActionGoal) else message
            return Goal(image_rgb=decode_colour(image, message_type_name(image)))
        if kind == "time":
            return self._remembered(self._places.keyframes.at_time(messages.seconds_from_stamp(message)))
        pose = self._camera.pose_in_odom(message)
        if kind == "place":
            return self._remembered(self._places.keyframes.nearest_pose(pose))
        return Goal(pose_odom_xyyaw=pose)

    def _remembered(self, frame: Keyframe | None) -> Goal:
        if frame is None:
            raise DataError("no place is remembered yet; let the robot drive around first")
        return Goal(image_rgb=frame.rgb, pose_odom_xyyaw=frame.pose_odom_xyyaw)

    def _begin_guide(self, goal: Goal) -> None:
        """Find out where the goal is, if memory knows."""
        self._goal_latents, rough = None, None
        if goal.image_rgb is not None:
            latents = self._goal_latents = self._encode([goal.image_rgb])[0].float()
            if goal.pose_odom_xyyaw is None and self.values["use_places"]:
                self._mission.search()
                self._tell()
                goal, rough = self._recognised(goal, goal.image_rgb, latents)
        self._mission.found(goal)
        self._guide.begin(goal, rough)

    def _recognised(
        self, goal: Goal, image_rgb: NDArray[np.uint8], latents: torch.Tensor
    ) -> tuple[Goal, NDArray[np.float64] | None]:
        """Return the goal with the pose that its image was taken from, or a place from where it may be in view."""
        starts, differences = self._places.most_similar(latents, self._stack.settings.relocalisation.starts)
        if not len(starts):
            return goal, None
        place = self._sighted(image_rgb, starts)
        if place is not None:
            return replace(goal, pose_odom_xyyaw=place), None
        present = self._difference()
        similar = present is None or differences[0] < self.values["trust"] * present
        return goal, starts[0] if similar else None

    def _sighted(
        self, image_rgb: NDArray[np.uint8], similar_odom_xyyaw: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        """Return the pose (3,) that an image was taken from, if memory recognises it.

        It is looked for from the robot's own place and from similar ones (K, 3) on.
        """
        newest, starts = self._stack.memory.newest, similar_odom_xyyaw
        if newest is not None:
            starts = np.vstack([poses_ahead(newest.pose_odom_xyyaw), starts])
        sighting = self._stack.relocalise(image_rgb, starts, self._overtaken)
        if sighting is None:
            return None
        known, (x, y, yaw) = sighting.difference <= self.values["recognised"], sighting.pose_odom_xyyaw
        text = "the image was taken" if known else "the image is not known; most like it is the view"
        self.log.info(f"{text} at ({x:.2f}, {y:.2f}) m, {yaw:.2f} rad: difference {sighting.difference:.2f}")
        return sighting.pose_odom_xyyaw if known else None

    def _overtaken(self) -> bool:
        """Whether a search of memory has become pointless: another goal, a cancellation, or the end."""
        return self._worker.stopping or any(kind not in PATIENT for kind, _ in tuple(self._requests))

    def _confirm(self, image_rgb: NDArray[np.uint8], here_odom_xyyaw: NDArray[np.float64]) -> None:
        """Ask memory once more where an image was taken that seems reached by its view: it has seen more meanwhile."""
        latents = self._goal_latents
        if latents is None or not self.values["use_places"]:
            return
        similar, _ = self._places.most_similar(latents, self._stack.settings.relocalisation.starts)
        place = self._sighted(image_rgb, similar)
        if place is not None and not self._mission.at_goal(here_odom_xyyaw, place):
            goal = Goal(image_rgb, place)
            self._mission.reopen(goal)
            self._guide.begin(goal)

    def _difference(self) -> float | None:
        """Return how the present view differs from the goal's image: 1 - the cosine of their latents."""
        newest, wanted = self._stack.memory.newest, self._goal_latents
        if newest is None or newest.features is None or wanted is None:
            return None
        return float(latent_difference(newest.features.float()[None], wanted)[0])

    def _plan_once(self) -> None:
        newest, goal = self._stack.memory.newest, self._mission.goal
        if goal is None:
            return
        target, final = goal, True
        if newest is not None and self.values["use_places"]:
            target, final = self._guide.target(newest.pose_odom_xyyaw, self._obstacles.clear)
        started_s, forgotten = time.monotonic(), self._forgotten
        plan = self._stack.plan(target, self.now_s(), self._obstacles.clearance)
        if forgotten != self._forgotten:
            return  # it starts in an episode that is over
        self._plan_time.add(time.monotonic() - started_s)
        if self._goal_received_s is not None and plan.status is PlanStatus.OK:
            self._goal_time.add(time.monotonic() - self._goal_received_s)
            self._goal_received_s = None
        self._accuracy.add(plan)
        self._plan = plan
        present = self._camera.track.newest
        here = plan.start_odom_xyyaw if present is None else present.pose_xyyaw
        state = self._mission.evaluate(plan, here, self._difference(), final)
        if state is MissionState.REACHED and goal.image_rgb is not None and goal.pose_odom_xyyaw is None:
            self._confirm(goal.image_rgb, here)
        self._publish(plan, target)
        self._tell()

    def _work_failed(self, error: Exception) -> None:
        self.diagnose(error, "planning")
        self._plans.publish(PathMessage(header=messages.header(self.now_s(), self.values["odom_frame"])))

    # -- out -----------------------------------------------------------------------------------------------------------

    def _publish(self, plan: Plan, target: Goal) -> None:
        frame_id = self.values["odom_frame"]
        drive = plan if self._mission.active else replace(plan, status=PlanStatus.GOAL_MISSING)
        self._plans.publish(messages.path_message(drive, frame_id))
        if self.values["publish_candidates"] and self._markers.get_subscription_count() > 0:  # thousands of points
            markers = candidate_markers(plan, target, frame_id, self.values["max_candidates"])
            self._markers.publish(markers)
        if plan.imagined_rgb is not None:
            optical = self.values["camera_frame"]
            self._imagined.publish(messages.image_message(plan.imagined_rgb, plan.stamp_s, optical))
        way = self._guide.way_xy
        route = PathMessage(header=messages.header(plan.stamp_s, frame_id))
        if way is not None:
            poses = np.concatenate([way, np.zeros((len(way), 1))], axis=1)
            route.poses = messages.pose_list(poses, [plan.stamp_s] * len(way), frame_id)
        self._route.publish(route)

    def _mission_report(self) -> Report:
        mission, plan = self._mission, self._plan
        values: dict[str, Any] = {"state": mission.state.value, "code": mission.code, "places": len(self._places)}
        difference = self._difference()
        if difference is not None:
            values["difference"] = difference
        if plan is not None:
            values |= {"plan_status": plan.status.value, "cost": plan.cost, "plan_stamp_s": f"{plan.stamp_s:.3f}"}
        way = self._guide.way_xy
        if way is not None:
            values["distance_left_m"] = float(np.hypot(*np.diff(way, axis=0).T).sum())
        return Report("mission", Level.ERROR if mission.failing else Level.OK, mission.message, values)

    def _tell(self) -> None:
        self._status.publish(self._mission_report().to_message(self.get_name()))
        self._action_goals.update(self._mission, self._progress())

    def _progress(self) -> Progress:
        present, difference, way = self._camera.track.newest, self._difference(), self._guide.way_xy
        left_m = float("nan") if way is None else float(np.hypot(*np.diff(way, axis=0).T).sum())
        unknown = float("nan") if difference is None else difference
        if present is None:
            return Progress(0.0, np.zeros(3), self._mission.message, unknown, left_m)
        return Progress(present.stamp_s, present.pose_xyyaw, self._mission.message, unknown, left_m)

    def _answer(self, request: PathRequest) -> None:
        """Plan once for somebody else who drives; the robot's own mission is not touched."""
        try:
            goal = Goal(pose_odom_xyyaw=self._camera.pose_in_odom(request.pose))
            plan = self._stack.plan(goal, self.now_s(), self._obstacles.clearance)
        except ComeNavError as error:
            request.end(None, str(error))
            return
        good = plan.status is PlanStatus.OK
        path = messages.path_message(plan, self.values["odom_frame"]) if good else None
        request.end(path, "" if good else f"{plan.status.value}: {plan.message}")

    def reports(self) -> Sequence[Report]:
        """Return mission, plans, memory and accuracy."""
        counts = {f"frames {name}": count for name, count in self._counts.items()}
        dropped = {f"images dropped: {name}": count for name, count in self._camera.dropped.items()}
        memory = {**counts, **dropped, **self._memory_time.values("image_to_memory")}
        resets = {f"resets: {name}": count for name, count in self._stack.memory.resets.items()}
        timing = {**self._plan_time.values("plan"), **self._goal_time.values("goal_to_plan")}
        return [
            self._mission_report(),
            Report("plans", Level.OK, "timing of plans", timing),
            self._memory_report({**memory, **resets, "places": len(self._places)}),
            *adapter_reports(self._stack),
            Report("accuracy", Level.OK, "past plans against the way driven", self._accuracy.values()),
            *self._obstacles.reports(),
        ]

    def _memory_report(self, values: dict[str, Any]) -> Report:
        diagnosis = self._memory_diagnosis
        if diagnosis is not None and time.monotonic() - diagnosis[0] < self.values["save_period_s"] + 2.0:
            return Report("memory", Level.ERROR, diagnosis[1], values)
        return Report("memory", Level.OK, f"{len(self._stack.memory)} frames", values)

    # -- places --------------------------------------------------------------------------------------------------------

    def _load_places(self) -> Places:
        settings = {parameter.name: self.values[parameter.name] for parameter in KEYFRAME_PARAMETERS}
        config = KeyframesSettings(**{name.partition(".")[2]: value for name, value in settings.items()})
        places, store = Places(Keyframes(config), self._encode), store_of(self.values)
        if store is not None:
            try:
                places.load(store)
                self.log.info(f"{len(places)} places remembered from {store.path}")
            except (MemoryStoreError, DataError) as error:
                self.diagnose(error, "memory")
        return places

    def _encode(self, images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        return self._stack.model.encode(self._stack.model.images_from_rgb(images))

    def _save_places(self) -> None:
        store, count = store_of(self.values), len(self._places)
        if store is None or count == self._saved_places:
            return
        try:
            self._places.save(store)
            self._saved_places = count
        except ComeNavError as error:
            self._memory_diagnosis = (time.monotonic(), str(error))
            self.diagnose(error, "memory")

    def _rules(self) -> ArrivalSettings:
        values = self.values
        return ArrivalSettings(
            values["goal_tolerance_m"],
            values["goal_tolerance_rad"],
            values["goal_difference"],
            values["goal_confirmations"],
            values["max_failures"],
            values["time_limit_s"],
        )

    def _guide_settings(self) -> GuideSettings:
        values = self.values
        return GuideSettings(values["direct_m"], values["lookahead_m"], values["approach_by_view"])
