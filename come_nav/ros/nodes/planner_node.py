"""Camera and odometry in, plans out: remembers, plans at a steady rate, and evaluates its own past plans.

How goals are found, approached and reached is the Navigator's; this node converts messages and calls it.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry as OdometryMessage
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from come_nav.core.errors import ComeNavError
from come_nav.core.types import PlanStatus
from come_nav.evaluation.navigation_recorder import NavigationRecorder
from come_nav.evaluation.running_accuracy import RunningAccuracy
from come_nav.navigation.loading import load_stack
from come_nav.navigation.navigation_model import looks_at_depth
from come_nav.navigation.navigator import Navigator
from come_nav.ros.camera import CAMERA_PARAMETERS, MASK_PARAMETERS, CameraInput
from come_nav.ros.diagnostics import Latency, Level, Report
from come_nav.ros.inputs.odometry_reset import OdometryReset, forgets, motion_of_odom
from come_nav.ros.map_odom import MAP_PARAMETERS, MapOdomFollower, MapOdomPublisher
from come_nav.ros.node import ManagedNode
from come_nav.ros.nodes.memory_node import load_cloud, store_of
from come_nav.ros.obstacles import ObstacleInput
from come_nav.ros.parameters import Parameter, config_from, config_parameters
from come_nav.ros.planner.actions import ACTION_PARAMETERS, serve_actions
from come_nav.ros.planner.adapters import adapter_reports
from come_nav.ros.planner.navigator_parameters import NAVIGATOR_PARAMETERS, navigator_settings
from come_nav.ros.planner.place_store import PlaceStore
from come_nav.ros.planner.planner_output import OUTPUT_PARAMETERS, PlannerOutput
from come_nav.ros.planner.planner_requests import CANCELS, STATES, PlannerRequests
from come_nav.ros.qos import COMMAND, SENSOR
from come_nav.ros.worker import Worker
from come_nav.viz.rerun_recording import RerunRecording

INACTIVE = "the planner is not active: give a goal once it is"
GOALS = {"image": Image, "pose": PoseStamped, "time": Time, "place": PoseStamped}  # goal_<kind>


class PlannerNode(ManagedNode):
    """Plans towards the goal with everything remembered; never blocks its executor."""

    PARAMETERS = (
        *CAMERA_PARAMETERS,
        *MASK_PARAMETERS,
        *MAP_PARAMETERS,
        Parameter("plan_rate_hz", 2.0, "most plans per second, Hz", 0.05, 20.0),
        *OUTPUT_PARAMETERS,
        *NAVIGATOR_PARAMETERS,
        *ACTION_PARAMETERS,
        Parameter("explore", False, "explore from the start until a goal comes: drive without one"),
        Parameter("memory_folder", "", "where places are saved and found again; empty = nowhere", when="start"),
        Parameter(
            "rerun_file", "", "write what is seen and considered to this .rrd for Rerun; empty = no", when="start"
        ),
        Parameter("save_period_s", 10.0, "save places this often, s", 0.5, 3600.0),
        *config_parameters(),
    )

    def __init__(self, **keywords: Any) -> None:
        super().__init__("planner", **keywords)
        self._worker = Worker("planner", self._work, lambda error: self._output.failed(error))  # noqa: PLW0108  made at setup
        self._watcher = Worker("watcher", self._watch, lambda error: self.diagnose(error, "memory"))

    # -- lifecycle ---------------------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Load the model and the places; subscribe."""
        values = self.values
        self._stack = load_stack(config_from(values))
        self._navigator = Navigator(self._stack, navigator_settings(values), self.log.info)
        space = self._stack.episode.space
        fills_cloud = space is not None and space.shared is None  # else another node's store is followed
        looks = fills_cloud or looks_at_depth(self._stack.model)
        # Where another node fills the cloud, images wait for no mask here: nothing would look at it.
        masks = values["masks"] if fills_cloud else "none"
        self._camera = CameraInput(self, depth="optional" if looks else "none", masks=masks)
        self._map_odom = MapOdomFollower(
            self, self._camera.transforms, self._stack.localisation, self._navigator.correct, self._camera.map_resets
        )
        self._map_publisher = MapOdomPublisher(self, self._camera.transforms)
        self._obstacles = ObstacleInput(self, self._navigator.obstacles)
        self._places = PlaceStore(self._navigator.places, store_of(values), self.diagnose, self._stack.localisation)
        if (found := self._places.load()) is not None:
            self.log.info(found)
        if space is not None and fills_cloud:  # else no image would be recognised after a restart
            load_cloud(self, space.cloud)
        self._output = PlannerOutput(self, self._navigator, self._camera)
        self._recorder = recorder_of(self, self._navigator)
        self._goals = self.watch("goal", "goal_image", float("inf"), required=False)
        self._requests = PlannerRequests(self, self._navigator, self._camera, self._output, self._goals)
        self._requests.wake = self._worker.wake
        self._memory_requests: deque[str | OdometryReset] = deque()
        self._camera.on_reset = self._forget
        self._accuracy, self._counts = RunningAccuracy(), Counter[str]()
        self._plan_time, self._goal_time, self._memory_time = Latency(), Latency(), Latency()
        self._next_plan_s = 0.0
        self._goal_received_s: float | None = None
        self._forgotten = False
        self._subscribe()

    def start(self) -> None:
        """Begin to remember and to plan."""
        self._stack.start()
        self._watcher.start()
        self._worker.start()
        self._output.tell()
        if self.values["explore"]:
            self._requests.post("explore", None)

    def stop(self) -> None:
        """Stop the robot and the work."""
        finished = self._watcher.stop()
        self._worker.stop()
        self._stack.close()
        self._requests.drop(INACTIVE)
        self._output.stand_still()
        self._navigator.cancel("planner was deactivated")
        self._output.action_goals.update(self._navigator.mission, self._output.progress())
        if finished:
            self._places.save()

    def teardown(self) -> None:
        """Release the model."""
        self._watcher.stop()
        self._worker.stop()
        parts = ("_requests", "_output", "_places", "_obstacles", "_map_odom", "_map_publisher", "_camera")
        for name in (*parts, "_navigator", "_stack"):
            if hasattr(self, name):
                delattr(self, name)

    def parameters_changed(self, names: set[str]) -> None:
        """Take over what may change while running."""
        if self.configured:
            try:
                self._stack.settings = config_from(self.values)
            except ComeNavError as error:
                self.diagnose(error, "parameters")
            self._navigator.settings = navigator_settings(self.values)

    def _subscribe(self) -> None:
        self.subscribe(OdometryMessage, "odom", self._take_odometry, SENSOR)
        for kind, message_type in GOALS.items():
            self.subscribe(message_type, f"goal_{kind}", self._taking_goal(kind), COMMAND)
        self.subscribe(CameraInfo, "goal_camera_info", lambda message: self._post("camera_info", message), COMMAND)
        self.subscribe(PointCloud2, "obstacles", self._obstacles.take, SENSOR)
        self.subscribe(Bool, "e_stop", self._requests.take_e_stop, COMMAND)
        self.subscribe(PoseStamped, "blocked", lambda message: self._post("blocked", message), COMMAND)
        self.serve(Trigger, "cancel_goal", _answering("the robot stops", lambda: self._post("cancel", None)))
        self.serve(Trigger, "explore", _answering("the robot explores", lambda: self._post("explore", None)))
        self.serve(Trigger, "reset_memory", _answering("memory is forgotten", lambda: self._forget("reset")))
        serve_actions(self, self._post)

    # -- callbacks: short, they only keep what came --------------------------------------------------------------------

    def _take_odometry(self, message: OdometryMessage) -> None:
        if self._camera.take_odometry(message):
            self._forget("forget")
        if self._camera.due:  # each wake costs the executor a turn at the interpreter's lock
            self._watcher.wake()

    def _taking_goal(self, kind: str) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            self._goals.received(time.monotonic())
            self._goal_received_s = time.monotonic()
            self._post(kind, message)

        return take

    def _post(self, kind: str, message: Any) -> str:
        """Hand a request to the worker; return why it was not. Goals do not wait for a planner that is not active."""
        if self.active or kind in STATES:
            self._requests.post(kind, message)
            return ""
        if kind in CANCELS:
            return ""  # nothing drives
        self._requests.refuse(kind, message, INACTIVE)
        return INACTIVE

    def _forget(self, request: str | OdometryReset) -> str:
        self._memory_requests.append(request)
        self._watcher.wake()
        return ""

    # -- the watcher's thread: it goes on remembering while a search runs ----------------------------------------------

    def _watch(self) -> float:
        """Forget if requested, remember what came, save if it is time; return how long to wait."""
        while self._memory_requests:
            request = self._memory_requests.popleft()
            everything = forgets(request)
            self._navigator.forget(everything, motion_of_odom(request))
            self._forgotten = True
            if isinstance(request, OdometryReset):
                self._output.stand_still()  # the plan is in an odom that is no more
                self.log.warning(f"{request}; {request.consequence}")
                if everything:
                    self._post("cancel", None)
            if everything:
                self._places.forget()
            elif request == "forget":
                self.log.warning("the clock of odometry jumped back; short-term memory starts anew")
        self._map_odom.update()
        present, unknown = self._camera.track.newest, self._stack.localisation.resumption is not None
        self._map_publisher.update(
            None if present is None or unknown else present.stamp_s, self._navigator.places.T_map_odom_xyyaw
        )
        if (news := self._places.news()) is not None:
            self.log.info(news)
        for frame, matched, received_s in self._camera.frames():
            self._counts[self._navigator.observe(frame, matched.odometry).value] += 1
            if self._recorder is not None:
                self.guard("recording", self._recorder.observe, frame, matched.odometry)
            self._memory_time.add(time.monotonic() - received_s)
        self._places.save(self.values["save_period_s"])
        return 0.1

    # -- the worker's thread -------------------------------------------------------------------------------------------

    def _work(self) -> float:
        """Take a new goal, evaluate past plans, plan if it is time; return how long to wait."""
        if self._forgotten:
            self._forgotten = False
            self._accuracy.clear()
        if self._requests.obey():
            self._next_plan_s = 0.0
        for evaluated in self._accuracy.update(self._camera.track):
            self._output.evaluated(evaluated)
        active, now = self._navigator.mission.active, time.monotonic()
        if active and now >= self._next_plan_s:
            self._step(now)
        return 0.02 if active else 0.1

    def _step(self, now: float) -> None:
        present = self._camera.track.newest
        here = None if present is None else present.pose_xyyaw
        step = self._navigator.step(self.now_s(), here, lambda: self._worker.stopping or self._requests.urgent)
        if not step.retreating:
            self._next_plan_s = now + 1.0 / self.values["plan_rate_hz"]
            if step.plan is not None and step.drive is not None:
                self._plan_time.add(step.duration_s)
                self._accuracy.add(step.drive)  # one that arrives is not driven
                if self._goal_received_s is not None and step.plan.status is PlanStatus.OK:
                    self._goal_time.add(time.monotonic() - self._goal_received_s)
                    self._goal_received_s = None
        if self._worker.stopping:
            return  # nobody waits for it any more
        self._output.show(step)
        if self._recorder is not None:
            self.guard("recording", self._recorder.show, step)

    def reports(self) -> Sequence[Report]:
        """Return mission, plans, memory and accuracy."""
        memory: dict[str, Any] = {f"frames {name}": count for name, count in self._counts.items()}
        memory |= {f"images dropped: {name}": count for name, count in self._camera.dropped.items()}
        memory |= self._memory_time.values("image_to_memory")
        memory |= self._stack.calibration.report()
        memory |= {f"resets: {name}": count for name, count in self._stack.memory.resets.items()}
        memory |= {"places": len(self._navigator.places), "key frames": len(self._stack.localisation)}
        memory |= {"session before": self._stack.localisation.resumed} if self._stack.localisation.resumed else {}
        memory |= {"bytes of features": self._stack.localisation.localiser.map.nbytes}
        failure = self._places.failure
        level, text = (Level.OK, f"{len(self._stack.memory)} frames") if failure is None else (Level.ERROR, failure)
        timing = {**self._plan_time.values("plan"), **self._goal_time.values("goal_to_plan")}
        return [
            self._output.mission_report(),
            Report("plans", Level.OK, "timing of plans", timing),
            Report("memory", level, text, memory),
            *adapter_reports(self._stack),
            Report("accuracy", Level.OK, "past plans against the way driven", self._accuracy.values()),
            *self._obstacles.reports(),
            self._camera.extrinsics.report(),
            *self._map_odom.reports(),
            *self._map_publisher.reports(),
        ]


def recorder_of(node: ManagedNode, navigator: Navigator) -> NavigationRecorder | None:
    """Return what writes for Rerun until clean-up, where the parameters ask for it."""
    file = node.values["rerun_file"]
    if not file:
        return None
    recording = RerunRecording(Path(file).expanduser())
    node.keep(recording.close)
    return NavigationRecorder(navigator, recording)


def _answering(text: str, action: Callable[[], str]) -> Callable[[Any, Any], Any]:
    """Return a service that does something and says so, or why it does not."""

    def serve(request: Any, response: Any) -> Any:
        refused = action()
        response.success, response.message = not refused, refused or text
        return response

    return serve
