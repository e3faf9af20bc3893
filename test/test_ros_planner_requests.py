"""What the planner is asked while it is not active, and what it says of an image that it refuses; no DDS between."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from geometry_msgs.msg import PoseStamped
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from come_nav.core.types import Goal
from come_nav.navigation.goals.mission import Mission, MissionState
from come_nav.navigation.goals.step import Progress, Step
from come_nav.navigation.settings import ArrivalSettings
from come_nav.ros import messages
from come_nav.ros.nodes.planner_node import INACTIVE, PlannerNode, _answering
from come_nav.ros.planner.action_goals import ActionGoal, Outcome, PathRequest
from come_nav.ros.planner.planner_output import PlannerOutput
from come_nav.ros.planner.planner_requests import PlannerRequests

IMAGE = messages.image_message(np.zeros((48, 64, 3), np.uint8), 1.0, "camera")


class Publisher:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.sent: list = []

    def publish(self, message) -> None:
        self.sent.append(message)

    def get_subscription_count(self) -> int:
        return 0


class Robot:
    """The planner's requests and output, and as much of its node and navigator as they ask for."""

    def __init__(self) -> None:
        self.begun: list = []
        self.refused: list[str] = []
        self.topics: dict[str, Publisher] = {}
        self.node = PlannerNode.__new__(PlannerNode)  # its own methods alone; nothing is started
        self.mission = Mission(ArrivalSettings())
        self.mission.begin(Goal(image_rgb=np.zeros((48, 64, 3), np.uint8)))
        navigator = SimpleNamespace(begin=self.begun.append, mission=self.mission, progress=self.progress, places=[])
        navigator.cancel = self.mission.cancel
        camera = SimpleNamespace(
            track=SimpleNamespace(newest=None), pose_in_odom=lambda message: np.zeros(3), pose_now=lambda message: None
        )
        goals = SimpleNamespace(failed=lambda steady_s, why: self.refused.append(why), received=lambda steady_s: None)
        said = SimpleNamespace(info=lambda text: None)
        parts = SimpleNamespace(
            values={"odom_frame": "odom", "goal_fov_deg": 0.0},
            now_s=lambda: 1.0,
            get_name=lambda: "planner",
            advertise=self.advertise,
            diagnose=lambda error, where: None,
            log=said,
        )
        self.output = PlannerOutput(parts, navigator, camera)
        self.requests = PlannerRequests(parts, navigator, camera, self.output, goals)
        self.node.__dict__.update(active=False, _requests=self.requests, _goals=goals)

    def progress(self, *at) -> Progress:
        return Progress(1.0, np.zeros(3), self.mission.message, state=self.mission.state, code=self.mission.code)

    def advertise(self, kind, topic: str, quality) -> Publisher:
        self.topics[topic] = Publisher()
        return self.topics[topic]


def action_goal(answers: list) -> ActionGoal:
    return ActionGoal(IMAGE, lambda progress: None, answers.append)


def test_a_goal_that_comes_before_the_planner_is_active_is_no_goal_later() -> None:
    robot, answers, paths = Robot(), [], []
    robot.node._taking_goal("pose")(PoseStamped())
    robot.node._post("action_goal", action_goal(answers))
    robot.node._post("path", PathRequest(PoseStamped(), lambda *answer: paths.append(answer)))
    response = _answering("the robot explores", lambda: robot.node._post("explore", None))(None, Trigger.Response())
    assert (response.success, response.message) == (False, INACTIVE)
    cancelled = _answering("the robot stops", lambda: robot.node._post("cancel", None))(None, Trigger.Response())
    assert cancelled.success
    assert robot.refused == [INACTIVE, INACTIVE]
    assert [answer.outcome for answer in answers] == [Outcome.FAILED]
    assert paths[0][:3] == (None, "UNKNOWN", INACTIVE)
    robot.node.active = True
    robot.requests.obey()
    assert robot.begun == []
    robot.node._post("explore", None)
    robot.requests.obey()
    assert [request.explore for request in robot.begun] == [True]


def test_what_waits_when_the_planner_ends_is_answered_and_an_e_stop_stays() -> None:
    robot, answers = Robot(), []
    robot.node.active = True
    robot.node._post("action_goal", action_goal(answers))
    robot.node._post("pose", PoseStamped())
    robot.requests.take_e_stop(Bool(data=True))
    robot.requests.drop(INACTIVE)
    assert [answer.message for answer in answers] == [INACTIVE]
    robot.node._post("pose", PoseStamped())
    robot.requests.obey()
    assert robot.begun == [] and "e-stop" in robot.output.refused


def test_an_image_that_is_refused_stops_the_robot_and_answers_who_asked() -> None:
    robot, answers = Robot(), []
    robot.output.action_goals.begin(action_goal(answers), robot.output.progress())
    robot.output.show(Step(MissionState.ACTIVE))
    assert answers == [] and robot.topics["plan"].sent == []
    robot.mission.fail("NOT_RECOGNISED", "the image is not recognised")
    robot.output.show(Step(MissionState.FAILED))
    (path,), (status,) = robot.topics["plan"].sent, robot.topics["navigation_status"].sent
    assert len(path.poses) == 0 and "not recognised" in status.message
    assert [(answer.outcome, answer.code) for answer in answers] == [(Outcome.FAILED, "NOT_RECOGNISED")]
