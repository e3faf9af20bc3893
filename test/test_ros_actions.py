"""Actions: an action goal is told about and answered once; the package of the action fits the grammar and the code."""

from __future__ import annotations

import dataclasses
import math
import re
import types
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
import rclpy.action
from sensor_msgs.msg import Image

from come_nav import __version__
from come_nav.core.errors import DataError
from come_nav.core.types import Goal, Plan, PlanStatus
from come_nav.navigation.goals.mission import ArrivalSettings, Mission
from come_nav.navigation.goals.step import Progress
from come_nav.planning.grid_route import Route, RouteStatus
from come_nav.ros.planner import actions
from come_nav.ros.planner.action_goals import ActionGoal, ActionGoals, Outcome, PathRequest
from come_nav.ros.planner.planner_requests import PlannerRequests

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "come_nav_interfaces"
HERE = Progress(12.0, np.array([1.0, 2.0, 0.5]), "on the way", 0.8, 3.0)


def action_goal_with_diary() -> tuple[ActionGoal, list]:
    diary: list = []
    return ActionGoal(Image(), diary.append, diary.append), diary


def failed_plan() -> Plan:
    return Plan(PlanStatus.ALL_IN_COLLISION, 1.0, 0.25, np.zeros((0, 3)), np.zeros(3), message="a wall")


def mission_under_way() -> Mission:
    mission = Mission(ArrivalSettings(max_failures=1))
    mission.begin(Goal(pose_odom_xyyaw=np.zeros(3)))
    return mission


def test_an_action_goal_is_told_about_and_answered_once():
    action_goal, diary = action_goal_with_diary()
    action_goals, mission = ActionGoals(), mission_under_way()
    action_goals.begin(action_goal, HERE)
    action_goals.update(mission, HERE)
    assert diary == [HERE]
    mission.evaluate(failed_plan(), np.zeros(3))
    action_goals.update(mission, HERE)
    action_goals.update(mission, HERE)
    action_goal.tell(HERE)
    action_goal.end(Outcome.REACHED, "", "too late", HERE)
    assert len(diary) == 2
    assert (diary[1].outcome, diary[1].code, diary[1].message) == (Outcome.FAILED, "ALL_IN_COLLISION", "a wall")
    assert action_goals.current is None


@pytest.mark.parametrize("by_topic", [True, False])
def test_a_later_goal_takes_the_place_of_an_action_goal(by_topic):
    (first, diary), (second, _) = action_goal_with_diary(), action_goal_with_diary()
    action_goals = ActionGoals()
    action_goals.begin(first, HERE)
    action_goals.begin(None if by_topic else second, HERE)
    assert [ending.outcome for ending in diary] == [Outcome.REPLACED]
    assert action_goals.current is (None if by_topic else second)


def test_cancelled_missions_and_images_that_are_none():
    action_goal, diary = action_goal_with_diary()
    action_goals, mission = ActionGoals(), mission_under_way()
    action_goals.begin(action_goal, HERE)
    mission.cancel()
    action_goals.update(mission, HERE)
    assert diary[0].outcome is Outcome.CANCELLED
    other, diary = action_goal_with_diary()
    action_goals.refuse(other, "image encoding 'banana8' is not supported", HERE)
    assert (diary[0].outcome, diary[0].code) == (Outcome.FAILED, "BAD_GOAL")


# -- the servers, against stand-ins for an action's types and rclpy's server -----------------------------------------


class Handle:
    def __init__(self, **request) -> None:
        self.goal_id = types.SimpleNamespace(uuid=[7] * 16)
        self.request = types.SimpleNamespace(**request)
        self.is_cancel_requested = False
        self.feedback, self.state, self.result = [], "accepted", None
        self.publish_feedback = self.feedback.append

    def execute(self, answer) -> None:
        self.result = answer(self)

    def succeed(self) -> None:
        self.state = "succeeded"

    def abort(self) -> None:
        self.state = "aborted"

    def canceled(self) -> None:
        self.state = "canceled"


class Node:
    def __init__(self) -> None:
        self.active = True
        self.values = {"odom_frame": "odom", "serve_navigate_to_image": True, "serve_compute_path_to_pose": True}
        self.values["planner_ids"] = ("come_nav", "GridBased")
        self.said: list[str] = []
        self.log = types.SimpleNamespace(info=self.said.append, warning=self.said.append)
        self.kept: list = []
        self.keep_action = self.kept.append


