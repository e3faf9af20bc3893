"""Views of key frames as plain arrays: many in one archive, each with what it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.errors import ShapeError
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.features import Features
from come_nav.localisation.keyframe_map import VisualKeyframe
from come_nav.localisation.view import View

Arrays = dict[str, NDArray[Any]]
NAMES = (
    "stamps_s",
    "T_base_camera",
    "cameras",
    "sizes",
    "counts",
    "keypoints_px",
    "descriptors",
    "sizes_px",
    "points_camera_m",
    "sigmas_m",
    "surface_shapes",
    "surfaces_m",
    "thumbnail_shapes",
    "thumbnails_rgb",
    "kind",
)


def packed_views(keyframes: Sequence[VisualKeyframe]) -> Arrays:
    """Return stamps, extrinsics and views of key frames; what a view lacks is NaN or of no size."""
    views = [keyframe.view for keyframe in keyframes]
    features = [view.features for view in views]
    surfaces = [np.zeros((0, 0), np.float16) if view.surface_m is None else view.surface_m for view in views]
    small = [np.zeros((0, 0, 3), np.uint8) if view.thumbnail_rgb is None else view.thumbnail_rgb for view in views]
    return {
        "stamps_s": np.array([keyframe.stamp_s for keyframe in keyframes], np.float64),
        "T_base_camera": np.array([keyframe.T_base_camera for keyframe in keyframes], np.float64).reshape(-1, 4, 4),
        "cameras": np.array([_camera(view.intrinsics) for view in views], np.float64).reshape(-1, 6),
        "sizes": np.array([(own.width, own.height) for own in features], np.int64).reshape(-1, 2),
        "counts": np.array([len(own) for own in features], np.int64),
        "keypoints_px": _joined([own.keypoints_px for own in features], np.float32),
        "descriptors": _joined([own.descriptors for own in features], np.uint8),
        "sizes_px": _joined([own.sizes_px for own in features], np.float32),
        "points_camera_m": _joined([_or_nan(view.points_camera_m, (len(view.features), 3)) for view in views]),
        "sigmas_m": _joined([_or_nan(view.sigmas_m, (len(view.features),)) for view in views]),
        "surface_shapes": np.array([surface.shape for surface in surfaces], np.int64).reshape(-1, 2),
        "surfaces_m": _joined([surface.ravel() for surface in surfaces], np.float16),
        "thumbnail_shapes": np.array([image.shape[:2] for image in small], np.int64).reshape(-1, 2),
        "thumbnails_rgb": _joined([image.ravel() for image in small], np.uint8),
        "kind": np.array(features[0].kind if features else ""),
    }


def unpacked_views(arrays: Mapping[str, NDArray[Any]], T_odom_base: NDArray[np.float64]) -> list[VisualKeyframe]:
    """Return the key frames of :func:`packed_views`, whose poses in odom (N, 4, 4) are kept elsewhere.

    Raises:
        ShapeError: for arrays that are missing or do not agree.
    """
    missing = [name for name in NAMES if name not in arrays]
    if missing:
        raise ShapeError(f"views need the array {missing[0]}")
    count = check_shape("stamps_s", arrays["stamps_s"], "N")["N"]
    check_shape("T_odom_base", T_odom_base, f"{count} 4 4")
    for name, shape in {"T_base_camera": "4 4", "cameras": "6", "sizes": "2"}.items():
        check_shape(name, arrays[name], f"{count} {shape}")
    total = int(arrays["counts"].sum())
    for name, shape in {"keypoints_px": " 2", "descriptors": " D", "sizes_px": "", "points_camera_m": " 3"}.items():
        check_shape(name, arrays[name], f"{total}{shape}")
    kind, starts = str(arrays["kind"]), _starts(arrays["counts"])
    surfaces = _shaped(arrays["surfaces_m"], arrays["surface_shapes"])
    small = _shaped(arrays["thumbnails_rgb"], np.column_stack([arrays["thumbnail_shapes"], np.full(count, 3)]))
    kept = []
    for row in range(count):
        part = slice(starts[row], starts[row + 1])
        points, sigmas = arrays["points_camera_m"][part], arrays["sigmas_m"][part]
        width, height = (int(value) for value in arrays["sizes"][row])
        keypoints, described, sizes = (
            arrays[name][part].copy() for name in ("keypoints_px", "descriptors", "sizes_px")
        )
        view = View(
            Features(keypoints, described, sizes, width, height, kind),
            _intrinsics(arrays["cameras"][row]),
            points.copy() if np.isfinite(points).any() or surfaces[row].size else None,
            surfaces[row].copy() if surfaces[row].size else None,
            sigmas.copy() if np.isfinite(sigmas).any() else None,
            small[row].copy() if small[row].size else None,
        )
        stamp_s, extrinsics = float(arrays["stamps_s"][row]), np.array(arrays["T_base_camera"][row], np.float64)
        kept.append(VisualKeyframe(stamp_s, view, np.array(T_odom_base[row], np.float64), extrinsics))
    return kept


def _camera(camera: CameraIntrinsics | None) -> tuple[float, ...]:
    return (float("nan"),) * 6 if camera is None else astuple(camera)


def _intrinsics(values: NDArray[np.float64]) -> CameraIntrinsics | None:
    if not np.isfinite(values).all():
        return None
    return CameraIntrinsics(int(values[0]), int(values[1]), *(float(value) for value in values[2:]))


def _or_nan(values: NDArray[np.float32] | None, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.full(shape, np.nan, np.float32) if values is None else values


def _joined(parts: Sequence[NDArray[Any]], dtype: Any = np.float32) -> NDArray[Any]:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)


def _starts(counts: NDArray[np.int64]) -> list[int]:
    return [0, *(int(end) for end in np.cumsum(counts))]


def _shaped(flat: NDArray[Any], shapes: NDArray[np.int64]) -> list[NDArray[Any]]:
    """Return the arrays that lie one after the other in ``flat``; raise ShapeError where they do not fill it."""
    starts = _starts(shapes.prod(axis=1))
    if starts[-1] != len(flat):
        raise ShapeError(f"views: {len(flat)} values instead of {starts[-1]}")
    return [flat[starts[row] : starts[row + 1]].reshape(shape) for row, shape in enumerate(shapes.tolist())]
