"""Points tracked between two images and triangulated with a known motion between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.multi_view.triangulation import triangulate

MAX_FEATURES = 400
FEATURE_QUALITY = 0.01
FEATURE_SPACING_PX = 5
WINDOW_PX = 15
MAX_ROUND_TRIP_PX = 0.7  # a point that is tracked there and back must return this near


class Tracker:
    """Remembers the corners of one image and finds them again in the next (Lucas-Kanade, there and back)."""

    def __init__(self, min_sideways_m: float, max_error_px: float) -> None:
        self._min_sideways_m = min_sideways_m
        self._max_error_px = max_error_px
        self._grey: NDArray[np.uint8] | None = None
        self._corners: NDArray[np.float32] | None = None

    def look(self, rgb: NDArray[np.uint8]) -> None:
        """Take the image whose corners are looked for from now on."""
        import cv2

        self._grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
        found = cv2.goodFeaturesToTrack(self._grey, MAX_FEATURES, FEATURE_QUALITY, FEATURE_SPACING_PX)
        self._corners = None if found is None else np.asarray(found, np.float32)

    def triangulate(
        self, rgb: NDArray[np.uint8], camera: CameraIntrinsics, T_now_then: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return pixels (M, 2) of ``rgb``, their inverse depth (M,) in 1/m, and the sideways motion (M,) in m.

        Args:
            rgb: the image now.
            camera: of both images.
            T_now_then: (4, 4) pose of the remembered image's optical frame in the present one.
        """
        then, now = self._tracks(rgb)
        inverse, sideways_m, error_px = triangulate(then, now, camera, T_now_then)
        sound = (sideways_m >= self._min_sideways_m) & (error_px <= self._max_error_px)
        return now[sound], inverse[sound], sideways_m[sound]

    def _tracks(self, rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the pixels (M, 2) of the same points then and now."""
        import cv2

        if self._grey is None or self._corners is None or self._grey.shape != rgb.shape[:2]:
            return np.zeros((0, 2)), np.zeros((0, 2))
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        size = (WINDOW_PX, WINDOW_PX)
        there, ok_there, _ = cv2.calcOpticalFlowPyrLK(self._grey, grey, self._corners, np.empty(0), winSize=size)
        back, ok_back, _ = cv2.calcOpticalFlowPyrLK(grey, self._grey, there, np.empty(0), winSize=size)
        drift = np.linalg.norm(back - self._corners, axis=2)[:, 0]
        now = there[:, 0].astype(np.float64) + 0.5  # OpenCV counts from the centre of the first pixel
        inside = (now >= 0).all(axis=1) & (now[:, 0] < grey.shape[1]) & (now[:, 1] < grey.shape[0])
        good = (ok_there[:, 0] == 1) & (ok_back[:, 0] == 1) & (drift < MAX_ROUND_TRIP_PX) & inside
        return self._corners[good, 0].astype(np.float64) + 0.5, now[good]
