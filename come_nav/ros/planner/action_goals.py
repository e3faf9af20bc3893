"""What somebody asks of the planner and waits for: a drive to an image, told about on the way and answered once.

Nothing here knows an action type: a server hands in functions that tell and answer, and any thread may call them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from come_nav.navigation.goals.mission import Mission, MissionState
from come_nav.navigation.goals.step import Progress


class Outcome(IntEnum):
    """How an action goal ended; the numbers of come_nav_interfaces/action/NavigateToImage."""

    REACHED = 1
    FAILED = 2
    CANCELLED = 3
    REPLACED = 4


ENDINGS = {
    MissionState.REACHED: Outcome.REACHED,
    MissionState.FAILED: Outcome.FAILED,
    MissionState.CANCELLED: Outcome.CANCELLED,
}


@dataclass(frozen=True)
class Ending:
    """The answer: ``code`` says why an action goal failed."""

    outcome: Outcome
    code: str
    message: str
    last: Progress


class ActionGoal:
    """An image to drive to, and whom to tell."""

    def __init__(self, image: Any, on_progress: Callable[[Progress], None], on_end: Callable[[Ending], None]) -> None:
        """Take the image message and who is told; ``on_end`` is called exactly once."""
        self.image = image
        self.ending: Ending | None = None
        self._on_progress, self._on_end = on_progress, on_end
        self._lock = threading.Lock()

    def tell(self, progress: Progress) -> None:
        """Tell how far the robot is; nothing after the end."""
        if self.ending is None:
            self._on_progress(progress)

    def end(self, outcome: Outcome, code: str, message: str, last: Progress) -> None:
        """Answer; only the first call counts."""
        with self._lock:
            if self.ending is not None:
                return
            self.ending = Ending(outcome, code, message, last)
        self._on_end(self.ending)


class ActionGoals:
    """The action goal that drives the robot, if one does; goals from topics take its place like any other."""

    def __init__(self) -> None:
        self.current: ActionGoal | None = None

    def begin(self, action_goal: ActionGoal | None, progress: Progress) -> None:
        """A new mission has begun, for an action goal or (None) for nobody; the action goal before is over."""
        before, self.current = self.current, action_goal
        if before is not None:
            before.end(Outcome.REPLACED, "REPLACED", "a later goal has come", progress)

    def update(self, mission: Mission, progress: Progress) -> None:
        """Tell or answer, as the mission stands."""
        action_goal = self.current
        if action_goal is None:
            return
        if mission.active:
            action_goal.tell(progress)
            return
        self.current = None
        outcome = ENDINGS.get(mission.state, Outcome.CANCELLED)
        action_goal.end(outcome, mission.code, mission.message, progress)

    @staticmethod
    def refuse(action_goal: ActionGoal, why: str, progress: Progress) -> None:
        """The image is no goal; the mission before goes on."""
        action_goal.end(Outcome.FAILED, "BAD_GOAL", why, progress)


class PathRequest:
    """A pose that a path is asked to, and whom to hand it."""

    def __init__(
        self, pose: Any, on_end: Callable[[Any | None, str, str, float], None], start: Any | None = None
    ) -> None:
        """Take the PoseStamped, and another ``start`` than the robot's pose.

        ``on_end`` gets a path message or None, Nav2's name of the error, why, and how long the search took, s.
        """
        self.pose, self.end, self.start = pose, on_end, start
