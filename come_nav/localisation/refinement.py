"""The pose that explains matched points best, and how sure it is: robust Gauss-Newton over reprojection and depth.

Each match has three residuals: u, v and depth in image b. Their covariance has the keypoints' noise, the depth
sensor's noise in b (a very large one where depth is unknown there), and the depth noise of the point in a, which moves
its projection along a line. So a pose that was found from far points is as uncertain as it is. Motions are right
perturbations of T_a_b, ``T_a_b Exp(xi)`` with xi = (translation m, rotation rad) in the optical frame of b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics

UNKNOWN_SIGMA_M = 1e3
NEAREST_M = 0.02
CAUCHY_SQUARED = 5.0  # squared Mahalanobis distance at which a match counts half


@dataclass(frozen=True)
class Correspondences:
    """Matched points.

    Attributes:
        points_a_m: (M, 3) in the optical frame of a.
        sigmas_a_m: (M,) of their depth.
        pixels_b: (M, 2).
        depth_b_m: (M,) NaN = unknown.
        sigmas_b_m: (M,) of that.
        sigma_px: of a keypoint.
        rays_a: (M, 3) how a point moves with a metre of its depth; None = along its own ray in a.
    """

    points_a_m: NDArray[np.float64]
    sigmas_a_m: NDArray[np.float64]
    pixels_b: NDArray[np.float64]
    depth_b_m: NDArray[np.float64]
    sigmas_b_m: NDArray[np.float64]
    sigma_px: float
    rays_a: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.points_a_m)

    def __getitem__(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> Correspondences:
        return Correspondences(
            self.points_a_m[chosen],
            self.sigmas_a_m[chosen],
            self.pixels_b[chosen],
            self.depth_b_m[chosen],
            self.sigmas_b_m[chosen],
            self.sigma_px,
            None if self.rays_a is None else self.rays_a[chosen],
        )


@dataclass(frozen=True)
class Linearised:
    """Residuals at a pose.

    Attributes:
        residuals: (M, 3) u px, v px, depth m; predicted minus measured.
        jacobians: (M, 3, 7) over xi and the logarithm of the focal length.
        information: (M, 3, 3) inverse covariances.
        distances: (M,) squared Mahalanobis distances; infinite behind the camera.
    """

    residuals: NDArray[np.float64]
    jacobians: NDArray[np.float64]
    information: NDArray[np.float64]
    distances: NDArray[np.float64]


def skew(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return cross-product matrices (..., 3, 3) of vectors (..., 3)."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    rows = [np.stack(row, -1) for row in ((zero, -z, y), (z, zero, -x), (-y, x, zero))]
    return np.stack(rows, -2)


def exponential(xi: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the transform (4, 4) of a motion (6,): its translation as it is, its rotation by Rodrigues' formula."""
    angle = float(np.linalg.norm(xi[3:]))
    axis = skew(xi[3:] / angle) if angle > 1e-12 else np.zeros((3, 3))
    rotation = np.eye(3) + np.sin(angle) * axis + (1.0 - np.cos(angle)) * axis @ axis
    return se3.make_transform(rotation, xi[:3])


