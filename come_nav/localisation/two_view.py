"""Where one image was taken relative to another without depth: direction and turn from matches, length from odometry.

The essential matrix within RANSAC (five points, Nister 2004) and its decomposition are OpenCV's. What agrees is
refined over all six degrees of freedom: Sampson's distance to the epipolar lines (Hartley and Zisserman 2004, 11.4)
leaves the length of the translation open, and odometry's distance between the two cameras closes it. So the covariance
is as wide along the translation as odometry is unsure, and wide across it where far points hardly move.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.matching import MatchingSettings, match_features
from come_nav.localisation.refinement import exponential, skew
from come_nav.localisation.registration import (
    REFERENCE_WIDTH_PX,
    Registration,
    RegistrationSettings,
    RegistrationStatus,
    is_steady,
)
from come_nav.localisation.view import View

CAUCHY_SQUARED = 5.0  # squared residual over its variance at which a match counts half
OUTLIER_DISTANCE = 6.6  # and beyond which it is none; 1 % of true matches are (one degree of freedom)
MIN_PARALLAX = 2.0  # over that of noise alone
NOISE_QUARTILE = 2.77  # of the squared distance of two noisy directions, three quarters are below (chi squared of two)
FAR_APART = 40.0  # of it, twice as far as one in a hundred lies by noise
FITTING_SHARE = 0.6  # of the matches that move far
TURNS = 5  # rounds in which the matches that only turned are found
STEP = 1e-6
ROUNDS = 15


def register_two_views(
    a: View,
    b: View,
    distance_m: float,
    distance_sigma_m: float,
    config: RegistrationSettings | None = None,
    matching: MatchingSettings | None = None,
) -> Registration:
    """Register image b to image a without depth in either.

    Args:
        a: the known image.
        b: the other one; both cameras are known.
        distance_m: between the two cameras, from odometry, > 0.
        distance_sigma_m: standard deviation of it, > 0.
        config: when they count as registered; ``inlier_ratio`` is the share of all matches.
        matching: what counts as a match.

    Raises:
        DataError: where a camera is unknown, or the distance or its standard deviation is not above 0.
    """
    settings = config or RegistrationSettings()
    if a.intrinsics is None or b.intrinsics is None:
        raise DataError("registration without depth needs the intrinsics of both images; pass both views with a camera")
    for name, value in (("distance_m", distance_m), ("distance_sigma_m", distance_sigma_m)):
        if not (np.isfinite(value) and value > 0.0):
            raise DataError(f"{name} must be above 0 to give two images without depth a scale, got {value}")
    if min(len(a.features), len(b.features)) < settings.min_features:
        return Registration.failed(RegistrationStatus.TOO_FEW_FEATURES)
    pairs = match_features(a.features, b.features, matching)
    if len(pairs) < max(settings.min_matches, 5):
        return Registration.failed(RegistrationStatus.TOO_FEW_MATCHES)
    rays = _Rays.of(a, b, pairs, settings)
    starts = _decompositions(rays, distance_m, settings)
    if not starts:
        return Registration.failed(RegistrationStatus.NO_CONSENSUS)
    settled = [_settle(*start, rays, pairs, (distance_m, distance_sigma_m), settings) for start in starts]
    costs = [np.minimum(rays.sampson(pose) ** 2, OUTLIER_DISTANCE).sum() for pose, _ in settled]
    return settled[int(np.argmin(costs))][1]


class _Rays:
    """Matched directions (M, 3) with z = 1 in both optical frames, and the noise of one of their coordinates."""

    def __init__(self, a: NDArray[np.float64], b: NDArray[np.float64], sigma: float, limit: float) -> None:
        self.a, self.b, self.sigma, self.limit = a, b, sigma, limit

    def __len__(self) -> int:
        return len(self.a)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> _Rays:
        return _Rays(self.a[chosen], self.b[chosen], self.sigma, self.limit)

    @classmethod
    def of(cls, a: View, b: View, pairs: NDArray[np.int64], settings: RegistrationSettings) -> _Rays:
        assert a.intrinsics is not None
        assert b.intrinsics is not None
        cameras = (a.intrinsics, b.intrinsics)
        # a pixel is an angle; the coarser of the two cameras decides what agrees
        angle = max(max(1.0, camera.width / REFERENCE_WIDTH_PX) / min(camera.fx, camera.fy) for camera in cameras)
        return cls(
            _directions(a.features.keypoints_px[pairs[:, 0]], a.intrinsics),
            _directions(b.features.keypoints_px[pairs[:, 1]], b.intrinsics),
            settings.sigma_px * angle,
            settings.max_error_px * angle,
        )

    def sampson(self, T_a_b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return signed distances (M,) to the epipolar constraint over their standard deviation."""
        essential = skew(T_a_b[:3, 3]) @ T_a_b[:3, :3]
        line_b, line_a = self.a @ essential, self.b @ essential.T
        across = (line_b[:, :2] ** 2).sum(1) + (line_a[:, :2] ** 2).sum(1)
        return np.asarray((self.a * line_a).sum(1) / (np.sqrt(np.maximum(across, 1e-18)) * self.sigma))


