"""The camera of a bag: intrinsics from CameraInfo, mounting from the transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.types import CameraIntrinsics
from come_nav.data.bags.ros_types import PIXEL_CENTRE
from come_nav.data.bags.transforms import BASE_FRAMES, TransformTree

NEGLIGIBLE_DISTORTION = 0.01


def camera_intrinsics(info: Any, size: tuple[int, int], topic: str, warnings: list[str]) -> CameraIntrinsics | None:
    """Return the calibration of images of ``size`` (width, height); None when the driver published zeros.

    CameraInfo of another resolution of the same view is scaled; distortion is told in ``warnings`` and ignored.

    Raises:
        DataError: CameraInfo is for images of another shape.
    """
    K = np.asarray(info.k if hasattr(info, "k") else info.K, float).reshape(3, 3)
    if not (np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0):
        return None  # an uncalibrated driver publishes zeros
    distortion = np.asarray(info.d if hasattr(info, "d") else info.D, float)
    if np.abs(distortion).max(initial=0.0) > NEGLIGIBLE_DISTORTION:
        warnings.append(f"{topic}: lens distortion {np.round(distortion, 3).tolist()} is not corrected")
    width, height = size
    info_width, info_height = int(info.width) or width, int(info.height) or height
    focal_x, focal_y = float(K[0, 0]), float(K[1, 1])
    centre_x, centre_y = float(K[0, 2]) + PIXEL_CENTRE, float(K[1, 2]) + PIXEL_CENTRE
    calibrated = CameraIntrinsics(info_width, info_height, focal_x, focal_y, centre_x, centre_y)
    if (info_width, info_height) == (width, height):
        return calibrated
    if abs(info_width * height - info_height * width) > 0.01 * info_width * height:
        raise DataError(
            f"{topic} is for {info_width}x{info_height} images but the images have {width}x{height}; "
            "name the fitting topic with --info-topic"
        )
    return calibrated.scaled(width, height)


def camera_extrinsics(
    tree: TransformTree, body_frame: str, camera_frame: str, warnings: list[str]
) -> NDArray[np.float64] | None:
    """Return T_base_camera (4, 4), None without transforms; a tree that does not connect them is told as well."""
    if not tree.parents:
        return None
    for base in (body_frame, *BASE_FRAMES):
        T_base_camera = tree.lookup(base, camera_frame)
        if T_base_camera is not None:
            break
    else:
        warnings.append(f"/tf does not connect {body_frame} to {camera_frame}; the camera's pose is unknown")
    return T_base_camera