def adjoint(T_a_b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix (6, 6) that takes small motions in frame b to frame a."""
    rotation, result = T_a_b[:3, :3], np.zeros((6, 6))
    result[:3, :3] = result[3:, 3:] = rotation
    result[:3, 3:] = skew(T_a_b[:3, 3]) @ rotation
    return result


def linearise(T_a_b: NDArray[np.float64], matches: Correspondences, camera_b: CameraIntrinsics) -> Linearised:
    """Return residuals, Jacobians and noise of all matches at a pose."""
    T_b_a = se3.inverse(T_a_b)
    points = se3.transform_points(T_b_a, matches.points_a_m)
    behind = ~(points[:, 2] > NEAREST_M)
    points = np.where(behind[:, None], [0.0, 0.0, 1.0], points)  # they count nothing; anything finite will do
    z = points[:, 2]
    along = points[:, :2] / z[:, None]
    focal = np.array([camera_b.fx, camera_b.fy])
    residuals = np.empty((len(matches), 3))
    residuals[:, :2] = along * focal + np.array([camera_b.cx, camera_b.cy]) - matches.pixels_b
    known = np.isfinite(matches.depth_b_m)
    residuals[:, 2] = np.where(known, z - np.where(known, matches.depth_b_m, 0.0), 0.0)
    by_point = np.zeros((len(matches), 3, 3))  # how u, v and depth change with the point in b
    by_point[:, 0, 0], by_point[:, 1, 1] = focal[0] / z, focal[1] / z
    by_point[:, :2, 2] = -along * focal / z[:, None]
    by_point[:, 2, 2] = known
    # T_a_b Exp(xi): a point moves by -(translation + rotation x point) in b
    jacobians = np.zeros((len(matches), 3, 7))
    jacobians[:, :, :3] = -by_point
    jacobians[:, :, 3:6] = by_point @ skew(points)
    jacobians[:, :2, 6] = along * focal
    rays = matches.points_a_m / matches.points_a_m[:, 2:] if matches.rays_a is None else matches.rays_a
    spread = np.einsum("mij,mj->mi", by_point @ T_b_a[:3, :3], rays) * matches.sigmas_a_m[:, None]
    covariances = spread[:, :, None] * spread[:, None, :]
    covariances[:, 0, 0] += matches.sigma_px**2
    covariances[:, 1, 1] += matches.sigma_px**2
    covariances[:, 2, 2] += np.where(known, matches.sigmas_b_m, UNKNOWN_SIGMA_M) ** 2
    information = np.linalg.inv(covariances)
    distances = np.einsum("mi,mij,mj->m", residuals, information, residuals)
    return Linearised(residuals, jacobians, information, np.where(behind, np.inf, distances))


def refine(
    T_a_b: NDArray[np.float64],
    matches: Correspondences,
    camera_b: CameraIntrinsics,
    rounds: int = 10,
    with_focal: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return the pose (4, 4), its covariance (6, 6) and the factor of the focal length (1 unless ``with_focal``).

    The covariance is that of the linearised problem at the robust weights, times the residuals' variance over the
    expected one where that is larger than 1; infinite where the matches leave a motion open.
    """
    size = 7 if with_focal else 6
    pose, factor = T_a_b, 1.0
    for _ in range(rounds):
        hessian, gradient, _ = _normal_equations(pose, matches, _with_focal(camera_b, factor), size)
        try:
            solved = np.linalg.solve(hessian + 1e-9 * np.diag(np.diag(hessian)), gradient)
        except np.linalg.LinAlgError:
            return pose, np.full((6, 6), np.inf), factor
        step = -np.asarray(solved, np.float64)
        pose = pose @ exponential(step[:6])
        if with_focal:
            factor *= float(np.exp(np.clip(step[6], -0.3, 0.3)))
        if np.abs(step).max() < 1e-7:
            break
    hessian, _, excess = _normal_equations(pose, matches, _with_focal(camera_b, factor), size)
    if not np.isfinite(hessian).all() or np.linalg.cond(hessian) > 1e14:
        return pose, np.full((6, 6), np.inf), factor
    covariance = np.asarray(np.linalg.inv(hessian)[:6, :6] * max(1.0, excess), np.float64)
    return pose, 0.5 * (covariance + covariance.T), factor


def _normal_equations(
    pose: NDArray[np.float64], matches: Correspondences, camera_b: CameraIntrinsics, size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return Hessian, gradient and the mean squared residual over what noise would leave."""
    at = linearise(pose, matches, camera_b)
    weights = np.where(np.isfinite(at.distances), 1.0 / (1.0 + at.distances / CAUCHY_SQUARED), 0.0)
    jacobians = at.jacobians[:, :, :size]
    weighted = np.swapaxes(jacobians, 1, 2) @ at.information * weights[:, None, None]
    hessian = (weighted @ jacobians).sum(axis=0)
    gradient = np.einsum("mij,mj->i", weighted, at.residuals)
    measured = 2 * len(matches) + int(np.isfinite(matches.depth_b_m).sum())
    finite = np.where(np.isfinite(at.distances), at.distances, 0.0)
    return hessian, gradient, float((weights * finite).sum() / max(measured - size, 1))


def _with_focal(camera: CameraIntrinsics, factor: float) -> CameraIntrinsics:
    return CameraIntrinsics(camera.width, camera.height, camera.fx * factor, camera.fy * factor, camera.cx, camera.cy)
