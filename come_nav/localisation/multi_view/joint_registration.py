"""One image registered to several at once, whose poses relative to each other are known: the newest frames of a robot.

Matches with each of them are put together before a pose is searched, so that images which see little of it each decide
together. Cost on one core, four images of 600 features: about 60 ms, verification included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.localisation.matching import MatchingSettings, match_features
from come_nav.localisation.refinement import Correspondences, linearise
from come_nav.localisation.registration import (
    Registration,
    RegistrationSettings,
    RegistrationStatus,
    correspondences,
    is_steady,
    settle,
    solve_pnp,
)
from come_nav.localisation.verification import Evidence, verify
from come_nav.localisation.view import View

ITERATIONS = 3  # times those of RANSAC for one image: a smaller share of all matches agrees


def register_jointly(
    known: Sequence[View],
    T_ref_known: Sequence[NDArray[np.float64]],
    b: View,
    config: RegistrationSettings | None = None,
    matching: MatchingSettings | None = None,
) -> tuple[Registration, Evidence | None]:
    """Register image b to known images; return its pose in the reference frame and the evidence for it.

    Args:
        known: images, the most important first; those without points count for nothing.
        T_ref_known: (4, 4) pose of the optical frame of each in a frame of reference.
        b: the image; its camera is known.
        config: when it counts as registered.
        matching: what counts as a match.

    Returns:
        The registration, whose ``T_a_b`` is T_ref_b and whose inliers count the features of all known images one after
        the other; and the evidence in the image that speaks most for it, None unless the registration is OK.

    Raises:
        DataError: where b's camera is unknown.
    """
    settings = config or RegistrationSettings()
    if b.intrinsics is None:
        raise DataError("registration needs the camera of the image; give it intrinsics")
    first_rows = np.cumsum([0, *(len(view.features) for view in known)])
    parts, rows = [], []
    enough = [view.known.sum() >= 4 and len(view.features) >= settings.min_features for view in known]
    if len(b.features) < settings.min_features or not any(enough):
        return Registration.failed(RegistrationStatus.TOO_FEW_FEATURES), None
    for view, pose, usable, first in zip(known, T_ref_known, enough, first_rows, strict=False):
        if usable:
            check_shape("T_ref_known", pose, "4 4")
            pairs = match_features(view.features, b.features, matching)
            pairs = pairs[view.known[pairs[:, 0]]]
            parts.append(_moved(correspondences(view, b, pairs, settings), pose))
            rows.append(pairs + np.array([first, 0]))
    found, pairs = _joined(parts), np.concatenate(rows)
    if _features(pairs) < settings.min_matches:
        return Registration.failed(RegistrationStatus.TOO_FEW_MATCHES), None
    start = solve_pnp(found, b.intrinsics, settings, ITERATIONS * settings.iterations)
    if start is None:
        return Registration.failed(RegistrationStatus.NO_CONSENSUS), None
    registration = _counted_once(settle(*start, found, pairs, b.intrinsics, settings), found, pairs, b, settings)
    if not registration.ok:
        return registration, None
    seen = [
        verify(view, b, replace(registration, T_a_b=se3.relative(pose, registration.T_a_b)))
        for view, pose, usable in zip(known, T_ref_known, enough, strict=True)
        if usable
    ]
    return registration, max(seen, key=lambda evidence: evidence.confidence)


def _features(pairs: NDArray[np.int64]) -> int:
    """Return how many features of b are matched: with several frames of one place each is matched several times."""
    return len(np.unique(pairs[:, 1]))


def _counted_once(
    found: Registration, matches: Correspondences, pairs: NDArray[np.int64], b: View, settings: RegistrationSettings
) -> Registration:
    """Return a registration in which each feature of b has one noise, whatever it is matched with.

    Matches that share a feature err alike: with A = J^T W of each, the covariance is that of their sums,
    H^-1 (H + sigma^2 (sum over features of (sum A)(sum A)^T - sum A A^T)) H^-1.
    """
    if not found.ok or b.intrinsics is None:
        return found
    if _features(found.inliers) < settings.min_inliers:
        return Registration.failed(RegistrationStatus.NO_CONSENSUS, found.inliers, found.inlier_ratio)
    agree = (pairs[:, None] == found.inliers[None]).all(2).any(1)
    at, sigma_px = linearise(found.T_a_b, matches[agree], b.intrinsics), matches.sigma_px
    jacobians = at.jacobians[:, :, :6]
    pulls = np.einsum("mij,mik->mjk", jacobians, at.information)
    hessian = np.einsum("mij,mjk->ik", pulls, jacobians)
    feature, pulls = np.unique(pairs[agree, 1], return_inverse=True)[1], pulls[:, :, :2]
    sums = np.zeros((int(feature.max()) + 1, 6, 2))
    np.add.at(sums, feature.reshape(-1), pulls)
    shared = sigma_px**2 * (np.einsum("mij,mkj->ik", sums, sums) - np.einsum("mij,mkj->ik", pulls, pulls))
    inverse = np.linalg.inv(hessian)
    excess = np.trace(found.covariance @ hessian) / 6.0  # that of residuals over what was expected, and robust weights
    covariance = found.covariance + excess * inverse @ shared @ inverse
    if not is_steady(covariance, settings):
        return Registration.failed(RegistrationStatus.UNSTABLE, found.inliers, found.inlier_ratio)
    return replace(found, covariance=covariance)


def _moved(found: Correspondences, T_ref_a: NDArray[np.float64]) -> Correspondences:
    """Return matches with the points of a in another frame."""
    rays = found.points_a_m / found.points_a_m[:, 2:]
    return replace(found, points_a_m=se3.transform_points(T_ref_a, found.points_a_m), rays_a=rays @ T_ref_a[:3, :3].T)


def _joined(parts: Sequence[Correspondences]) -> Correspondences:
    """Return matches of several images as one set."""
    names = ("points_a_m", "sigmas_a_m", "pixels_b", "depth_b_m", "sigmas_b_m", "rays_a")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Correspondences(**columns, sigma_px=parts[0].sigma_px)


def level_pose_xyyaw(T_level_camera: NDArray[np.float64], T_base_camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the planar pose (3,) of a base that stands level, whose camera is at ``T_level_camera`` (4, 4).

    The image's camera may pitch and roll otherwise than the robot's with extrinsics ``T_base_camera`` (4, 4), as a
    photograph from the hand does: only where it is and which way it faces counts.
    """
    ahead = T_level_camera[:3, :3] @ T_base_camera[:3, :3].T[:, 0]
    yaw_rad = float(np.arctan2(ahead[1], ahead[0]))
    cosine, sine = np.cos(yaw_rad), np.sin(yaw_rad)
    position = T_level_camera[:2, 3] - np.array([[cosine, -sine], [sine, cosine]]) @ T_base_camera[:2, 3]
    return np.array([*position, yaw_rad])
