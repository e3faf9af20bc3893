"""Intrinsics from CameraInfo: what it says is checked against the images before it is believed (REP 104)."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.types import CameraIntrinsics
from come_nav.data.bags.ros_types import PIXEL_CENTRE
from come_nav.data.cameras.lens import NEGLIGIBLE_PX, Lens, known_distortion

RECTIFIED = re.compile(r"(?<![a-z])rect(?![a-z])|rectified|undistorted")
SHORTEST_FOCAL = 0.1  # of the longer side: a pinhole beyond 157 degrees is a placeholder
LONGEST_FOCAL = 1e7  # px
SHAPE_TOLERANCE = 0.01

Matrix = NDArray[np.float64]


def is_rectified(topic: str) -> bool:
    """Tell by a topic's name whether its images are rectified: they have the matrix P and no distortion."""
    return RECTIFIED.search(topic.lower()) is not None


def read_lens(
    info: Any, size: tuple[int, int], topic: str, warnings: list[str], *, rectified: bool = False
) -> Lens | None:
    """Return the lens of images of ``size`` (width, height); None when CameraInfo holds no calibration.

    Region of interest, binning and CameraInfo of another resolution of the same view are taken into account. What is
    corrected, assumed or not believed is told in ``warnings``.

    Args:
        info: decoded CameraInfo of ROS 1 or 2.
        size: of the images.
        topic: named in messages.
        warnings: notes are appended.
        rectified: the images are rectified, see :func:`is_rectified`.

    Raises:
        DataError: CameraInfo is for images of another shape.
    """
    K, P, distortion = (_values(info, name) for name in ("k", "p", "d"))
    K, P = K.reshape(3, 3), P.reshape(3, 4)[:, :3] if P.size == 12 else np.zeros((3, 3))
    K = _chosen(K, P, topic, warnings, rectified)
    if not (np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0):
        return None  # an uncalibrated driver publishes zeros
    if np.allclose(K, np.eye(3)):
        warnings.append(f"{topic}: K is the identity, a placeholder; the camera counts as not calibrated")
        return None
    K = _fitted(K, info, size, topic)
    width, height = size
    focal = K[[0, 1], [0, 1]]
    if not (np.isfinite(K).all() and (focal >= SHORTEST_FOCAL * max(size)).all() and focal.max() <= LONGEST_FOCAL):
        warnings.append(f"{topic}: a focal length of {K[0, 0]:.3g} px cannot be; the camera counts as not calibrated")
        return None
    if not (-0.5 * width <= K[0, 2] <= 1.5 * width and -0.5 * height <= K[1, 2] <= 1.5 * height):
        warnings.append(f"{topic}: the principal point ({K[0, 2]:.1f}, {K[1, 2]:.1f}) px lies outside of the images")
    pinhole = Lens(width, height, K, np.zeros(0))
    return pinhole if rectified else _bent(pinhole, str(info.distortion_model), distortion, topic, warnings)


def _chosen(K: Matrix, P: Matrix, topic: str, warnings: list[str], rectified: bool) -> Matrix:
    """Return the matrix that images have: P of rectified ones, else K."""
    has_K, has_P = (np.isfinite(matrix).all() and matrix[0, 0] > 0 for matrix in (K, P))
    if rectified and has_P:
        return P
    if rectified and has_K:
        warnings.append(f"{topic}: the images are rectified but P is empty; K is used")
    if not has_K and has_P:
        warnings.append(f"{topic}: K is empty; P is used")
        return P
    return K


def _bent(pinhole: Lens, model: str, distortion: Matrix, topic: str, warnings: list[str]) -> Lens:
    """Return the lens with its distortion, unless that moves no pixel."""
    if not np.isfinite(distortion).all():
        warnings.append(f"{topic}: lens distortion holds NaN and is not corrected")
        return pinhole
    shown = np.round(distortion, 4).tolist()
    found = known_distortion(model, distortion)
    if found is None:
        warnings.append(f"{topic}: lens distortion {shown} of the model '{model}' is not known and not corrected")
        return pinhole
    name, values = found
    lens = Lens(pinhole.width, pinhole.height, pinhole.K, values, name)
    shift_px = lens.largest_shift_px()
    if shift_px <= NEGLIGIBLE_PX:
        return pinhole
    shift = f"up to {shift_px:.1f} px" if np.isfinite(shift_px) else "beyond the images"
    warnings.append(f"{topic}: lens distortion {shown} ({name}) is corrected, {shift}")
    return lens


def _fitted(K: Matrix, info: Any, size: tuple[int, int], topic: str) -> Matrix:
    """Return K of images of ``size``: CameraInfo describes the full sensor, from which a driver cuts, bins, scales."""
    width, height = size
    full = int(info.width) or width, int(info.height) or height
    if full == size:
        return K  # also of drivers that fill in a region of interest but send all of it
    window, offset = full, (0, 0)
    roi = info.roi
    if int(roi.width) and int(roi.height):
        window, offset = (int(roi.width), int(roi.height)), (int(roi.x_offset), int(roi.y_offset))
    if abs(window[0] * height - window[1] * width) > SHAPE_TOLERANCE * window[0] * height + max(window):
        raise DataError(
            f"{topic} is for {window[0]}x{window[1]} images but the images have {width}x{height}; "
            "name the fitting topic with --info-topic, or 'none'"
        )
    scale = np.array([width / window[0], height / window[1]])
    fitted = K.copy()
    fitted[:2, 2] += PIXEL_CENTRE - np.array(offset)
    fitted[:2] *= scale[:, None]
    fitted[:2, 2] -= PIXEL_CENTRE
    return fitted


def _values(info: Any, name: str) -> Matrix:
    """Return a field that ROS 1 spells in capitals."""
    value = getattr(info, name) if hasattr(info, name) else getattr(info, name.upper())
    return np.asarray(value, np.float64).reshape(-1)


def camera_intrinsics(
    info: Any, size: tuple[int, int], topic: str, warnings: list[str], *, rectified: bool = False
) -> CameraIntrinsics | None:
    """Return the pinhole camera of :func:`read_lens`, of images that were straightened."""
    lens = read_lens(info, size, topic, warnings, rectified=rectified)
    return None if lens is None else lens.pinhole
