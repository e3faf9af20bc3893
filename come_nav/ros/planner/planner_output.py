"""What the planner tells: the path to drive, how the mission stands, and what was considered."""

from __future__ import annotations

from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import Path as PathMessage
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from come_nav.core.types import Plan
from come_nav.evaluation.running_accuracy import EvaluatedPlan
from come_nav.navigation.goals.mission import MissionState
from come_nav.navigation.goals.step import Progress, Step
from come_nav.navigation.navigator import Navigator
from come_nav.ros import messages
from come_nav.ros.camera import CameraInput
from come_nav.ros.diagnostics import Level, Report
from come_nav.ros.parameters import Parameter
from come_nav.ros.planner.action_goals import ActionGoals
from come_nav.ros.planner.markers import candidate_markers
from come_nav.ros.qos import COMMAND, LATCHED

OUTPUT_PARAMETERS = (
    Parameter("publish_candidates", True, "publish the candidates of each plan as markers"),
    Parameter("max_candidates", 100, "most candidates shown", 1, 5000),
)


class PlannerOutput:
    """The planner's publishers.

    Attributes:
        action_goals: told like everybody else.
        refused: why the newest goal is none; empty where it was taken.
    """

    def __init__(self, node: Any, navigator: Navigator, camera: CameraInput) -> None:
        self._node, self._navigator, self._camera = node, navigator, camera
        self.action_goals = ActionGoals()
        self.refused = ""
        self._plan: Plan | None = None
        self._plans = node.advertise(PathMessage, "plan", COMMAND)
        self._route = node.advertise(PathMessage, "route", LATCHED)
        self._markers = node.advertise(MarkerArray, "candidates", COMMAND)
        self._imagined = node.advertise(Image, "imagined_image", COMMAND)
        self._status = node.advertise(DiagnosticStatus, "navigation_status", LATCHED)
        self._accuracy = node.advertise(DiagnosticStatus, "plan_accuracy", COMMAND)

    def stand_still(self) -> None:
        """Publish a path without poses."""
        self._plans.publish(PathMessage(header=messages.header(self._node.now_s(), self._node.values["odom_frame"])))

    def failed(self, error: Exception) -> None:
        """Say what went wrong, and stop the robot."""
        self._node.diagnose(error, "planning")
        self.stand_still()

    def show(self, step: Step) -> None:
        """Publish what a step led to."""
        plan, drive, values = step.plan, step.drive, self._node.values
        if plan is None and step.state is not MissionState.ACTIVE:  # it ended without a plan: an image that is refused
            self.stand_still()
            self.tell()
        if plan is None or drive is None:
            return
        frame_id = values["odom_frame"]
        self._plans.publish(messages.path_message(drive, frame_id))
        if step.retreating:
            return
        self._plan = plan
        if values["publish_candidates"] and self._markers.get_subscription_count() > 0:  # thousands of points
            self._markers.publish(candidate_markers(plan, step.target, frame_id, values["max_candidates"]))
        if plan.imagined_rgb is not None:
            self._imagined.publish(messages.image_message(plan.imagined_rgb, plan.stamp_s, values["camera_frame"]))
        way = step.way_xy
        route = PathMessage(header=messages.header(plan.stamp_s, frame_id))
        if way is not None:
            poses = np.concatenate([way, np.zeros((len(way), 1))], axis=1)
            route.poses = messages.pose_list(poses, [plan.stamp_s] * len(way), frame_id)
        self._route.publish(route)
        self.tell()

    def tell(self) -> None:
        """Say how the mission stands, to the topic and to who asked for it."""
        self._status.publish(self.mission_report().to_message(self._node.get_name()))
        self.action_goals.update(self._navigator.mission, self.progress())

    def evaluated(self, evaluated: EvaluatedPlan) -> None:
        """Publish how a past plan compares with the way driven."""
        report = Report("plan", Level.OK, "a past plan against the way driven", evaluated.values())
        self._accuracy.publish(report.to_message(self._node.get_name()))

    def progress(self) -> Progress:
        """Return how far the mission is, at the newest odometry."""
        present = self._camera.track.newest
        if present is None:
            return self._navigator.progress()
        return self._navigator.progress(present.stamp_s, present.pose_xyyaw)

    def mission_report(self) -> Report:
        """Return how the mission stands."""
        progress, plan, mission = self._navigator.progress(), self._plan, self._navigator.mission
        values: dict[str, Any] = {"state": progress.state.value, "code": progress.code}
        values |= {"activity": progress.activity.value, "refused": self.refused}
        values["places"] = len(self._navigator.places)
        if np.isfinite(progress.difference):
            values["difference"] = progress.difference
        if plan is not None:
            values |= {"plan_status": plan.status.value, "cost": plan.cost, "plan_stamp_s": f"{plan.stamp_s:.3f}"}
            if plan.doubt is not None:
                values["doubt"] = plan.doubt
            if plan.message:
                values["plan_message"] = plan.message
        if np.isfinite(progress.distance_left_m):
            values["distance_left_m"] = progress.distance_left_m
        if self.refused:
            text = f"goal refused: {self.refused}" + (f"; {progress.message}" if mission.active else "")
            return Report("mission", Level.ERROR, text, values)
        return Report("mission", Level.ERROR if mission.failing else Level.OK, progress.message, values)
