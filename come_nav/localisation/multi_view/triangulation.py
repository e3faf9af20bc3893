"""Points of images without depth: the same features seen from several known poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.matching import MatchingSettings, match_features
from come_nav.localisation.view import View


@dataclass(frozen=True)
class TriangulationSettings:
    """When a point counts as known.

    Attributes:
        max_error_px: distance of a match to its epipolar line, for an image 320 wide, > 0.
        sigma_px: of what a match moves, odometry's error included, for an image 320 wide, > 0.
        max_share: largest standard deviation of a point's depth over its depth, in (0, 1].
        nearest_m: points nearer than this are wrong matches, m, > 0.
    """

    max_error_px: float = 2.0
    sigma_px: float = 1.2
    max_share: float = 0.2
    nearest_m: float = 0.15

    def __post_init__(self) -> None:
        for name in ("max_error_px", "sigma_px", "nearest_m"):
            check_range(f"triangulation.{name}", getattr(self, name), 0.0, open_low=True)
        check_range("triangulation.max_share", self.max_share, 0.0, 1.0, open_low=True)


def with_triangulated_points(
    view: View,
    others: Sequence[tuple[View, NDArray[np.float64]]],
    config: TriangulationSettings | None = None,
    matching: MatchingSettings | None = None,
) -> View:
    """Return the view with points where other images of the same camera show them from elsewhere.

    Inverse depths of all others are averaged by their precision; a point needs one that is precise enough.

    Args:
        view: without points; its camera is known.
        others: images, and the pose (4, 4) of each one's optical frame in the view's.
        config: when a point counts as known.
        matching: what counts as a match.
    """
    settings, camera = config or TriangulationSettings(), view.intrinsics
    if camera is None:
        return view
    scale = max(1.0, camera.width / 320.0)
    information, weighted = np.zeros(len(view.features)), np.zeros(len(view.features))
    for other, T_view_other in others:
        if other.intrinsics != camera:
            continue
        pairs = match_features(other.features, view.features, matching)
        then, now = other.features.keypoints_px[pairs[:, 0]], view.features.keypoints_px[pairs[:, 1]]
        inverse, sideways_m, error_px = triangulate(then, now, camera, T_view_other)
        sound = (error_px <= settings.max_error_px * scale) & (inverse < 1.0 / settings.nearest_m)
        precision = (np.where(sound, sideways_m, 0.0) * camera.fx / (settings.sigma_px * scale)) ** 2
        np.add.at(information, pairs[:, 1], precision)
        np.add.at(weighted, pairs[:, 1], precision * inverse)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = weighted / information
        share = 1.0 / (np.sqrt(information) * inverse)
        depth = np.where((inverse > 0.0) & (share <= settings.max_share), 1.0 / inverse, np.nan)
    points = _rays(view.features.keypoints_px, camera) * depth[:, None]
    return replace(
        view, points_camera_m=points.astype(np.float32), sigmas_m=np.asarray(depth * share, np.float32), surface_m=None
    )


def triangulate(
    pixels_then: NDArray[Any], pixels_now: NDArray[Any], camera: CameraIntrinsics, T_now_then: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return inverse depth (M,) in the present view, sideways motion (M,) in m, and distance to the epipolar line, px.

    With rays x and depths z: z_now x_now = z_then R x_then + t, so (R x_then) x (x_now - t / z_now) = 0: linear in
    1 / z_now. Its error is that of the pixels over focal length and sideways motion, and has no bias; depth itself,
    or a choice of points by how far they moved in the image, would come out too near.
    """
    rays_now = _rays(pixels_now, camera)
    turned = _rays(pixels_then, camera) @ T_now_then[:3, :3].T
    t = np.broadcast_to(T_now_then[:3, 3], turned.shape)
    across = np.cross(turned, t)
    squared = np.maximum((across**2).sum(axis=1), 1e-18)
    inverse = (np.cross(turned, rays_now) * across).sum(axis=1) / squared
    line = np.hypot(across[:, 0] / camera.fx, across[:, 1] / camera.fy)
    error_px = np.abs((across * rays_now).sum(axis=1)) / np.maximum(line, 1e-18)
    return inverse, np.sqrt(squared) / np.linalg.norm(turned, axis=1), error_px


def _rays(pixels_uv: NDArray[Any], camera: CameraIntrinsics) -> NDArray[np.float64]:
    """Return rays (M, 3) with z = 1."""
    x = (pixels_uv[:, 0] - camera.cx) / camera.fx
    y = (pixels_uv[:, 1] - camera.cy) / camera.fy
    return np.stack([x, y, np.ones_like(x)], axis=1)