@pytest.fixture
def offer(monkeypatch):
    """Return a function that offers the installed actions and returns node, requests and servers by name."""

    class Server:
        def __init__(self, node, action, name, **callbacks) -> None:
            self.name, self.callbacks = name, callbacks

    action = types.SimpleNamespace(Feedback=types.SimpleNamespace, Result=types.SimpleNamespace)
    monkeypatch.setattr(rclpy.action, "ActionServer", Server)

    def make(installed=("NavigateToImage", "ComputePathToPose"), result=types.SimpleNamespace):
        action.Result, action.Goal = result, types.SimpleNamespace
        module = types.SimpleNamespace(**dict.fromkeys(installed, action))
        monkeypatch.setattr(actions, "optional_module", lambda name: module)
        node, requests = Node(), []
        names = actions.serve_actions(node, lambda kind, message: requests.append((kind, message)))
        assert [server.name for server in node.kept] == names
        return node, requests, {server.name: server.callbacks for server in node.kept}

    return make


def test_actions_are_offered_where_they_are_built(offer):
    node, _, servers = offer(installed=())
    assert servers == {}
    assert "come_nav_interfaces is not built here: the action navigate_to_image is not offered" in node.said
    node, _, servers = offer()
    evaluate = servers["navigate_to_image"]["goal_callback"]
    assert evaluate(None) is rclpy.action.GoalResponse.ACCEPT
    node.active = False
    assert evaluate(None) is rclpy.action.GoalResponse.REJECT


@pytest.mark.parametrize(
    ("outcome", "asked_to_cancel", "state"),
    [
        (Outcome.REACHED, False, "succeeded"),
        (Outcome.FAILED, False, "aborted"),
        (Outcome.REPLACED, False, "aborted"),
        (Outcome.CANCELLED, True, "canceled"),
    ],
)
def test_an_image_is_driven_to(offer, outcome, asked_to_cancel, state):
    _, requests, servers = offer()
    callbacks, handle = servers["navigate_to_image"], Handle(image=Image(width=3))
    callbacks["handle_accepted_callback"](handle)
    (kind, action_goal), *_ = requests
    assert (kind, action_goal.image.width) == ("action_goal", 3)
    action_goal.tell(HERE)
    feedback = handle.feedback[0]
    assert (feedback.distance_left, feedback.difference, feedback.message) == (3.0, 0.8, "on the way")
    assert feedback.pose.header.frame_id == "odom"
    assert feedback.pose.pose.position.y == pytest.approx(2.0)
    if asked_to_cancel:
        assert callbacks["cancel_callback"](handle) is rclpy.action.CancelResponse.ACCEPT
        assert requests[-1] == ("cancel action goal", action_goal)
        handle.is_cancel_requested = True
    action_goal.end(outcome, "CODE", "why", HERE)
    assert handle.state == state
    assert (handle.result.outcome, handle.result.code, handle.result.message) == (int(outcome), "CODE", "why")
    assert callbacks["cancel_callback"](handle) is rclpy.action.CancelResponse.REJECT  # it is over


class PathResult:
    NO_VALID_PATH, INVALID_PLANNER, UNKNOWN = 208, 201, 200

    def __init__(self) -> None:
        self.error_code, self.path, self.planning_time = 0, None, None


def test_a_path_is_asked_for(offer):
    _, requests, servers = offer()
    accept = servers["compute_path_to_pose"]["handle_accepted_callback"]
    handle = Handle(goal="a pose", use_start=False, planner_id="GridBased")
    accept(handle)
    kind, request = requests[0]
    assert (kind, request.pose, request.start) == ("path", "a pose", None)
    assert isinstance(request, PathRequest)
    request.end("a path", "", "", 1.25)
    assert (handle.state, handle.result.path) == ("succeeded", "a path")
    assert (handle.result.planning_time.sec, handle.result.planning_time.nanosec) == (1, 250_000_000)
    elsewhere = Handle(goal="a pose", start="there", use_start=True, planner_id="")
    accept(elsewhere)
    assert requests[1][1].start == "there"


@pytest.mark.parametrize(
    ("planner_id", "error", "code"),
    [("", "NO_VALID_PATH", 208), ("", "START_OUTSIDE_MAP", 200), ("SmacPlanner", "INVALID_PLANNER", 201)],
)
def test_a_path_is_refused_with_the_code_of_the_nav2_that_is_installed(offer, planner_id, error, code):
    node, requests, servers = offer(result=PathResult)
    handle = Handle(goal="a pose", use_start=False, planner_id=planner_id)
    servers["compute_path_to_pose"]["handle_accepted_callback"](handle)
    if not planner_id:
        requests[0][1].end(None, error, "a wall", 0.5)
    assert (handle.state, handle.result.error_code, handle.result.path) == ("aborted", code, None)
    assert error in node.said[-1]
    assert not planner_id or "must be one of come_nav, GridBased" in node.said[-1]


