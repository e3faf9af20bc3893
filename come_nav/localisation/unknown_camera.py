"""Photographs by a camera that is not the robot's: its focal length from EXIF, or from the matches themselves.

Both take square pixels and a principal point in the middle, which phones keep to within a few pixels. Cropped or
edited photographs may lie about their focal length; matches do not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.matching import MatchingSettings, match_features
from come_nav.localisation.refinement import Correspondences, refine
from come_nav.localisation.registration import (
    Registration,
    RegistrationSettings,
    RegistrationStatus,
    correspondences,
    settle,
    solve_pnp,
)
from come_nav.localisation.view import View

FILM_DIAGONAL_MM = float(np.hypot(36.0, 24.0))
EXIF_IFD, FOCAL_LENGTH_35MM = 0x8769, 0xA405
# focal lengths over the longer side that are tried: fields of view of 115 to 28 degrees along it, 20 % apart
TRIED = 0.32 * 1.2 ** np.arange(11)


def exif_intrinsics(path: Path) -> CameraIntrinsics | None:
    """Return the camera of a photograph from its EXIF 35 mm focal length; None where the file has none.

    The equivalent is over the diagonal (CIPA DCG-001), so it holds for upright photographs as well. Width and height
    are the file's, as decoded without its orientation tag.

    Raises:
        DataError: for a file that is no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            width, height = image.size
            value = image.getexif().get_ifd(EXIF_IFD).get(FOCAL_LENGTH_35MM)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{path}: no image that can be read ({type(error).__name__}); give a JPEG or PNG file"
        ) from error
    try:
        focal_mm = float(value) if value is not None else 0.0
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not (np.isfinite(focal_mm) and focal_mm > 0.0):  # 0 means unknown
        return None
    focal_px = focal_mm / FILM_DIAGONAL_MM * float(np.hypot(width, height))
    return CameraIntrinsics(width, height, focal_px, focal_px, 0.5 * width, 0.5 * height)


def photograph_intrinsics(path: Path, image: NDArray[np.uint8]) -> CameraIntrinsics | None:
    """Return the camera of a photograph (H, W, 3) that was decoded from a file, turned upright as its EXIF says or not.

    None where the file does not tell its focal length. Raises DataError for a file that is no image.
    """
    camera, (height, width) = exif_intrinsics(path), image.shape[:2]
    if camera is None:
        return None
    if (camera.width > camera.height) != (width > height):
        camera = CameraIntrinsics(camera.height, camera.width, camera.fy, camera.fx, camera.cy, camera.cx)
    return camera.resized_to(image)


def register_unknown_camera(
    a: View, b: View, config: RegistrationSettings | None = None, matching: MatchingSettings | None = None
) -> tuple[Registration, CameraIntrinsics | None]:
    """Register an image of an unknown camera; return the registration and the camera that was found.

    PnP is tried over a small set of focal lengths, the one with most matches that agree is refined together with the
    pose. The covariance has the focal length's uncertainty in it: a flat wall seen from straight ahead leaves distance
    and focal length open, which ends as UNSTABLE.

    Args:
        a: the known image, with points.
        b: the other one; its intrinsics, if any, are not looked at.
        config: when they count as registered.
        matching: what counts as a match.

    Returns:
        The registration, and b's camera; None unless the registration is OK.

    Raises:
        DataError: where a has no points.
    """
    settings = config or RegistrationSettings()
    if a.points_camera_m is None:
        raise DataError("registering an image of an unknown camera needs depth in the other image; give that its depth")
    if min(len(a.features), len(b.features)) < settings.min_features:
        return Registration.failed(RegistrationStatus.TOO_FEW_FEATURES), None
    pairs = match_features(a.features, b.features, matching)
    pairs = pairs[a.known[pairs[:, 0]]]
    if len(pairs) < settings.min_matches:
        return Registration.failed(RegistrationStatus.TOO_FEW_MATCHES), None
    found = correspondences(a, b, pairs, settings)
    best = _best_focal(found, b, settings)
    if best is None:
        return Registration.failed(RegistrationStatus.NO_CONSENSUS), None
    return _settle_with_focal(*best, found, pairs, settings)


def _best_focal(
    found: Correspondences, b: View, settings: RegistrationSettings
) -> tuple[CameraIntrinsics, NDArray[np.float64], NDArray[np.int64]] | None:
    width, height = b.features.width, b.features.height
    best: tuple[CameraIntrinsics, NDArray[np.float64], NDArray[np.int64]] | None = None
    for focal in TRIED * max(width, height):
        camera = CameraIntrinsics(width, height, float(focal), float(focal), 0.5 * width, 0.5 * height)
        start = solve_pnp(found, camera, settings)
        if start is not None and (best is None or len(start[1]) > len(best[2])):
            best = (camera, *start)
    return best


def _settle_with_focal(
    camera: CameraIntrinsics,
    T_a_b: NDArray[np.float64],
    rows: NDArray[np.int64],
    found: Correspondences,
    pairs: NDArray[np.int64],
    settings: RegistrationSettings,
) -> tuple[Registration, CameraIntrinsics | None]:
    covariance: NDArray[np.float64] = np.full((6, 6), np.inf)
    registration = Registration.failed(RegistrationStatus.NO_CONSENSUS)
    for _ in range(3):  # a better focal length lets more matches agree
        T_a_b, covariance, factor = refine(T_a_b, found[rows], camera, rounds=30, with_focal=True)
        camera = replace(camera, fx=camera.fx * factor, fy=camera.fy * factor)
        longer = max(camera.width, camera.height)
        if not TRIED[0] / 1.5 < camera.fx / longer < TRIED[-1] * 1.5:
            return Registration.failed(RegistrationStatus.UNSTABLE), None
        variances = np.diag(covariance)
        if not np.isfinite(covariance).all() or (
            variances[:3].max() > settings.max_sigma_m**2 or variances[3:].max() > settings.max_sigma_rad**2
        ):
            return Registration.failed(RegistrationStatus.UNSTABLE, pairs[rows], len(rows) / len(pairs)), None
        registration = settle(T_a_b, rows, found, pairs, camera, settings)
        if not registration.ok:
            return registration, None
        kept = {tuple(pair) for pair in registration.inliers.tolist()}
        rows = np.array([row for row, pair in enumerate(pairs.tolist()) if tuple(pair) in kept], np.int64)
        T_a_b = registration.T_a_b
    return replace(registration, covariance=covariance), camera
