"""Lenses: how CameraInfo says that light was bent, and images straightened so that everything inside is a pinhole.

Models are those of sensor_msgs/CameraInfo: plumb_bob and rational_polynomial (OpenCV's ``initUndistortRectifyMap``)
and equidistant (``cv2.fisheye``). A straightened image keeps the matrix K, so its centre does not change; what the
lens did not see is black, and its depth unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.types import CameraIntrinsics
from come_nav.data.bags.ros_types import PIXEL_CENTRE

NEGLIGIBLE_PX = 0.3  # lenses that move no pixel farther than this are pinholes
MODELS = {
    "plumb_bob": "plumb_bob",
    "radtan": "plumb_bob",
    "radial_tangential": "plumb_bob",
    "brown_conrady": "plumb_bob",
    "rational_polynomial": "rational_polynomial",
    "rational": "rational_polynomial",
    "equidistant": "equidistant",
    "equi": "equidistant",
    "fisheye": "equidistant",
    "kannala_brandt": "equidistant",
    "kannala_brandt4": "equidistant",
}
COUNTS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}


@dataclass(frozen=True)
class Lens:
    """One camera.

    Attributes:
        width, height: of its images.
        K: (3, 3) in OpenCV's convention, integer coordinates at pixel centres.
        distortion: (N,) coefficients in the order of ``model``; empty for a pinhole.
        model: plumb_bob, rational_polynomial, equidistant or pinhole.
    """

    width: int
    height: int
    K: NDArray[np.float64]
    distortion: NDArray[np.float64]
    model: str = "pinhole"

    @property
    def pinhole(self) -> CameraIntrinsics:
        """The camera of straightened images."""
        K = self.K
        centre = float(K[0, 2]) + PIXEL_CENTRE, float(K[1, 2]) + PIXEL_CENTRE
        return CameraIntrinsics(self.width, self.height, float(K[0, 0]), float(K[1, 1]), *centre)

    @property
    def is_pinhole(self) -> bool:
        """Whether images are used as they are."""
        return self.model == "pinhole"

    @cached_property
    def maps(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """OpenCV's fixed-point maps (H, W, 2) and (H, W), as ``cv2.undistort`` makes them."""
        import cv2

        return self._maps(cv2.CV_16SC2)

    def source(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return column and row (H, W) of the source of each straightened pixel."""
        import cv2

        return self._maps(cv2.CV_32FC1)

    def _maps(self, kind: int) -> tuple[NDArray[Any], NDArray[Any]]:
        import cv2

        size = (self.width, self.height)
        if self.model == "equidistant":
            found = cv2.fisheye.initUndistortRectifyMap(self.K, self.distortion, np.eye(3), self.K, size, kind)
        else:
            found = cv2.initUndistortRectifyMap(self.K, self.distortion, None, self.K, size, kind)
        return np.asarray(found[0]), np.asarray(found[1])

    def largest_shift_px(self) -> float:
        """Return how far the lens moves a pixel at most."""
        if self.is_pinhole:
            return 0.0
        columns, rows = self.source()
        shift = np.hypot(columns - np.arange(self.width), rows - np.arange(self.height)[:, None])
        return float(np.nan_to_num(shift, nan=np.inf).max())

    def straighten(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (H, W, 3) or (H, W) as a pinhole camera would have seen it, interpolated, black where nothing was."""
        if self.is_pinhole:
            return rgb
        import cv2

        return np.asarray(cv2.remap(rgb, *self.maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.uint8)

    def straighten_depth(self, depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return depth (H, W) likewise, from the nearest pixel, NaN where nothing was."""
        if self.is_pinhole:
            return depth_m
        import cv2

        nearest = cv2.remap(depth_m, *self.maps, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=np.nan)
        return np.asarray(nearest, np.float32)

    @cached_property
    def rays(self) -> NDArray[np.float64]:
        """Columns and rows, x / z and y / z (H, W, 2) of what each pixel of the bent image looks at."""
        import cv2

        columns, rows = np.meshgrid(np.arange(self.width, dtype=float), np.arange(self.height, dtype=float))
        pixels = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2)
        if self.model == "equidistant":
            found = cv2.fisheye.undistortPoints(pixels, self.K, self.distortion)
        else:
            found = cv2.undistortPoints(pixels, self.K, self.distortion if len(self.distortion) else None)
        return np.asarray(found, np.float64).reshape(self.height, self.width, 2)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("maps", "rays")}


def known_distortion(model: str, values: NDArray[np.float64]) -> tuple[str, NDArray[np.float64]] | None:
    """Return the model's name here and its coefficients, padded with zeros; None where it is not known.

    A lens without coefficients is a pinhole, but for the equidistant one, which bends light without any.
    """
    named = MODELS.get(model.strip().lower().replace("-", "_"))
    given = np.trim_zeros(values, "b")
    if named != "equidistant" and not len(given):
        return "pinhole", np.zeros(0)
    if named is None and not model.strip():
        named = "plumb_bob" if len(given) <= 5 else "rational_polynomial"
    if named == "plumb_bob" and len(given) > 5:
        named = "rational_polynomial"  # as OpenCV itself tells them apart
    if named is None or len(given) > COUNTS[named][-1]:
        return None
    count = next(count for count in COUNTS[named] if count >= len(given))
    return named, np.pad(given, (0, count - len(given)))
