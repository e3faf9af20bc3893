"""Where an image was taken: the key frames that look most like it, registered one after the other until one is sure.

Cost on one core at 320 x 240 with 16 key frames: 110 to 190 ms, as many for an image that is nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2, se3
from come_nav.localisation.keyframe_map import KeyframeMap
from come_nav.localisation.registration import Registration
from come_nav.localisation.unknown_camera import register_unknown_camera
from come_nav.localisation.verification import Evidence, verify
from come_nav.localisation.view import View


@dataclass(frozen=True)
class VisualMatch:
    """Where an image was taken.

    Attributes:
        pose_map_xyyaw: (3,) of the robot's base; the best guess, whether certain or not; None without any.
        T_map_camera: (4, 4) of the image's camera; None without a guess.
        covariance: (3, 3) of the planar pose; infinite without a guess.
        confidence: probability that the pose is right, in [0, 1].
        certain: whether it is above the operating point.
        keyframe: index of the key frame that it was registered to; -1 without a guess.
        registration: to that key frame (a the key frame, b the image); None without candidates.
        evidence: for it; None without candidates.
    """

    pose_map_xyyaw: NDArray[np.float64] | None
    T_map_camera: NDArray[np.float64] | None
    covariance: NDArray[np.float64]
    confidence: float
    certain: bool
    keyframe: int
    registration: Registration | None
    evidence: Evidence | None


NOWHERE = VisualMatch(None, None, np.full((3, 3), np.inf), 0.0, False, -1, None, None)


def find_image(
    known: KeyframeMap, view: View, T_base_camera: NDArray[np.float64], rows: Iterable[int] | None = None
) -> VisualMatch:
    """Return where an image was taken, or the best guess with its confidence.

    Args:
        known: where to look.
        view: the image; without intrinsics its focal length is solved from the matches.
        T_base_camera: (4, 4) extrinsics of its camera, level.
        rows: key frames to register it to, in this order; those that look most like it when None.
    """
    config, best = known.config, NOWHERE
    if rows is None:
        rows = known.places.candidates(view.features, config.candidates)[0].tolist()
    for row in rows:
        found = known.register(row, view) if view.intrinsics is not None else _register_unknown(known, row, view)
        if found is None:
            continue
        registration, evidence = found
        if evidence.confidence > best.confidence or best.registration is None:
            best = _match(known, row, registration, evidence, T_base_camera)
        if best.confidence > 0.5 * (1.0 + config.certain):
            break
    return best


def _register_unknown(known: KeyframeMap, row: int, view: View) -> tuple[Registration, Evidence] | None:
    keyframe = known.keyframes[row].view
    if keyframe.points_camera_m is None:
        return None
    registration, camera = register_unknown_camera(keyframe, view, known.config.registration, known.config.matching)
    if camera is None:
        return None
    return registration, verify(keyframe, replace(view, intrinsics=camera), registration)


def _match(
    known: KeyframeMap, row: int, registration: Registration, evidence: Evidence, T_base_camera: NDArray[np.float64]
) -> VisualMatch:
    keyframe, confidence = known.keyframes[row], evidence.confidence
    relative, covariance = registration.planar(keyframe.T_footprint_camera, T_base_camera)
    pose_map = known.pose_map_xyyaw(row)
    T_map_camera = known.T_map_base(row) @ keyframe.T_base_camera @ registration.T_a_b
    spread = se3.turned_covariance(known.spread(covariance), pose_map)
    certain = confidence >= known.config.certain
    pose = se2.compose(pose_map, relative)
    return VisualMatch(pose, T_map_camera, spread, confidence, certain, row, registration, evidence)