def _directions(pixels: NDArray[np.float32], camera: CameraIntrinsics) -> NDArray[np.float64]:
    along = (pixels.astype(np.float64) - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
    return np.concatenate([along, np.ones((len(along), 1))], axis=1)


def _decompositions(
    rays: _Rays, distance_m: float, settings: RegistrationSettings
) -> list[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Return poses T_a_b (4, 4) and which matches agree with each.

    Five noisy matches that lie badly agree with most others at a pose far off, and RANSAC then stops early. So three
    searches begin, and the one that explains the matches best after refinement counts.
    """
    found = []
    for method, share in ((cv2.RANSAC, 1.0), (cv2.RANSAC, 0.4), (cv2.USAC_MAGSAC, 0.7)):
        try:
            essential, agree = cv2.findEssentialMat(
                rays.a[:, :2], rays.b[:, :2], np.eye(3), method=method, prob=0.9999, threshold=share * rays.limit
            )
            if essential is None or essential.ndim != 2 or essential.shape[1] != 3 or len(essential) < 3:
                continue
            _, turn, shift, before = cv2.recoverPose(
                essential[:3], rays.a[:, :2], rays.b[:, :2], np.eye(3), mask=agree.copy()
            )
        except cv2.error:  # degenerate matches: no minimal set has a solution
            continue
        chosen: NDArray[np.bool_] = np.asarray(before).ravel() > 0
        T_b_a = se3.make_transform(np.asarray(turn, np.float64), np.asarray(shift, np.float64).ravel() * distance_m)
        if chosen.sum() >= settings.min_inliers and np.isfinite(T_b_a).all():
            found.append((se3.inverse(T_b_a), chosen))
    return found


def _settle(
    T_a_b: NDArray[np.float64],
    chosen: NDArray[np.bool_],
    rays: _Rays,
    pairs: NDArray[np.int64],
    distance: tuple[float, float],
    settings: RegistrationSettings,
) -> tuple[NDArray[np.float64], Registration]:
    """Refine over what agrees, twice; return the pose and what it comes to."""
    covariance: NDArray[np.float64] = np.full((6, 6), np.inf)
    residuals: NDArray[np.float64] = np.full(len(rays), np.inf)
    for _ in range(2):
        T_a_b, covariance = _refine(T_a_b, rays[chosen], distance)
        residuals = rays.sampson(T_a_b)
        chosen = (residuals**2 <= OUTLIER_DISTANCE) & _before_both(T_a_b, rays)
        ratio = float(chosen.mean())
        if chosen.sum() < settings.min_inliers or ratio < settings.min_inlier_ratio:
            return T_a_b, Registration.failed(RegistrationStatus.NO_CONSENSUS, pairs[chosen], ratio)
    if not is_steady(covariance, settings) or not _has_direction(rays, chosen, settings):
        return T_a_b, Registration.failed(RegistrationStatus.UNSTABLE, pairs[chosen], ratio)
    rms_px = float(np.sqrt((residuals[chosen] ** 2).mean())) * settings.sigma_px
    return T_a_b, Registration(RegistrationStatus.OK, T_a_b, covariance, pairs[chosen], ratio, rms_px)


def _has_direction(rays: _Rays, chosen: NDArray[np.bool_], settings: RegistrationSettings) -> bool:
    """Return whether the matches ``chosen`` (M,) that agree with a pose show more than a turn.

    Noise looks like parallax to the normal equations: without this a turn on the spot has a sure direction. The turn is
    that of the matches alone (Kabsch 1976), of the half that agrees best, for a wrong pose has a wrong turn, beside
    which everything has parallax. Either a quarter of the matches moves by more than noise, or some move far and most
    of all that do, of those too that do not agree with the pose, fit it: a camera that hardly moved has an essential
    matrix that some wrong matches agree with, and the others do not.
    """
    apart = _apart(rays, chosen)
    if np.quantile(apart[chosen], 0.75) > MIN_PARALLAX**2 * NOISE_QUARTILE:
        return True
    far = apart > FAR_APART
    return bool((far & chosen).sum() >= max(settings.min_inliers, FITTING_SHARE * far.sum()))


def _apart(rays: _Rays, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return squared distances (M,) after a turn, over the noise of one coordinate."""
    a, b = (along / np.linalg.norm(along, axis=1, keepdims=True) for along in (rays.a, rays.b))
    nearest = np.flatnonzero(chosen)
    apart: NDArray[np.float64] = np.zeros(len(rays))
    for _ in range(TURNS):
        turned = rays.b @ _turn(a[nearest], b[nearest]).T
        apart = ((turned[:, :2] / turned[:, 2:] - rays.a[:, :2]) ** 2).sum(1) / (2.0 * rays.sigma**2)
        order = np.flatnonzero(chosen)[np.argsort(apart[chosen])]
        nearest = order[: (len(order) + 1) // 2]
    return apart


def _turn(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation (3, 3) that brings directions b (M, 3) nearest to directions a."""
    left, _, right = np.linalg.svd(a.T @ b)
    return np.asarray(left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right)


def _before_both(T_a_b: NDArray[np.float64], rays: _Rays) -> NDArray[np.bool_]:
    """Return which matches meet in front of both cameras, or so far away that noise decides where."""
    b = rays.b @ T_a_b[:3, :3].T
    normal = np.cross(rays.a, b)
    squared = (normal**2).sum(1)
    depth_a = (np.cross(T_a_b[:3, 3], b) * normal).sum(1)
    depth_b = (np.cross(T_a_b[:3, 3], rays.a) * normal).sum(1)
    far = squared <= (3.0 * rays.sigma) ** 2
    return np.asarray(far | ((depth_a > 0) & (depth_b > 0)))


def _refine(
    T_a_b: NDArray[np.float64], rays: _Rays, distance: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pose (4, 4) and its covariance (6, 6) by Gauss-Newton with Cauchy weights and odometry's distance."""

    def equations(pose: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        def residuals(at: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.append(rays.sampson(at), (np.linalg.norm(at[:3, 3]) - distance[0]) / distance[1])

        here = residuals(pose)
        moved = [
            residuals(pose @ exponential(STEP * axis)) - residuals(pose @ exponential(-STEP * axis))
            for axis in np.eye(6)
        ]
        jacobian = np.stack(moved, axis=1) / (2.0 * STEP)
        weights = 1.0 / (1.0 + here**2 / CAUCHY_SQUARED)
        weights[-1] = 1.0
        weighted = jacobian.T * weights
        excess = float((weights[:-1] * here[:-1] ** 2).sum() / max(len(rays) - 5, 1))
        return weighted @ jacobian, weighted @ here, excess

    for _ in range(ROUNDS):
        hessian, gradient, _ = equations(T_a_b)
        damped = hessian + 1e-9 * np.diag(np.diag(hessian)) + 1e-12 * np.eye(6)
        step = -np.asarray(np.linalg.solve(damped, gradient), np.float64)
        T_a_b = T_a_b @ exponential(step)
        if np.abs(step).max() < 1e-8:
            break
    hessian, _, excess = equations(T_a_b)
    if not np.isfinite(hessian).all() or np.linalg.cond(hessian) > 1e14:
        return T_a_b, np.full((6, 6), np.inf)
    covariance = np.linalg.inv(hessian) * max(1.0, excess)
    return T_a_b, 0.5 * (covariance + covariance.T)
