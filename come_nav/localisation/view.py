"""One image as registration sees it: its features, its camera, and where its features lie in space, if known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.features import Features, FeatureSettings, extract_features

# A feature at the edge of a thing lies on the thing or behind it: depth that jumps by more than this share between
# the pixels around it says nothing.
MAX_DEPTH_JUMP = 0.1
SURFACE_COLUMNS = 40
THUMBNAIL_PX = 80  # width of the small image that colours are compared in


@dataclass(frozen=True)
class View:
    """Features with their geometry.

    Attributes:
        features: of the image.
        intrinsics: of the image; None when unknown.
        points_camera_m: (N, 3) float32 in the optical frame, NaN where depth is unknown; None without any depth.
        surface_m: (h, w) float16, the depth of a coarse grid over the image, NaN = unknown; None without a depth image.
        sigmas_m: (N,) float32 standard deviations of the points' depth; None where a sensor measured it.
        thumbnail_rgb: (h, 80, 3) uint8, the image made small; None when not kept.
    """

    features: Features
    intrinsics: CameraIntrinsics | None = None
    points_camera_m: NDArray[np.float32] | None = None
    surface_m: NDArray[np.float16] | None = None
    sigmas_m: NDArray[np.float32] | None = None
    thumbnail_rgb: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if self.points_camera_m is not None:
            check_shape("View.points_camera_m", self.points_camera_m, f"{len(self.features)} 3")

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        arrays = (self.points_camera_m, self.surface_m, self.sigmas_m, self.thumbnail_rgb)
        return self.features.nbytes + sum(array.nbytes for array in arrays if array is not None)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which features (N,) have a point."""
        if self.points_camera_m is None:
            return np.zeros(len(self.features), np.bool_)
        return np.isfinite(self.points_camera_m[:, 2])

    def surface_points_m(self) -> NDArray[np.float64]:
        """Return the coarse grid's known points (P, 3) in the optical frame; empty without a depth image."""
        camera = self.intrinsics
        if self.surface_m is None or camera is None:
            return np.zeros((0, 3))
        height, width = self.surface_m.shape
        u, v = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
        z = self.surface_m.astype(np.float64)
        x = (u * camera.width - camera.cx) / camera.fx * z
        y = (v * camera.height - camera.cy) / camera.fy * z
        points: NDArray[np.float64] = np.stack([x, y, z], -1).reshape(-1, 3)
        return np.asarray(points[np.isfinite(points[:, 2])])

    def with_points(self, points_camera_m: NDArray[np.float32]) -> View:
        """Return the view with points (N, 3) from elsewhere, e.g. triangulated ones."""
        return replace(self, points_camera_m=points_camera_m)


def make_view(
    rgb: NDArray[np.uint8],
    intrinsics: CameraIntrinsics | None = None,
    depth_m: NDArray[np.float32] | None = None,
    config: FeatureSettings | None = None,
) -> View:
    """Return the view of an image (H, W, 3) with depth (H, W) along the optical axis; NaN or 0 = unknown.

    Raises:
        ShapeError: if depth is of another size than the image.
    """
    features, small = extract_features(rgb, config), thumbnail(rgb)
    if depth_m is None or intrinsics is None:
        return View(features, intrinsics, thumbnail_rgb=small)
    check_shape("depth_m", depth_m, f"{rgb.shape[0]} {rgb.shape[1]}")
    points = lift(features.keypoints_px, depth_m, intrinsics)
    return View(features, intrinsics, points, coarse_surface(depth_m), thumbnail_rgb=small)


def thumbnail(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image (H, W, 3), or grey (H, W), made small: (h, 80, 3)."""
    height, width = rgb.shape[:2]
    rows = max(1, round(height * THUMBNAIL_PX / width))
    small = cv2.resize(rgb, (THUMBNAIL_PX, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(small if small.ndim == 3 else np.repeat(small[..., None], 3, axis=2), np.uint8)


def coarse_surface(depth_m: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return the depth (h, 40) at the centres of a coarse grid, NaN = unknown."""
    height, width = depth_m.shape
    columns = min(SURFACE_COLUMNS, width)
    rows = max(1, round(height * columns / width))
    v = ((np.arange(rows) + 0.5) * height / rows).astype(int)
    u = ((np.arange(columns) + 0.5) * width / columns).astype(int)
    coarse = depth_m[np.ix_(v, u)]
    return np.where(np.isfinite(coarse) & (coarse > 0), coarse, np.nan).astype(np.float16)


def lift(
    keypoints_px: NDArray[np.float32], depth_m: NDArray[np.float32], intrinsics: CameraIntrinsics
) -> NDArray[np.float32]:
    """Return points (N, 3) in the optical frame at keypoints (N, 2); NaN where depth is unknown or jumps."""
    height, width = depth_m.shape
    offsets = np.array([[du, dv] for dv in (-1, 0, 1) for du in (-1, 0, 1)])
    cells = np.floor(keypoints_px)[:, None].astype(np.int64) + offsets
    around = depth_m[cells[..., 1].clip(0, height - 1), cells[..., 0].clip(0, width - 1)].astype(np.float64)
    around = np.where(np.isfinite(around) & (around > 0), around, np.nan)
    known = np.isfinite(around).sum(axis=1) >= 5
    near = np.where(np.isfinite(around), around, np.inf).min(axis=1)
    far = np.where(np.isfinite(around), around, -np.inf).max(axis=1)
    z = np.full(len(keypoints_px), np.nan)
    z[known] = np.nanmedian(around[known], axis=1)
    z[known & (far - near > MAX_DEPTH_JUMP * near)] = np.nan
    rays = (keypoints_px - np.array([intrinsics.cx, intrinsics.cy])) / np.array([intrinsics.fx, intrinsics.fy])
    return np.asarray(np.concatenate([rays * z[:, None], z[:, None]], axis=1), np.float32)
