"""Does an image look, from where it registers, as what is known looks? Colours of all surfaces, not only of features.

A few features of a pattern that repeats (tiles, equal posters) agree with a wrong pose; the walls around them do not.
At right poses the correlation is 0.6 to 0.99, at wrong ones mostly below 0.6.

Cost on one core: about 2 ms.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.verification import Evidence, project
from come_nav.localisation.view import SURFACE_COLUMNS, View

FEWEST = 30  # surfaces that both show
CELLS = 20  # across the image: of the surfaces in one, those behind the nearest are hidden
HIDDEN_M, HIDDEN_SHARE = 0.1, 0.15
# logistic regression over (1, log odds of the features' confidence, correlation), fitted to the windows of 2 s of the
# built-in worlds 10010 to 10013 at 320 x 240, half of them with images of other worlds
WEIGHTS = (-7.09, 0.63, 9.02)
# and of images registered to one key frame over (1, correlation, Fisher's z of it, inlier ratio), fitted by
# ``benchmarks/recognition_confidence.py`` to worlds 10020 to 10027 and the first parts of two recordings
KEYFRAME_WEIGHTS = (-9.49, 4.8, 2.97, 5.85)
# where a pattern that repeats might be taken for itself, m in the image's optical frame: along the view and across it
RIVALS_M = tuple((0.0, float(z)) for z in np.arange(-1.5, 1.6, 0.15) if abs(z) > 0.2) + tuple(
    (float(x), 0.0) for x in np.arange(-0.9, 1.0, 0.15) if abs(x) > 0.2
)
# at 99 right registrations in the worlds 10000 to 10009 no rival looks better by more than 0.026; where a corridor's
# tiles are one off, one looks better by 0.15 to 0.24
RIVAL_MARGIN = 0.06
MOST = 0.99  # correlations above it count as this


def appearance(a: View, T_a_b: NDArray[np.float64], b: View) -> float:
    """Return the correlation of colours, in [-1, 1]; NaN where the images share too few surfaces.

    Args:
        a: view of an image with measured depth.
        T_a_b: (4, 4) pose of the other image's optical frame in a's.
        b: view of the other image; its camera is known.
    """
    if a.surface_m is None or a.thumbnail_rgb is None or b.thumbnail_rgb is None or b.intrinsics is None:
        return float("nan")
    rows, columns = a.surface_m.shape
    known = np.isfinite(a.surface_m.astype(np.float64))
    small = cv2.resize(a.thumbnail_rgb, (columns, rows), interpolation=cv2.INTER_AREA)
    colours = _smoothed(np.asarray(small, np.uint8))[known]
    pixels, depth, seen = project(a.surface_points_m(), T_a_b, b.intrinsics)
    seen[seen] = _before(pixels[seen], depth[seen], b.intrinsics)
    if seen.sum() < FEWEST:
        return float("nan")
    there = _colours_at(pixels[seen], b.thumbnail_rgb, b.intrinsics)
    return float((_normalised(colours[seen]) * _normalised(there)).mean())


def rivalled(a: View, T_a_b: NDArray[np.float64], b: View) -> bool:
    """Return whether an image looks clearly better from some place beside the one where it registers.

    Features of tiles and panels agree as well one tile on; the door between them does not. Costs some 30 looks, about
    20 ms. See :func:`appearance` for the arguments.
    """
    own = appearance(a, T_a_b, b)
    places = (se3.make_transform(np.eye(3), np.array([x_m, 0.0, z_m])) for x_m, z_m in RIVALS_M)
    return bool(np.isfinite(own)) and any(appearance(a, T_a_b @ place, b) > own + RIVAL_MARGIN for place in places)


def appearance_confidence(confidence: float, correlation: float) -> float:
    """Return the probability that a registration is right whose features say ``confidence``, and colours this.

    Without a correlation features alone count.
    """
    if not np.isfinite(correlation):
        return confidence
    safe = float(np.clip(confidence, 1e-4, 1.0 - 1e-4))
    odds = WEIGHTS[0] + WEIGHTS[1] * np.log(safe / (1.0 - safe)) + WEIGHTS[2] * correlation
    return float(1.0 / (1.0 + np.exp(-odds)))


def keyframe_confidence(evidence: Evidence, correlation: float) -> float:
    """Return the probability that an image's registration to a key frame is right, as features and colours have it.

    Without a correlation features alone count.
    """
    if not np.isfinite(correlation):
        return evidence.confidence
    return float(1.0 / (1.0 + np.exp(-np.dot(keyframe_vector(evidence.inlier_ratio, correlation), KEYFRAME_WEIGHTS))))


def keyframe_vector(inlier_ratio: float, correlation: float) -> NDArray[np.float64]:
    """Return what the regression of :func:`keyframe_confidence` sees (4,)."""
    fisher_z = np.arctanh(np.clip(correlation, -MOST, MOST))
    return np.array([1.0, correlation, fisher_z, inlier_ratio])


def _smoothed(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    return cv2.GaussianBlur(rgb, (0, 0), rgb.shape[1] / (2.0 * SURFACE_COLUMNS)).astype(np.float64)


def _colours_at(
    pixels: NDArray[np.float64], thumbnail_rgb: NDArray[np.uint8], camera: CameraIntrinsics
) -> NDArray[np.float64]:
    """Return the colours (N, 3) of an image at its pixels (N, 2)."""
    height, width = thumbnail_rgb.shape[:2]
    where = pixels * [width / camera.width, height / camera.height] - 0.5
    u, v = np.ascontiguousarray(where.T, np.float32)
    shown = _smoothed(thumbnail_rgb).astype(np.float32)
    found = cv2.remap(shown, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(-1, 3)
    return np.asarray(found, np.float64)


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
