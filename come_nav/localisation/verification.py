"""How likely a registration is right: does the rest of the two images agree with it?

A pattern that repeats (tiles, equal posters in two rooms) gives many matches that agree on a wrong pose with a small
error; neither their number nor their share tells it from a right one. What does: at a right pose most of the other
features that should be seen are there too, and the surfaces measured in one image lie where the other one measured
them. ``confidence`` is a logistic regression over these, fitted by ``benchmarks/registration.py --part calibration`` to
built-in worlds, whose walls and posters repeat from world to world: in real rooms it is too modest.

Cost on one core: 5 to 7 ms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.registration import Registration
from come_nav.localisation.view import View

SUPPORT_RADIUS = 0.02  # of the image's width
SUPPORT_SIMILARITY = 0.8
MARGIN_PX = 4.0
DEPTH_TOLERANCE_M, DEPTH_TOLERANCE_SHARE = 0.06, 0.05
# logistic regression over (1, log inliers, inlier ratio, support, visible, geometry), and without depth in both
WEIGHTS = np.array([-15.55, 0.76, 0.0, 9.38, -2.01, 12.58])
WEIGHTS_NO_DEPTH = np.array([-8.67, 1.85, 0.0, 8.09, -3.0, 0.0])


@dataclass(frozen=True)
class Evidence:
    """What speaks for a registration.

    Attributes:
        inliers: matches that agree.
        inlier_ratio: their share.
        support: share of a's points that should be seen in b and are there with a similar descriptor.
        visible: share of a's points that should be seen in b.
        geometry: share of the surfaces seen by both that lie where both measured them; NaN without depth in both.
        confidence: probability that the registration is right, in [0, 1].
    """

    inliers: int
    inlier_ratio: float
    support: float
    visible: float
    geometry: float

    def vector(self) -> NDArray[np.float64]:
        """Return what the regression sees (6,)."""
        known = bool(np.isfinite(self.geometry))
        return np.array(
            [
                1.0,
                np.log(max(self.inliers, 1)),
                self.inlier_ratio,
                self.support,
                self.visible,
                self.geometry if known else 0.0,
            ]
        )

    @property
    def confidence(self) -> float:
        """Probability that the registration is right."""
        weights = WEIGHTS if np.isfinite(self.geometry) else WEIGHTS_NO_DEPTH
        return float(1.0 / (1.0 + np.exp(-np.clip(self.vector() @ weights, -50.0, 50.0))))


def verify(a: View, b: View, registration: Registration) -> Evidence:
    """Return the evidence for a registration of b to a; at least one of them has points."""
    if not registration.ok:
        return Evidence(0, 0.0, 0.0, 0.0, float("nan"))
    if a.points_camera_m is None:
        a, b, registration = b, a, registration.inverse()
    support, visible = _support(a, b, registration.T_a_b)
    geometry = float("nan")
    if a.surface_m is not None and b.surface_m is not None:
        there = _agreement(a, b, registration.T_a_b)
        back = _agreement(b, a, se3.inverse(registration.T_a_b))
        geometry = float(np.nanmin([there, back])) if np.isfinite([there, back]).any() else float("nan")
    return Evidence(len(registration.inliers), registration.inlier_ratio, support, visible, geometry)


def project(
    points_a_m: NDArray[np.floating], T_a_b: NDArray[np.float64], camera_b: CameraIntrinsics
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return pixels (N, 2) in b, depth (N,) in b, and which points b's image should show."""
    points = se3.transform_points(se3.inverse(T_a_b), points_a_m.astype(np.float64))
    before = points[:, 2] > 0.1
    z = np.where(before, points[:, 2], 1.0)
    pixels = points[:, :2] / z[:, None] * np.array([camera_b.fx, camera_b.fy]) + np.array([camera_b.cx, camera_b.cy])
    inside = (pixels > MARGIN_PX).all(axis=1) & (pixels < np.array([camera_b.width, camera_b.height]) - MARGIN_PX).all(
        axis=1
    )
    return pixels, z, before & inside


def _support(a: View, b: View, T_a_b: NDArray[np.float64]) -> tuple[float, float]:
    if a.points_camera_m is None or b.intrinsics is None or not len(b.features):
        return 0.0, 0.0
    rows = np.flatnonzero(a.known)
    pixels, _, seen = project(a.points_camera_m[rows], T_a_b, b.intrinsics)
    if seen.sum() < 4:
        return 0.0, float(seen.mean()) if len(seen) else 0.0
    away = pixels[seen][:, None] - b.features.keypoints_px[None]
    near = (away**2).sum(-1) <= (SUPPORT_RADIUS * b.features.width) ** 2
    similar = a.features.vectors()[rows[seen]] @ b.features.vectors().T
    return float((np.where(near, similar, -1.0).max(axis=1) > SUPPORT_SIMILARITY).mean()), float(seen.mean())


def _agreement(a: View, b: View, T_a_b: NDArray[np.float64]) -> float:
    """Return the share of a's surfaces in b's image that b measured there, of those that nothing hides."""
    if a.surface_m is None or b.surface_m is None or b.intrinsics is None:
        return float("nan")
    pixels, z, seen = project(a.surface_points_m(), T_a_b, b.intrinsics)
    height, width = b.surface_m.shape
    cells = np.floor(pixels[seen] * np.array([width / b.intrinsics.width, height / b.intrinsics.height])).astype(int)
    measured = b.surface_m[cells[:, 1].clip(0, height - 1), cells[:, 0].clip(0, width - 1)].astype(np.float64)
    predicted = z[seen]
    tolerance = DEPTH_TOLERANCE_M + DEPTH_TOLERANCE_SHARE * predicted
    agree = np.abs(measured - predicted) <= tolerance
    through = measured > predicted + tolerance  # b looks through what a saw: one of the two is not there
    counted = int(agree.sum() + through.sum())
    return float(agree.sum() / counted) if counted >= 20 else float("nan")
