"""Actions of the planner, where their packages are built: drive to an image, and Nav2's path to a pose.

A goal is not executed while it drives: rclpy would poll its coroutine without a pause, in the executor's thread. It
stays accepted, with feedback, and is executed in the moment when its answer is known.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from come_nav.navigation.goals.step import Progress
from come_nav.ros import messages
from come_nav.ros.parameters import Parameter
from come_nav.ros.planner.action_goals import ActionGoal, Ending, Outcome, PathRequest
from come_nav.ros.transforms import optional_module

ACTION_PARAMETERS = (
    Parameter("serve_navigate_to_image", True, "offer the action, where come_nav_interfaces is built", when="start"),
    Parameter(
        "serve_compute_path_to_pose", False, "offer Nav2's action, where Nav2's own planner does not run", when="start"
    ),
    Parameter("planner_ids", ["come_nav", "GridBased"], "planner_id of requests that are answered", when="start"),
)
Post = Callable[[str, Any], object]


def serve_actions(node: Any, post: Post) -> list[str]:
    """Offer what the parameters ask for and what is installed; return the names of the actions.

    Args:
        node: ManagedNode with ACTION_PARAMETERS.
        post: hands ("action_goal", ActionGoal), ("cancel action goal", ActionGoal) or ("path", PathRequest) to the
            node's worker.
    """
    offers = (
        ("navigate_to_image", "come_nav_interfaces.action", "NavigateToImage", ImageServer),
        ("compute_path_to_pose", "nav2_msgs.action", "ComputePathToPose", PathServer),
    )
    served = []
    for name, module, kind, server in offers:
        if not node.values[f"serve_{name}"]:
            continue
        action = getattr(optional_module(module), kind, None)
        if action is None:
            node.log.info(f"{module.partition('.')[0]} is not built here: the action {name} is not offered")
            continue
        server(node, action, name, post)
        served.append(name)
    return served


class _Server(ABC):
    """What both actions share: goals only while the node is active, an answer from whatever thread."""

    def __init__(self, node: Any, action: Any, name: str, post: Post) -> None:
        # rclpy.action does not mark what it passes on as exported
        from rclpy.action import ActionServer, CancelResponse, GoalResponse  # type: ignore[attr-defined]

        self.node, self.action, self.post = node, action, post

        def evaluate(request: Any) -> Any:
            return GoalResponse.ACCEPT if node.active else GoalResponse.REJECT

        def cancel(handle: Any) -> Any:
            return CancelResponse.ACCEPT if self.cancelled(handle) else CancelResponse.REJECT

        server = ActionServer(
            node,
            action,
            name,
            execute_callback=lambda handle: action.Result(),
            goal_callback=evaluate,
            cancel_callback=cancel,
            handle_accepted_callback=self.accepted,
        )
        node.keep_action(server)

    @abstractmethod
    def accepted(self, handle: Any) -> None:
        """Take an accepted goal."""

    def cancelled(self, handle: Any) -> bool:
        """Ask for the end of a goal; return whether it can be ended."""
        return False


class ImageServer(_Server):
    """come_nav_interfaces/action/NavigateToImage."""

    def __init__(self, node: Any, action: Any, name: str, post: Post) -> None:
        self._action_goals: dict[bytes, ActionGoal] = {}
        super().__init__(node, action, name, post)

    def accepted(self, handle: Any) -> None:
        """Hand the image to the worker."""
        key = bytes(handle.goal_id.uuid)
        action_goal = ActionGoal(
            handle.request.image,
            lambda progress: handle.publish_feedback(self.feedback(progress)),
            lambda ending: self._finish(handle, key, ending),
        )
        self._action_goals[key] = action_goal
        self.post("action_goal", action_goal)

    def cancelled(self, handle: Any) -> bool:
        """Let the worker stop the robot."""
        action_goal = self._action_goals.get(bytes(handle.goal_id.uuid))
        if action_goal is None:
            return False
        self.post("cancel action goal", action_goal)
        return True

    def feedback(self, progress: Progress) -> Any:
        """Return the feedback message."""
        values = {"message": progress.message, "distance_left": progress.distance_left_m}
        return self._filled(self.action.Feedback(), progress, values)

    def result(self, ending: Ending) -> Any:
        """Return the result message."""
        values = {"outcome": int(ending.outcome), "code": ending.code, "message": ending.message}
        return self._filled(self.action.Result(), ending.last, values)

    def _filled(self, message: Any, progress: Progress, values: dict[str, Any]) -> Any:
        frame_id = self.node.values["odom_frame"]
        pose = np.asarray(progress.pose_odom_xyyaw, float)[None]
        message.pose = messages.pose_list(pose, [progress.stamp_s], frame_id)[0]
        message.difference = progress.difference
        for name, value in values.items():
            setattr(message, name, value)
        return message

    def _finish(self, handle: Any, key: bytes, ending: Ending) -> None:
        def answer(handle: Any) -> Any:
            if ending.outcome is Outcome.REACHED:
                handle.succeed()
            elif handle.is_cancel_requested:
                handle.canceled()
            else:
                handle.abort()
            self._action_goals.pop(key, None)
            return self.result(ending)

        handle.execute(answer)


class PathServer(_Server):
    """nav2_msgs/action/ComputePathToPose: a whole path, or one of Nav2's error codes."""

    def accepted(self, handle: Any) -> None:
        """Hand the pose to the worker."""
        request, known = handle.request, self.node.values["planner_ids"]
        if request.planner_id and request.planner_id not in known:
            why = f"planner_id is '{request.planner_id}', must be one of {', '.join(known)}"
            self._finish(handle, None, "INVALID_PLANNER", why, 0.0)
            return
        start = request.start if request.use_start else None
        self.post("path", PathRequest(request.goal, lambda *answer: self._finish(handle, *answer), start))

    def _finish(self, handle: Any, path: Any | None, error: str, why: str, seconds: float) -> None:
        def answer(handle: Any) -> Any:
            result = self.action.Result()
            result.planning_time = messages.duration_from_seconds(seconds)
            if path is None:
                self.node.log.warning(f"compute_path_to_pose: {error}: {why}")
                if hasattr(result, "error_code"):  # since Iron
                    result.error_code = self._code(error)
                if hasattr(result, "error_msg"):  # since Kilted
                    result.error_msg = why
                handle.abort()
            else:
                result.path = path
                handle.succeed()
            return result

        handle.execute(answer)

    def _code(self, error: str) -> int:
        """Return the number of an error, which differs between Nav2's versions, as does the message that has it."""
        holders = (self.action.Result, self.action.Goal)
        found = (getattr(holder, name, None) for name in (error, "UNKNOWN") for holder in holders)
        return next((int(code) for code in found if code is not None), 1)
