"""What a navigator sees, remembers, considers and does, written to a recording for Rerun while it drives."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from come_nav.core.types import Frame, Odometry, Plan
from come_nav.localisation.registration import RegistrationStatus, register
from come_nav.localisation.view import make_view
from come_nav.navigation.goals.step import Step
from come_nav.navigation.navigator import Navigator
from come_nav.viz.rerun_recording import RerunRecording

CLOUD_PERIOD_S, REGISTER_PERIOD_S = 2.0, 2.0
MOST_POINTS = 50000
WAITING = 64  # plans whose end is still to come


class NavigationRecorder:
    """Told of each frame and each step; one thread may tell of frames while another tells of steps."""

    def __init__(self, navigator: Navigator, recording: RerunRecording) -> None:
        """Take who drives, and what is written to."""
        self._navigator, self._recording = navigator, recording
        self._imagined: deque[Plan] = deque(maxlen=WAITING)
        self._next_cloud_s = self._next_registration_s = -np.inf

    def close(self) -> None:
        """End the file."""
        self._recording.close()

    def observe(self, frame: Frame, odometry: Odometry) -> None:
        """Take a frame that the navigator took, and where odometry had the robot then."""
        recording = self._recording
        recording.frame(frame, odometry.T_odom_base)
        came = None
        while self._imagined and _end_s(self._imagined[0]) <= frame.stamp_s:
            came = self._imagined.popleft()
        if came is not None and came.imagined_rgb is not None:
            recording.imagined(frame.stamp_s, came.imagined_rgb, frame.rgb)
        if frame.stamp_s >= self._next_cloud_s:
            self._next_cloud_s = frame.stamp_s + CLOUD_PERIOD_S
            self._show_cloud(frame.stamp_s)

    def show(self, step: Step) -> None:
        """Take a step that the navigator made."""
        plan = step.plan
        if plan is None or step.retreating:
            return
        recording, experts = self._recording, self._navigator.stack.settings.experts
        recording.plan(plan, step.way_xy, step.target)
        recording.obstacles(plan.stamp_s, self._navigator.obstacles.points_odom_xy)
        episode = self._navigator.stack.episode
        names = [name for name in episode.in_use().names if name not in episode.diagnostics]
        recording.exponents(plan.stamp_s, experts.weights(names))
        if plan.imagined_rgb is not None:
            self._imagined.append(plan)
        goal = self._navigator.mission.goal
        if goal is not None and goal.image_rgb is not None and plan.stamp_s >= self._next_registration_s:
            self._next_registration_s = plan.stamp_s + REGISTER_PERIOD_S
            self._register(plan.stamp_s, goal.image_rgb)

    def _show_cloud(self, stamp_s: float) -> None:
        space = self._navigator.stack.episode.space
        if space is None or not len(space.cloud):
            return
        cloud = space.cloud
        chosen = slice(None, None, max(1, -(-len(cloud) // MOST_POINTS)))
        colours = np.clip((cloud.point_features[chosen, :3] + 1.0) * 127.5, 0, 255).astype(np.uint8)
        self._recording.cloud(stamp_s, cloud.points_xyz[chosen], colours)

    def _register(self, stamp_s: float, goal_rgb: NDArray[np.uint8]) -> None:
        """Show which features of the goal's image are those of the newest frame, where they agree on a pose."""
        newest, visual = self._navigator.stack.memory.newest, self._navigator.stack.settings.localisation.visual
        if newest is None or newest.frame.depth_m is None or newest.frame.intrinsics is None:
            return
        frame = newest.frame
        seen = make_view(frame.rgb, frame.intrinsics, frame.depth_m, visual.features)
        sought = make_view(goal_rgb, frame.intrinsics, None, visual.features)
        found = register(seen, sought, visual.registration, visual.matching)
        if found.status is RegistrationStatus.OK:
            rows = found.inliers
            pixels = seen.features.keypoints_px[rows[:, 0]], sought.features.keypoints_px[rows[:, 1]]
            self._recording.registered(stamp_s, (frame.rgb, goal_rgb), pixels)


def _end_s(plan: Plan) -> float:
    return plan.stamp_s + plan.dt_s * len(plan.poses_xyyaw)