class Poses:
    """As much of the planner's parts as requests for paths ask for: a pose is itself, one of another frame is none."""

    values: ClassVar[dict] = {"odom_frame": "odom"}

    def __init__(self, route: Route) -> None:
        self.route, self.asked = route, []

    def now_s(self) -> float:
        return 2.0

    def pose_in_odom(self, message):
        if isinstance(message, str):
            raise DataError("goal is in frame 'map', and tf does not connect it to 'odom'")
        return np.array(message)

    def path_to(self, goal, now_s, start):
        self.asked.append((goal, start))
        return self.route


def answer_of(pose, route: Route, start=None) -> tuple:
    parts, answers = Poses(route), []
    requests = PlannerRequests(parts, parts, parts, None, None)
    requests.post("path", PathRequest(pose, lambda *answer: answers.append(answer), start))
    requests.obey()
    return answers[0]


def test_paths_and_refusals_are_those_of_the_navigator():
    whole = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.5]])
    path, _, _, seconds = answer_of((1.0, 1.0, 0.5), Route(RouteStatus.OK, whole))
    assert [pose.pose.position.x for pose in path.poses] == [0.0, 1.0, 1.0]
    assert (path.header.frame_id, path.header.stamp.sec) == ("odom", 2)
    assert seconds > 0.0
    refused = {
        RouteStatus.NO_ROUTE: "NO_VALID_PATH",
        RouteStatus.GOAL_OCCUPIED: "GOAL_OCCUPIED",
        RouteStatus.TOO_FAR: "GOAL_OUTSIDE_MAP",
        RouteStatus.NOT_READY: "UNKNOWN",
    }
    for status, name in refused.items():
        assert answer_of((1.0, 1.0, 0.5), Route(status, message="why"))[:3] == (None, name, "why")
    assert answer_of("in map", Route(RouteStatus.OK, whole))[:2] == (None, "TF_ERROR")


# -- the package of the action ---------------------------------------------------------------------------------------


def declared(spec) -> dict[str, str]:
    return {field.name: str(field.type) for field in spec.fields}


def test_the_action_fits_the_grammar_and_the_code():
    parser = pytest.importorskip("rosidl_adapter.parser", reason="rosidl_adapter is not installed")
    file = PACKAGE / "action" / "NavigateToImage.action"
    spec = parser.parse_action_file("come_nav_interfaces", str(file))
    assert declared(spec.goal) == {"image": "sensor_msgs/Image"}
    progress = {field.name for field in dataclasses.fields(Progress)}
    assert {"pose", "message", "difference"} <= declared(spec.result).keys() & declared(spec.feedback).keys()
    assert declared(spec.feedback).keys() == {"pose", "message", "difference", "distance_left"}
    assert {"message", "difference", "distance_left_m"} <= progress
    assert declared(spec.result).keys() == {"pose", "message", "difference", "outcome", "code"}
    constants = {constant.name: constant.value for constant in spec.result.constants}
    assert constants == {outcome.name: int(outcome) for outcome in Outcome}


def test_rosidl_reads_the_action_as_idl(tmp_path):
    adapter = pytest.importorskip("rosidl_adapter.action", reason="rosidl_adapter is not installed")
    parser = pytest.importorskip("rosidl_parser.parser", reason="rosidl_parser is not installed")
    definition = pytest.importorskip("rosidl_parser.definition")
    idl = adapter.convert_action_to_idl(PACKAGE, "come_nav_interfaces", Path("action/NavigateToImage.action"), tmp_path)
    content = parser.parse_idl_file(definition.IdlLocator(tmp_path, idl.relative_to(tmp_path))).content
    (action,) = content.get_elements_of_type(definition.Action)
    names = [member.name for member in action.result.structure.members]
    assert names == ["outcome", "code", "message", "pose", "difference"]


def test_the_package_is_complete_and_kept_out_of_the_python_package():
    manifest = ElementTree.parse(PACKAGE / "package.xml").getroot()
    assert manifest.findtext("name") == "come_nav_interfaces"
    assert manifest.findtext("version") == __version__
    assert manifest.findtext("export/build_type") == "ament_cmake"
    assert manifest.findtext("member_of_group") == "rosidl_interface_packages"
    recipe = (PACKAGE / "CMakeLists.txt").read_text()
    built = re.findall(r'"(action/\w+\.action)"', recipe)
    assert built == [path.relative_to(PACKAGE).as_posix() for path in sorted(PACKAGE.glob("action/*.action"))]
    depends = {element.text for element in manifest if element.tag.endswith("depend")}
    assert set(re.findall(r"find_package\((\w+_msgs) ", recipe)) == {name for name in depends if "_msgs" in name}
    assert not list(PACKAGE.rglob("*.py"))  # setuptools must not take it for a part of come_nav
    assert not list(PACKAGE.rglob("COLCON_IGNORE"))


def test_unknown_figures_are_not_a_number():
    assert math.isnan(Progress(0.0, np.zeros(3), "").difference)
