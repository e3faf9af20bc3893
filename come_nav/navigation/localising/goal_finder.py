"""Where a goal's image was taken, and what that adds to a plan: a term of its cost, and a smooth path there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.geometry import se2, se3
from come_nav.core.types import Goal, ImageCamera
from come_nav.memory.short_term import Remembered, ShortTermBuffer
from come_nav.navigation.localising.goal_registration import GoalRegistration
from come_nav.navigation.localising.robot_localisation import RobotLocalisation, Sighting
from come_nav.navigation.localising.settings import LocalisationSettings
from come_nav.planning.objectives import RegisteredGoal
from come_nav.planning.registered_path import path_to_pose
from come_nav.planning.settings import KinematicsSettings, PlannerSettings


@dataclass(frozen=True)
class RegisteredTerm:
    """What a registered goal adds to a plan.

    Attributes:
        sighting: where its image was taken.
        objective: the term of the cost.
        path_xyyaw: (T, 3) smooth path there in the start frame.
    """

    sighting: Sighting
    objective: RegisteredGoal
    path_xyyaw: NDArray[np.float64]

    @property
    def message(self) -> str:
        """Return it in a few words."""
        sigma_m = float(np.sqrt(np.linalg.eigvalsh(self.sighting.covariance[:2, :2]).max()))
        where = "the newest frames" if self.sighting.keyframe < 0 else f"key frame {self.sighting.keyframe}"
        return f"goal registered to {where}: +-{sigma_m:.2f} m, {self.sighting.confidence:.0%} sure"


class GoalFinder:
    """Looks for images among the newest frames first, then among the key frames of a robot.

    What key frames say of the image asked for last is kept until there is another one.
    """

    def __init__(self, localisation: RobotLocalisation, memory: ShortTermBuffer) -> None:
        self._localisation, self._memory = localisation, memory
        self._recent = GoalRegistration()
        self._lock = threading.Lock()
        self._remembered: tuple[NDArray[np.uint8], ImageCamera, int, Sighting | None] | None = None

    def recent(self) -> list[Remembered]:
        """Return the newest frames that images are registered to, the oldest first."""
        return self._memory.newest_frames(self._localisation.settings.recent_frames)

    def has_features(self, rgb: NDArray[np.uint8]) -> bool:
        """Whether :meth:`sighting` can tell anything of an image (H, W, 3): it has features, and so has what was seen.

        Where it cannot, remembered views must be compared instead.
        """
        settings = self._localisation.settings
        if not settings.takes(rgb):
            return False
        seen = len(self._localisation) > 0 or self.tries(self.recent(), settings)
        return seen and self._recent.features(rgb, settings) >= settings.visual.registration.min_features

    def sighting(
        self,
        rgb: NDArray[np.uint8],
        camera: ImageCamera = None,
        frames: Sequence[Remembered] | None = None,
    ) -> Sighting | None:
        """Return where an image (H, W, 3) was taken; the likelier of two guesses where neither is certain.

        None where it has too few features, or nothing is known. ``camera`` is the image's; the focal length of an
        unknown one is solved from the matches. ``frames`` are the newest ones of a moment, those of now when None.
        """
        settings = self._localisation.settings
        near = self._recent.find(rgb, self.recent() if frames is None else frames, settings, camera)
        if near is not None and near.certain:
            return near
        known = self._among_keyframes(rgb, camera)
        found = [own for own in (near, known) if own is not None]
        return max(found, key=lambda own: (own.certain, own.confidence), default=None)

    def tries(self, frames: Sequence[Remembered], settings: LocalisationSettings) -> bool:
        """Whether images are registered at all: they are large enough, and settings say so."""
        wide = bool(frames) and frames[-1].frame.rgb.shape[1] >= settings.min_width_px
        return settings.use and wide

    def registered(
        self,
        goal: Goal,
        frames: Sequence[Remembered],
        twist: NDArray[np.float64] | None,
        search: PlannerSettings,
        settings: LocalisationSettings,
        robot: KinematicsSettings,
    ) -> RegisteredTerm | None:
        """Return what a goal adds to a plan that starts at the newest of ``frames``; None where it is not certain."""
        if goal.image_rgb is None or settings.goal_weight == 0.0 or not self.tries(frames, settings):
            return None
        sighting = self.sighting(goal.image_rgb, goal.camera, frames)
        if sighting is None or not sighting.certain:
            return None
        start = frames[-1].pose_odom_xyyaw
        target = se2.relative(start, sighting.pose_odom_xyyaw)
        covariance = se3.turned_covariance(sighting.covariance, se2.inverse(start))
        path = path_to_pose(target, twist, search, robot)
        objective = RegisteredGoal(
            torch.from_numpy(target),
            torch.from_numpy(covariance),
            sighting.confidence,
            torch.from_numpy(path),
            settings.goal_path_fraction,
        )
        return RegisteredTerm(sighting, objective, path)

    def _among_keyframes(self, rgb: NDArray[np.uint8], camera: ImageCamera) -> Sighting | None:
        if not len(self._localisation):
            return None
        revision = self._localisation.revision
        with self._lock:
            kept = self._remembered
        if kept is not None and kept[0] is rgb and kept[1:3] == (camera, revision):
            return kept[3]
        found = self._localisation.find(rgb, camera)
        with self._lock:
            self._remembered = (rgb, camera, revision, found)
        return found
