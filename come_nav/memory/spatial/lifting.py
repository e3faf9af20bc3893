"""From a frame with depth to points with features: which pixels can be trusted, and where they lie.

A plane has an inverse depth that is linear in the pixel coordinates, so both filters here compare inverse depths: a
slanted floor passes, however coarse the camera, while a pixel that mixes two surfaces does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.types import CameraIntrinsics, Frame

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class FeatureGrid:
    """What one view gives to remember.

    Attributes:
        features: (h, w, C); uint8 stands for colours 0 to 255, floats are taken as they are.
        depth_m: (h, w) float32, NaN or 0 = unknown.
        camera: of this grid.
        coarse: cells far wider than pixels, whose neighbours seldom lie on one surface: they are not filtered by it.
        surface: the depth and the camera of the pixels, where they are finer than the grid; tells what is seen through.
    """

    features: NDArray[Any]
    depth_m: FloatArray
    camera: CameraIntrinsics
    coarse: bool = False
    surface: tuple[FloatArray, CameraIntrinsics] | None = None


class FeatureSource(Protocol):
    """What is remembered at a point: colours, or the latents of an autoencoder."""

    @property
    def channels(self) -> int:
        """Features of one point."""
        ...

    def __call__(self, frame: Frame, depth_m: FloatArray, camera: CameraIntrinsics) -> FeatureGrid:
        """Return the features of ``frame``, whose depth (H, W) and camera are known to fit its pixels."""
        ...


class ColourFeatures:
    """Remembers the colour of every pixel, in [-1, 1]."""

    channels = 3

    def __call__(self, frame: Frame, depth_m: FloatArray, camera: CameraIntrinsics) -> FeatureGrid:
        """Return the pixels themselves."""
        return FeatureGrid(frame.rgb, depth_m, camera)


def centred_window(width: int, height: int, aspect: float) -> tuple[int, int, int, int]:
    """Return (left, top, width, height) of the largest centred window with ``aspect`` = width / height."""
    wide = width > height * aspect
    columns = int(height * aspect) if wide else width
    rows = height if wide else int(width / aspect)
    return round((width - columns) / 2), round((height - rows) / 2), columns, rows


def model_camera(camera: CameraIntrinsics, size: int, aspect: float = 1.0) -> CameraIntrinsics:
    """Return the camera of the ``size`` x ``size`` view that a world model takes from the images of ``camera``."""
    left, top, width, height = centred_window(camera.width, camera.height, aspect)
    return camera.cropped(left, top, width, height).scaled(size, size)


@dataclass(frozen=True)
class Lifted:
    """Points of one view in the optical frame.

    Attributes:
        points_xyz: (M, 3) float32 metres.
        features: (M, C) float32.
        normals: (M, 3) float32 unit normals of the surface, towards the camera.
        pixel_m: (M,) width of a pixel at each point.
        patch_m: (M,) length of the patch of surface that each pixel shows, along the row or column where it is longer.
        untrusted: pixels with a depth in range that were left out as edges or speckles.
    """

    points_xyz: FloatArray
    features: FloatArray
    normals: FloatArray
    pixel_m: FloatArray
    patch_m: FloatArray
    untrusted: int


def lift(
    grid: FeatureGrid, stride: int, offset: int, range_m: tuple[float, float], edge_ratio: float, min_neighbours: int
) -> Lifted:
    """Return the trustworthy points of every ``stride``-th pixel and line.

    Args:
        grid: features and depth.
        stride: 1 takes every pixel.
        offset: which of the stride * stride interleaved grids; give a counter so that all pixels take their turn.
        range_m: nearest and farthest depth along the optical axis.
        edge_ratio: relative difference of inverse depths at which two pixels belong to different surfaces.
        min_neighbours: of the 8 pixels around, so many must lie on the same surface; 0 accepts speckles.
    """
    rows = np.arange((offset // stride) % stride, grid.depth_m.shape[0], stride)
    columns = np.arange(offset % stride, grid.depth_m.shape[1], stride)
    v, u = (index.ravel() for index in np.meshgrid(rows, columns, indexing="ij"))
    depth = grid.depth_m[v, u].astype(np.float32)
    with np.errstate(invalid="ignore"):
        inside = (depth >= range_m[0]) & (depth <= range_m[1])
    v, u, depth = v[inside], u[inside], depth[inside]
    trusted, slopes = classify_pixels(grid.depth_m, v, u, edge_ratio, min_neighbours)
    trusted |= grid.coarse
    v, u, depth, slopes = v[trusted], u[trusted], depth[trusted], slopes[trusted]
    camera = grid.camera
    rays = np.stack([(u + 0.5 - camera.cx) / camera.fx, (v + 0.5 - camera.cy) / camera.fy, np.ones_like(depth)], axis=1)
    features = grid.features[v, u].astype(np.float32)
    if grid.features.dtype == np.uint8:
        features = features / 127.5 - 1.0
    pixel_m = depth / camera.fx
    patch_m = np.hypot(pixel_m, depth * depth * np.abs(slopes).max(axis=1, initial=0.0))  # dz = z^2 d(1/z)
    return Lifted(
        points_xyz=(rays * depth[:, None]).astype(np.float32),
        features=features,
        normals=_normals(rays, depth, slopes * [camera.fx, camera.fy]).astype(np.float32),
        pixel_m=pixel_m.astype(np.float32),
        patch_m=patch_m.astype(np.float32),
        untrusted=int(len(trusted) - trusted.sum()),
    )


def _normals(rays: NDArray[Any], depth: FloatArray, slopes: NDArray[Any]) -> NDArray[Any]:
    """Return unit normals (M, 3): on the plane n X = d, 1/z = n (x/z, y/z, 1) / d, whose gradient is ``slopes``."""
    along = 1.0 / depth - (slopes * rays[:, :2]).sum(axis=1)
    normals = -np.concatenate([slopes, along[:, None]], axis=1)  # n X = -d < 0: towards the camera
    unit: NDArray[Any] = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    return unit


def classify_pixels(
    depth_m: FloatArray, v: NDArray[np.int64], u: NDArray[np.int64], edge_ratio: float, min_neighbours: int
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Tell which pixels (v, u), each (M,), are no flying pixels and no speckles, and how slanted their surface is.

    The slant (M, 2) is the change of inverse depth, 1/m, to the next column and the next row of the same surface.

    A flying pixel mixes two surfaces: along a row or a column it lies between its neighbours and continues neither.
    A pixel in front of both (a thin leg) or behind both (a gap) is no mixture and stays.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(depth_m > 0.0, 1.0 / depth_m, np.nan).astype(np.float32)
    inverse[~np.isfinite(inverse)] = np.nan
    inverse = np.pad(inverse, 2, constant_values=np.nan)
    v, u = v + 2, u + 2
    here = inverse[v, u]
    tolerance = edge_ratio * here
    flying, near = np.zeros(len(here), bool), np.zeros(len(here), np.int8)
    slopes = np.zeros((len(here), 2), np.float32)
    for axis, (dv, du) in enumerate(((0, 1), (1, 0))):
        before, after = inverse[v - dv, u - du], inverse[v + dv, u + du]
        from_before = _continues(here, before, inverse[v - 2 * dv, u - 2 * du], tolerance)
        to_after = _continues(here, after, inverse[v + 2 * dv, u + 2 * du], tolerance)
        lonely = ~from_before & ~to_after
        extreme = ((here > before) & (here > after)) | ((here < before) & (here < after))
        known = ~(np.isnan(before) & np.isnan(after))
        flying |= lonely & known & ~extreme
        change = np.where(from_before, here - before, 0.0) + np.where(to_after, after - here, 0.0)
        slopes[:, axis] = change / np.maximum(1, from_before.astype(np.int8) + to_after)
        near += from_before.astype(np.int8) + to_after
    for dv, du in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        near += np.abs(inverse[v + dv, u + du] - here) <= tolerance
    trusted: NDArray[np.bool_] = ~flying & (near >= min_neighbours)
    return trusted, slopes


def _continues(here: FloatArray, near: FloatArray, beyond: FloatArray, tolerance: FloatArray) -> NDArray[np.bool_]:
    """Tell where a pixel lies on its neighbour's surface: at the same depth, or on the same plane."""
    same = np.abs(here - near) <= tolerance
    plane = np.abs(here - 2.0 * near + beyond) <= tolerance
    on_surface: NDArray[np.bool_] = same | plane
    return on_surface


class UnknownFeatures:
    """Stands for the features of a saved cloud that will only be looked at."""

    def __init__(self, channels: int) -> None:
        """Take how many numbers a point has."""
        self.channels = channels

    def __call__(self, frame: Frame, depth_m: NDArray[np.float32], camera: CameraIntrinsics) -> FeatureGrid:
        """Return the colours of a frame, where it is colours that are remembered; raise DataError else."""
        if self.channels != ColourFeatures.channels:
            raise DataError(f"this cloud remembers {self.channels} latents for each point; give it its feature source")
        return ColourFeatures()(frame, depth_m, camera)


def fits(camera: CameraIntrinsics, shape: tuple[int, ...]) -> bool:
    """Whether intrinsics are possible, and of an image of this shape (H, W, ...)."""
    numbers = np.isfinite([camera.fx, camera.fy, camera.cx, camera.cy]).all()
    return bool(numbers and camera.fx > 0 and camera.fy > 0 and (camera.height, camera.width) == shape[:2])
