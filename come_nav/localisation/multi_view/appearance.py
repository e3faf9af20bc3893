"""Does an image look, from where it registers, as what is known looks? Colours of all surfaces, not only of features.

A few features of a pattern that repeats (tiles, equal posters) agree with a wrong pose; the walls around them do not.
At right poses the correlation is 0.6 to 0.95, at wrong ones mostly below 0.5.

Cost on one core: about 2 ms.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.verification import project
from come_nav.localisation.view import SURFACE_COLUMNS, View

THUMBNAIL_PX = 80  # width of the images that are compared
FEWEST = 30  # surfaces that both show
CELLS = 20  # across the image: of the surfaces in one, those behind the nearest are hidden
HIDDEN_M, HIDDEN_SHARE = 0.1, 0.15
# logistic regression over (1, log odds of the features' confidence, correlation), fitted to the windows of 2 s of the
# built-in worlds 10010 to 10013 at 320 x 240, half of them with images of other worlds
WEIGHTS = (-7.09, 0.63, 9.02)


def appearance(
    a: View, rgb_a: NDArray[np.uint8], T_a_b: NDArray[np.float64], camera_b: CameraIntrinsics, rgb_b: NDArray[np.uint8]
) -> float:
    """Return the correlation of colours, in [-1, 1]; NaN where the images share too few surfaces.

    Args:
        a: view of an image with measured depth.
        rgb_a: that image (H, W, 3).
        T_a_b: (4, 4) pose of the other image's optical frame in a's.
        camera_b: of the other image.
        rgb_b: the other image.
    """
    if a.surface_m is None:
        return float("nan")
    rows, columns = a.surface_m.shape
    known = np.isfinite(a.surface_m.astype(np.float64))
    colours = _thumbnail(rgb_a, columns, rows)[known]
    pixels, depth, seen = project(a.surface_points_m(), T_a_b, camera_b)
    seen[seen] = _before(pixels[seen], depth[seen], camera_b)
    if seen.sum() < FEWEST:
        return float("nan")
    height = max(1, round(camera_b.height * THUMBNAIL_PX / camera_b.width))
    shown = _thumbnail(rgb_b, THUMBNAIL_PX, height)
    where = pixels[seen] * [THUMBNAIL_PX / camera_b.width, height / camera_b.height] - 0.5
    u, v = np.ascontiguousarray(where.T, np.float32)
    there = cv2.remap(shown.astype(np.float32), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(-1, 3)
    return float((_normalised(colours[seen]) * _normalised(np.asarray(there, np.float64))).mean())


def appearance_confidence(confidence: float, correlation: float) -> float:
    """Return the probability that a registration is right whose features say ``confidence``, and colours this.

    Without a correlation features alone count.
    """
    if not np.isfinite(correlation):
        return confidence
    safe = float(np.clip(confidence, 1e-4, 1.0 - 1e-4))
    odds = WEIGHTS[0] + WEIGHTS[1] * np.log(safe / (1.0 - safe)) + WEIGHTS[2] * correlation
    return float(1.0 / (1.0 + np.exp(-odds)))


def _thumbnail(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.float64]:
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), width / (2.0 * SURFACE_COLUMNS)).astype(np.float64)


def _before(pixels: NDArray[np.float64], depth: NDArray[np.float64], camera: CameraIntrinsics) -> NDArray[np.bool_]:
    """Return which points (N,) nothing nearer hides."""
    cells = np.floor(pixels * CELLS / camera.width).astype(np.int64)
    keys = cells[:, 1] * (CELLS + 1) + cells[:, 0]
    nearest = np.full(int(keys.max(initial=0)) + 1, np.inf)
    np.minimum.at(nearest, keys, depth)
    return np.asarray(depth <= nearest[keys] * (1.0 + HIDDEN_SHARE) + HIDDEN_M)


def _normalised(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return colours (N, 3) of mean zero in each channel and variance one: exposure does not count."""
    centred = colours - colours.mean(axis=0)
    return np.asarray(centred / max(float(centred.std()), 1e-6))
