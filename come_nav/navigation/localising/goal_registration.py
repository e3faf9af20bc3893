"""Where a goal's image was taken relative to the newest frames, which no memory is needed for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2, se3
from come_nav.core.types import Frame, ImageCamera, camera_of_image
from come_nav.localisation.features import FeatureSettings
from come_nav.localisation.keyframe_map import LocaliserSettings
from come_nav.localisation.multi_view.appearance import appearance, appearance_confidence, rivalled
from come_nav.localisation.multi_view.joint_registration import level_pose_xyyaw, register_jointly
from come_nav.localisation.multi_view.triangulation import with_triangulated_points
from come_nav.localisation.registration import Registration
from come_nav.localisation.unknown_camera import register_unknown_camera
from come_nav.localisation.verification import verify
from come_nav.localisation.view import View, make_view
from come_nav.memory.short_term import Remembered
from come_nav.navigation.localising.robot_localisation import Sighting
from come_nav.navigation.localising.settings import LocalisationSettings

RIVALLED = 0.5  # of what counts as certain, where an image looks better from elsewhere
NEWEST = 2  # frames that an image of an unknown camera is tried with


class RecentViews:
    """Features of the newest frames, found once for each; of an image that is asked for again, the same."""

    def __init__(self) -> None:
        self._kept: list[tuple[NDArray[np.uint8], View]] = []
        self._image: tuple[NDArray[np.uint8], View] | None = None
        self._features: FeatureSettings | None = None

    def of(self, frames: Sequence[Remembered], config: LocaliserSettings) -> list[View]:
        """Return the views of frames; those of others are forgotten."""
        self._forget_others(config.features)
        kept = []
        for frame in (seen.frame for seen in frames):
            # by the image itself: stamps come again, in a new episode or where a clock began anew
            views = [view for rgb, view in self._kept if rgb is frame.rgb]
            kept.append((frame.rgb, views[0] if views else self._made(frame, config)))
        self._kept = kept
        return [view for _, view in kept]

    @staticmethod
    def _made(frame: Frame, config: LocaliserSettings) -> View:
        return make_view(frame.rgb, frame.intrinsics, frame.depth_m, config.features)

    def image(self, rgb: NDArray[np.uint8], config: LocaliserSettings) -> View:
        """Return the view of an image (H, W, 3), without a camera."""
        self._forget_others(config.features)
        if self._image is None or self._image[0] is not rgb:
            self._image = (rgb, make_view(rgb, None, None, config.features))
        return self._image[1]

    def _forget_others(self, features: FeatureSettings) -> None:
        """Forget features of other settings: two kinds cannot be matched."""
        if features != self._features:
            self._features, self._kept, self._image = features, [], None


class GoalRegistration:
    """Registers images to the newest frames. Threads may ask at once."""

    def __init__(self) -> None:
        self._views, self._lock = RecentViews(), threading.Lock()

    def features(self, rgb: NDArray[np.uint8], settings: LocalisationSettings) -> int:
        """Return how many features an image (H, W, 3) has."""
        with self._lock:
            return len(self._views.image(rgb, settings.visual).features)

    def find(
        self,
        rgb: NDArray[np.uint8],
        frames: Sequence[Remembered],
        settings: LocalisationSettings,
        camera: ImageCamera = None,
    ) -> Sighting | None:
        """Return where an image (H, W, 3) was taken; None where it does not register.

        Args:
            rgb: the image.
            frames: the newest frames, the oldest first; they count as odometry has them.
            settings: what counts.
            camera: of the image.
        """
        visual = settings.visual
        known = [seen for seen in frames if seen.frame.intrinsics is not None and seen.frame.T_base_camera is not None]
        known = [seen for seen in known if seen.frame.rgb.shape[1] >= settings.min_width_px]
        if not settings.use or rgb.shape[1] < settings.min_width_px or not known:
            return None
        newest = known[-1]
        taken_by = camera_of_image(camera, newest.frame.intrinsics, rgb)
        with self._lock:
            views = self._views.of(known, visual)
            image = replace(self._views.image(rgb, visual), intrinsics=taken_by)
        poses = [camera_poses(newest, seen) for seen in known]
        views = with_points(views, poses, visual)
        likeliest = _likeliest if taken_by is not None else _likeliest_of_unknown_camera
        found = likeliest(list(zip(views, poses, strict=True))[::-1], image, settings)
        return None if found is None else _sighting(newest, *found, settings)


def _likeliest(
    known: Sequence[tuple[View, NDArray[np.float64]]], image: View, settings: LocalisationSettings
) -> tuple[Registration, float] | None:
    """Return the registration to all known images, the newest first, and the probability that it is right.

    Where that is doubtful it is tried with the newest alone: the others may show nothing of what the image does.
    """
    best: tuple[Registration, float] | None = None
    for count in dict.fromkeys((len(known), 1)):
        views, poses = zip(*known[:count], strict=True)
        registration, evidence = register_jointly(
            views, poses, image, settings.visual.registration, settings.visual.matching
        )
        if evidence is not None:
            looks, view, T_a_b = _likest(known[:count], registration, image)
            confidence = appearance_confidence(evidence.confidence, looks)
            if confidence >= settings.recent_certain and rivalled(view, T_a_b, image):
                confidence = RIVALLED * settings.recent_certain
            if best is None or confidence > best[1]:
                best = registration, confidence
            if confidence >= settings.recent_certain:
                break
    return best


def _likeliest_of_unknown_camera(
    known: Sequence[tuple[View, NDArray[np.float64]]], image: View, settings: LocalisationSettings
) -> tuple[Registration, float] | None:
    """Return the likeliest registration to one of the newest images with points, its focal length from the matches."""
    best: tuple[Registration, float] | None = None
    for view, pose in [own for own in known if own[0].points_camera_m is not None][:NEWEST]:
        found, camera = register_unknown_camera(view, image, settings.visual.registration, settings.visual.matching)
        if camera is None:
            continue
        solved = replace(image, intrinsics=camera)
        looks = appearance(view, found.T_a_b, solved)
        confidence = appearance_confidence(verify(view, solved, found).confidence, looks)
        if best is None or confidence > best[1]:
            best = replace(found, T_a_b=pose @ found.T_a_b), confidence
    return best


def _likest(
    known: Sequence[tuple[View, NDArray[np.float64]]], registration: Registration, image: View
) -> tuple[float, View, NDArray[np.float64]]:
    """Return how much the image looks, from there, as the known one does that shows most of it, which, and its T_a_b.

    The first is NaN where no known image says anything.
    """
    found = []
    for view, pose in known:
        T_a_b = se3.relative(pose, registration.T_a_b)
        found.append((appearance(view, T_a_b, image), view, T_a_b))
    return max(found, key=lambda own: own[0] if np.isfinite(own[0]) else -np.inf)


def _sighting(
    newest: Remembered, registration: Registration, confidence: float, settings: LocalisationSettings
) -> Sighting:
    extrinsics = newest.frame.T_base_camera
    assert extrinsics is not None
    _, covariance = registration.planar(extrinsics, extrinsics)
    floors = np.diag([settings.recent_floor_m, settings.recent_floor_m, settings.recent_floor_rad]) ** 2
    return Sighting(
        se2.compose(newest.pose_odom_xyyaw, level_pose_xyyaw(extrinsics @ registration.T_a_b, extrinsics)),
        se3.turned_covariance(covariance + floors, newest.pose_odom_xyyaw),
        confidence,
        confidence >= settings.recent_certain,
        "newest frames",
    )


def with_points(views: Sequence[View], poses: Sequence[NDArray[np.float64]], config: LocaliserSettings) -> list[View]:
    """Return views of which those without depth got points from the others, seen from their poses (4, 4)."""
    found = []
    for own, (view, pose) in enumerate(zip(views, poses, strict=True)):
        if view.points_camera_m is None:
            rest = [(views[other], se3.relative(pose, poses[other])) for other in range(len(views)) if other != own]
            found.append(with_triangulated_points(view, rest, matching=config.matching))
        else:
            found.append(view)
    return found


def camera_poses(newest: Remembered, seen: Remembered) -> NDArray[np.float64]:
    """Return the optical frame (4, 4) of a frame in the optical frame of the newest one, as odometry has them."""
    assert newest.frame.T_base_camera is not None
    assert seen.frame.T_base_camera is not None
    moved = se3.transform_from_xyyaw(se2.relative(newest.pose_odom_xyyaw, seen.pose_odom_xyyaw))
    return np.asarray(se3.inverse(newest.frame.T_base_camera) @ moved @ seen.frame.T_base_camera)
