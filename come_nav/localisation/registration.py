"""Where one image was taken relative to another: six degrees of freedom, their covariance, or why it is unknown.

Registration needs depth in one of the two images: matched features, a pose by PnP within RANSAC (OpenCV), then a
robust refinement over every match that agrees (``refinement.py``). Depth in both adds a residual for each match. For
two images without depth there is ``two_view.py``, for cameras that are unknown ``unknown_camera.py``.

Cost on one core, 600 features: about 11 ms, 20 ms with a prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range, check_shape
from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.matching import MatchingSettings, match_features
from come_nav.localisation.refinement import Correspondences, adjoint, linearise, refine
from come_nav.localisation.view import View

REFERENCE_WIDTH_PX = 320
OUTLIER_DISTANCE = 11.3  # squared Mahalanobis distance of three residuals, exceeded by 1 % of true matches


class RegistrationStatus(str, Enum):
    """What came of a registration. Only OK has a pose."""

    OK = "OK"
    TOO_FEW_FEATURES = "TOO_FEW_FEATURES"
    TOO_FEW_MATCHES = "TOO_FEW_MATCHES"
    NO_CONSENSUS = "NO_CONSENSUS"
    UNSTABLE = "UNSTABLE"


@dataclass(frozen=True)
class RegistrationSettings:
    """When images count as registered.

    Attributes:
        min_features: in each image, >= 4.
        min_matches: with a known point, >= 4.
        min_inliers: matches that agree on the pose, >= 4.
        min_inlier_ratio: their share, in [0, 1].
        max_error_px: reprojection error of a match that agrees, for an image 320 wide (wider ones in proportion), > 0.
        iterations: of RANSAC, >= 1.
        max_sigma_m: largest standard deviation of the position along any direction, > 0.
        max_sigma_rad: and of the orientation, > 0.
        sigma_px: of a keypoint, for an image 320 wide, > 0.
        depth_sigma_m: of measured depth, at 0 m, > 0.
        depth_sigma_per_m: and what z squared adds to it, 1/m, >= 0.
    """

    min_features: int = 12
    min_matches: int = 10
    min_inliers: int = 10
    min_inlier_ratio: float = 0.15
    max_error_px: float = 3.0
    iterations: int = 300
    max_sigma_m: float = 0.3
    max_sigma_rad: float = 0.15
    sigma_px: float = 0.7
    depth_sigma_m: float = 0.008
    depth_sigma_per_m: float = 0.004

    def __post_init__(self) -> None:
        for name in ("min_features", "min_matches", "min_inliers"):
            check_range(f"registration.{name}", getattr(self, name), 4)
        check_range("registration.iterations", self.iterations, 1)
        check_range("registration.min_inlier_ratio", self.min_inlier_ratio, 0.0, 1.0)
        for name in ("max_error_px", "max_sigma_m", "max_sigma_rad", "sigma_px", "depth_sigma_m"):
            check_range(f"registration.{name}", getattr(self, name), 0.0, open_low=True)
        check_range("registration.depth_sigma_per_m", self.depth_sigma_per_m, 0.0)

    def depth_sigmas_m(self, depth_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return standard deviations of measured depth; structured light and stereo lose with its square."""
        return self.depth_sigma_m + self.depth_sigma_per_m * depth_m**2


