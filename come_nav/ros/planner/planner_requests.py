"""What others ask of the planner, from topics, services and actions: kept by callbacks, obeyed by its worker."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from nav_msgs.msg import Path as PathMessage

from come_nav.core.errors import ComeNavError, DataError
from come_nav.core.types import CameraIntrinsics, Odometry
from come_nav.navigation.navigator import GoalRequest, Navigator
from come_nav.planning.grid_route import RouteStatus
from come_nav.ros import messages
from come_nav.ros.camera import CameraInput
from come_nav.ros.decoding import LiveCamera, frame_of
from come_nav.ros.diagnostics import Stream
from come_nav.ros.inputs.image_bridge import colour_of
from come_nav.ros.planner.action_goals import ActionGoal, PathRequest
from come_nav.ros.planner.planner_output import PlannerOutput
from come_nav.ros.streams import Matched

E_STOPPED = "e-stop: the robot is stopped; release it, then give a goal anew"
NAV2_ERRORS = {
    RouteStatus.START_OCCUPIED: "START_OCCUPIED",
    RouteStatus.GOAL_OCCUPIED: "GOAL_OCCUPIED",
    RouteStatus.TOO_FAR: "GOAL_OUTSIDE_MAP",
    RouteStatus.NO_ROUTE: "NO_VALID_PATH",
}
STATES, CANCELS = ("e_stop", "camera_info"), ("cancel", "cancel action goal")
PATIENT = ("blocked", "path", "camera_info")  # requests that leave the goal as it is


class PlannerRequests:
    """A queue of (kind, message); any thread may post, one obeys.

    Attributes:
        wake: called with each request.
    """

    def __init__(
        self,
        node: Any,
        navigator: Navigator,
        camera: CameraInput,
        output: PlannerOutput,
        goals: Stream,
    ) -> None:
        """Take who converts, obeys and answers; ``goals`` notes those that are none."""
        self._node, self._navigator, self._camera, self._output = node, navigator, camera, output
        self._goals = goals
        self._queue: deque[tuple[str, Any]] = deque()
        self._e_stop = self._e_stop_told = False
        self.wake: Callable[[], object] = lambda: None
        self._goal_camera, self._goal_info = LiveCamera(), None

    @property
    def urgent(self) -> bool:
        """Whether something waits that makes a search for the present goal pointless."""
        return any(kind not in PATIENT for kind, _ in tuple(self._queue))

    def post(self, kind: str, message: Any = None) -> None:
        """Keep a request."""
        self._queue.append((kind, message))
        self.wake()

    def refuse(self, kind: str, message: Any, why: str) -> None:
        """Answer a request that nobody will obey."""
        if isinstance(message, ActionGoal):
            self._output.action_goals.refuse(message, why, self._output.progress())
        elif isinstance(message, PathRequest):
            message.end(None, "UNKNOWN", why, 0.0)
        elif kind != "blocked":
            self._goals.failed(time.monotonic(), why)
            self._node.diagnose(DataError(why), f"goal_{kind}")

    def drop(self, why: str) -> None:
        """Refuse what waits, but for what is true whoever obeys: the e-stop and the goals' camera."""
        waiting, self._queue = self._queue, deque()
        for kind, message in waiting:
            if kind in STATES:
                self._queue.append((kind, message))
            elif kind not in CANCELS:
                self.refuse(kind, message, why)

    def take_e_stop(self, message: Any) -> None:
        """Keep that the e-stop has changed; some repeat it all the time."""
        if bool(message.data) != self._e_stop_told:
            self._e_stop_told = bool(message.data)
            self.post("e_stop", message)

    def obey(self) -> bool:
        """Do what was asked for; return whether there is a new goal."""
        begun = False
        while self._queue:
            kind, message = self._queue.popleft()
            if kind == "camera_info":
                self._goal_info = message
            elif kind == "path":
                self._answer(message)
            elif kind == "blocked":
                stamp_s = messages.seconds_from_stamp(message.header.stamp)
                self._navigator.blocked(stamp_s, self._camera.pose_in_odom(message))
            elif kind == "cancel" or (kind == "cancel action goal" and message is self._output.action_goals.current):
                self._cancel()
            elif kind == "e_stop":
                self._e_stop = bool(message.data)
                if self._e_stop:
                    self._cancel(E_STOPPED)
            elif kind != "cancel action goal":  # else it has ended meanwhile
                begun = self._begin(kind, message) or begun
        return begun

    def _cancel(self, why: str = "cancelled") -> None:
        self._navigator.cancel(why)
        self._output.stand_still()
        self._output.tell()

    def _begin(self, kind: str, message: Any) -> bool:
        action_goal = message if isinstance(message, ActionGoal) else None
        try:
            if self._e_stop:
                raise DataError(E_STOPPED)
            self._navigator.begin(self._goal_request(kind, message))
        except ComeNavError as error:
            self._goals.failed(time.monotonic(), str(error))
            self._output.refused = str(error)
            self._output.tell()
            self._node.diagnose(error, f"goal_{kind}")
            if action_goal is not None:
                self._output.action_goals.refuse(action_goal, str(error), self._output.progress())
            return False
        self._output.refused = ""
        self._output.action_goals.begin(action_goal, self._output.progress())
        self._output.tell()
        return True

    def _goal_request(self, kind: str, message: Any) -> GoalRequest:
        """Return what a message asks for; raise DataError naming what is wrong with it."""
        if kind in ("image", "action_goal"):
            return self._image_request(message.image if isinstance(message, ActionGoal) else message)
        if kind == "explore":
            return GoalRequest(explore=True)
        if kind == "time":
            return GoalRequest(time_s=messages.seconds_from_stamp(message))
        pose = self._camera.pose_in_odom(message)
        if kind == "place":
            return GoalRequest(place_odom_xyyaw=pose)
        return GoalRequest(pose_odom_xyyaw=pose, pose_now=self._camera.pose_now(message))

    def _image_request(self, message: Any) -> GoalRequest:
        """Return what an image message asks for, straightened where goal_camera_info tells its camera."""
        info, fov_deg = self._goal_info, self._node.values["goal_fov_deg"]
        if info is not None and frame_of(info) in ("", frame_of(message)):
            notes: list[str] = []
            stamp_s = messages.seconds_from_stamp(message.header.stamp)
            here = Odometry(stamp_s, np.eye(4))
            frame = self._goal_camera.decode(Matched(stamp_s, message, None, info, here), None, notes)
            for note in notes:
                self._node.log.info(f"goal_image: {note}")
            return GoalRequest(image_rgb=frame.rgb, camera=frame.intrinsics)
        rgb = colour_of(message)
        if fov_deg == 0.0:
            return GoalRequest(image_rgb=rgb)
        camera = CameraIntrinsics.from_field_of_view(rgb.shape[1], rgb.shape[0], math.radians(fov_deg))
        return GoalRequest(image_rgb=rgb, camera=camera)

    def _answer(self, request: PathRequest) -> None:
        """Plan once for somebody else who drives."""
        began_s = time.monotonic()
        try:
            goal = self._camera.pose_in_odom(request.pose)
            start = None if request.start is None else self._camera.pose_in_odom(request.start)
        except ComeNavError as error:
            request.end(None, "TF_ERROR", str(error), time.monotonic() - began_s)
            return
        route = self._navigator.path_to(goal, self._node.now_s(), start)
        path, took_s = None, time.monotonic() - began_s
        if route.status is RouteStatus.OK:
            frame_id, now_s = self._node.values["odom_frame"], self._node.now_s()
            path = PathMessage(header=messages.header(now_s, frame_id))
            path.poses = messages.pose_list(route.path_xyyaw, [now_s] * len(route.path_xyyaw), frame_id)
        request.end(path, NAV2_ERRORS.get(route.status, "UNKNOWN"), route.message, took_s)