@dataclass(frozen=True)
class Registration:
    """Pose of camera b in the optical frame of camera a.

    Attributes:
        status: why there is none, unless OK.
        T_a_b: (4, 4); the identity unless OK.
        covariance: (6, 6) of a small motion (m, rad) of b in its own optical frame; infinite unless OK.
        inliers: (M, 2) rows of the features of a and b that agree with the pose.
        inlier_ratio: their share of all matches with a known point.
        rms_px: of their reprojection; NaN unless OK.
    """

    status: RegistrationStatus
    T_a_b: NDArray[np.float64]
    covariance: NDArray[np.float64]
    inliers: NDArray[np.int64]
    inlier_ratio: float
    rms_px: float

    @classmethod
    def failed(
        cls, status: RegistrationStatus, inliers: NDArray[np.int64] | None = None, inlier_ratio: float = 0.0
    ) -> Registration:
        """Return a registration without a pose."""
        rows = np.zeros((0, 2), np.int64) if inliers is None else inliers
        return cls(status, np.eye(4), np.full((6, 6), np.inf), rows, inlier_ratio, float("nan"))

    @property
    def ok(self) -> bool:
        """Whether there is a pose."""
        return self.status is RegistrationStatus.OK

    def inverse(self) -> Registration:
        """Return the registration of a in b."""
        rows = self.inliers[:, ::-1]
        if not self.ok:
            return Registration.failed(self.status, rows, self.inlier_ratio)
        moved = adjoint(self.T_a_b)
        covariance = moved @ self.covariance @ moved.T
        return Registration(self.status, se3.inverse(self.T_a_b), covariance, rows, self.inlier_ratio, self.rms_px)

    def planar(
        self, T_base_camera_a: NDArray[np.float64], T_base_camera_b: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the pose (3,) of b's base in a's base and its covariance (3, 3), x m, y m, yaw rad.

        Args:
            T_base_camera_a: (4, 4) extrinsics of a. Where bases pitch or roll, give those of
                ``core.types.footprint_extrinsics``, so that the plane is level.
            T_base_camera_b: (4, 4) extrinsics of b in its base_link.

        Raises:
            DataError: without a pose.
        """
        if not self.ok:
            raise DataError(
                f"a registration that ended with {self.status.value} has no planar pose; look at its status"
            )
        check_shape("T_base_camera_a", T_base_camera_a, "4 4")
        T_camera_base_b = se3.inverse(T_base_camera_b)
        pose = se3.xyyaw_from_transform(T_base_camera_a @ self.T_a_b @ T_camera_base_b)
        turn = T_base_camera_a[:3, :3] @ self.T_a_b[:3, :3]
        origin, ahead = T_camera_base_b[:3, 3], T_camera_base_b[:3, 0]
        heading = turn @ ahead
        # how the origin and the x axis of b's base move with a small motion of camera b
        by_motion = np.zeros((3, 6))
        by_motion[:2] = np.concatenate([turn, -turn @ _skew(origin)], axis=1)[:2]
        swing = -turn @ _skew(ahead)
        by_motion[2, 3:] = (heading[0] * swing[1] - heading[1] * swing[0]) / (heading[0] ** 2 + heading[1] ** 2)
        return pose, by_motion @ self.covariance @ by_motion.T


@dataclass(frozen=True)
class PosePrior:
    """What is known of T_a_b beforehand, e.g. from odometry: matches are sought around where points then appear.

    Attributes:
        T_a_b: (4, 4).
        radius_px: how far from there, pixels of image b.
    """

    T_a_b: NDArray[np.float64]
    radius_px: float


def _skew(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z = vector
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def register(
    a: View,
    b: View,
    config: RegistrationSettings | None = None,
    matching: MatchingSettings | None = None,
    prior: PosePrior | None = None,
) -> Registration:
    """Register image b to image a; at least one of them has points, and the other one's camera is known.

    Args:
        a: the known image.
        b: the other one.
        config: when they count as registered.
        matching: what counts as a match.
        prior: where b is roughly; None = anywhere.

    Raises:
        DataError: where neither image has points, or the camera of an image is unknown.
    """
    settings = config or RegistrationSettings()
    if a.points_camera_m is None:
        if b.points_camera_m is None:
            raise DataError("registration needs depth in one of two images; use two_view.register_two_views without")
        turned = None if prior is None else PosePrior(se3.inverse(prior.T_a_b), prior.radius_px)
        return register(b, a, settings, matching, turned).inverse()
    if b.intrinsics is None:
        raise DataError(
            "registration needs the intrinsics of both images; use unknown_camera.register_unknown_camera without"
        )
    if min(len(a.features), len(b.features)) < settings.min_features:
        return Registration.failed(RegistrationStatus.TOO_FEW_FEATURES)
    allowed = None if prior is None else _near_prediction(a, b, prior)
    pairs = match_features(a.features, b.features, matching, allowed)
    pairs = pairs[a.known[pairs[:, 0]]]
    if len(pairs) < settings.min_matches:
        return Registration.failed(RegistrationStatus.TOO_FEW_MATCHES)
    found = correspondences(a, b, pairs, settings)
    start = solve_pnp(found, b.intrinsics, settings)
    if start is None:
        return Registration.failed(RegistrationStatus.NO_CONSENSUS)
    return settle(*start, found, pairs, b.intrinsics, settings)


def _near_prediction(a: View, b: View, prior: PosePrior) -> NDArray[np.bool_]:
    """Return which pairs (N, L) lie within the radius of where a's points appear in b; a has points, b a camera."""
    assert a.points_camera_m is not None
    assert b.intrinsics is not None
    camera, points = b.intrinsics, se3.transform_points(se3.inverse(prior.T_a_b), a.points_camera_m.astype(np.float64))
    seen = points[:, 2] > 0.05
    z = np.where(seen, points[:, 2], 1.0)
    pixels = points[:, :2] / z[:, None] * np.array([camera.fx, camera.fy]) + np.array([camera.cx, camera.cy])
    away = pixels[:, None] - b.features.keypoints_px[None]
    near: NDArray[np.bool_] = (away**2).sum(-1) <= prior.radius_px**2
    return near & seen[:, None]


def correspondences(a: View, b: View, pairs: NDArray[np.int64], settings: RegistrationSettings) -> Correspondences:
    """Return points of a, pixels of b, and noise, of matches (M, 2); a has points."""
    assert a.points_camera_m is not None
    points = a.points_camera_m[pairs[:, 0]].astype(np.float64)
    depth = np.full(len(pairs), np.nan)
    if b.points_camera_m is not None:
        depth = b.points_camera_m[pairs[:, 1], 2].astype(np.float64)
    return Correspondences(
        points,
        _sigmas_m(a, pairs[:, 0], points[:, 2], settings),
        b.features.keypoints_px[pairs[:, 1]].astype(np.float64),
        depth,
        _sigmas_m(b, pairs[:, 1], np.where(np.isfinite(depth), depth, 0.0), settings),
        settings.sigma_px * _pixel_scale(b.features.width),
    )


def _sigmas_m(
    view: View, rows: NDArray[np.int64], depth_m: NDArray[np.float64], settings: RegistrationSettings
) -> NDArray[np.float64]:
    """Return standard deviations (M,) of the depth of a view's points; the sensor's where the view tells none."""
    measured = settings.depth_sigmas_m(depth_m)
    if view.sigmas_m is None:
        return measured
    own = view.sigmas_m[rows].astype(np.float64)
    return np.where(np.isfinite(own), own, measured)


def _pixel_scale(width_px: int) -> float:
    return max(1.0, width_px / REFERENCE_WIDTH_PX)


def solve_pnp(
    found: Correspondences, camera_b: CameraIntrinsics, settings: RegistrationSettings, iterations: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Return T_a_b (4, 4) and the rows that agree, by PnP within RANSAC; None without consensus.

    OpenCV's RANSAC draws from a generator of its own that starts alike in each call: equal matches, equal poses.
    """
    threshold = settings.max_error_px * _pixel_scale(camera_b.width)
    points, pixels, matrix = found.points_a_m, found.pixels_b, camera_b.matrix()
    try:
        good, turn, shift, rows = cv2.solvePnPRansac(
            points,
            pixels,
            matrix,
            None,
            iterationsCount=iterations or settings.iterations,
            reprojectionError=threshold,
            confidence=0.999,
            flags=cv2.SOLVEPNP_AP3P,
        )
    except cv2.error:  # degenerate points: no minimal set has a solution
        return None
    inliers: Any = rows
    if not good or inliers is None or len(inliers) < settings.min_inliers:
        return None
    T_b_a = se3.make_transform(np.asarray(cv2.Rodrigues(turn)[0], np.float64), np.asarray(shift, np.float64).ravel())
    if not np.isfinite(T_b_a).all():
        return None
    return se3.inverse(T_b_a), np.asarray(inliers).ravel().astype(np.int64)


def is_steady(covariance: NDArray[np.float64], settings: RegistrationSettings) -> bool:
    """Return whether a covariance (6, 6) is finite and within what counts as registered."""
    variances = np.diag(covariance)
    return bool(np.isfinite(covariance).all()) and bool(
        variances[:3].max() <= settings.max_sigma_m**2 and variances[3:].max() <= settings.max_sigma_rad**2
    )


def settle(
    T_a_b: NDArray[np.float64],
    rows: NDArray[np.int64],
    found: Correspondences,
    pairs: NDArray[np.int64],
    camera_b: CameraIntrinsics,
    settings: RegistrationSettings,
) -> Registration:
    """Refine a pose over what agrees with it, twice, and say whether it stands."""
    chosen: NDArray[np.bool_] = np.zeros(len(found), np.bool_)
    chosen[rows] = True
    limit_px = settings.max_error_px * _pixel_scale(camera_b.width)
    covariance: NDArray[np.float64] = np.full((6, 6), np.inf)
    errors_px: NDArray[np.float64] = np.full(len(found), np.inf)
    for _ in range(2):
        T_a_b, covariance, _ = refine(T_a_b, found[chosen], camera_b)
        at = linearise(T_a_b, found, camera_b)
        errors_px = np.hypot(at.residuals[:, 0], at.residuals[:, 1])
        chosen = np.isfinite(at.distances) & (at.distances <= OUTLIER_DISTANCE) & (errors_px <= 2.0 * limit_px)
        if chosen.sum() < settings.min_inliers:
            return Registration.failed(
                RegistrationStatus.NO_CONSENSUS, pairs[chosen], float(chosen.sum() / max(len(pairs), 1))
            )
    inliers, ratio = pairs[chosen], float(chosen.mean())
    if ratio < settings.min_inlier_ratio:
        return Registration.failed(RegistrationStatus.NO_CONSENSUS, inliers, ratio)
    if not is_steady(covariance, settings):
        return Registration.failed(RegistrationStatus.UNSTABLE, inliers, ratio)
    rms_px = float(np.sqrt((errors_px[chosen] ** 2).mean()))
    return Registration(RegistrationStatus.OK, T_a_b, covariance, inliers, ratio, rms_px)
