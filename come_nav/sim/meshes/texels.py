"""Texels of many images with their mip levels, looked up bilinearly in one step; images repeat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = 10


class Texels:
    """A table of all texels of all levels of some images; image number -1 is white."""

    def __init__(self, images: Sequence[NDArray[np.float32]]) -> None:
        """Take images (H, W, 3) in [0, 1] of any sizes."""
        white = np.ones((1, 1, 3), dtype=np.float32)
        pyramids = [_pyramid(image) for image in (white, *images)]
        self._height, self._width = (
            np.array([[level.shape[axis] for level in pyramid] for pyramid in pyramids]) for axis in (0, 1)
        )
        sizes = self._height * self._width
        self._start = (np.cumsum(sizes) - sizes.ravel()).reshape(sizes.shape)
        texels = np.concatenate([level.reshape(-1, 3) for pyramid in pyramids for level in pyramid])
        self._texels: NDArray[np.uint8] = np.round(texels * 255.0).astype(np.uint8)

    def sample(self, image: NDArray[Any], uv: NDArray[np.float32], level: NDArray[Any]) -> NDArray[np.float32]:
        """Return colours (P, 3) in [0, 1] at uv (P, 2), v upwards, of images (P,) at mip levels (P,), rounded."""
        place = (image + 1, np.clip(np.round(level), 0, LEVELS - 1).astype(np.int64))
        width, height, start = self._width[place], self._height[place], self._start[place]
        column, row = (uv[:, 0] % 1.0) * width - 0.5, ((1.0 - uv[:, 1]) % 1.0) * height - 0.5
        left, top = np.floor(column).astype(np.int64), np.floor(row).astype(np.int64)
        right_share = (column - left)[:, None].astype(np.float32)
        below_share = (row - top)[:, None].astype(np.float32)

        def at(down: int, right: int) -> NDArray[np.float32]:
            texel = start + ((top + down) % height) * width + (left + right) % width
            found: NDArray[np.float32] = self._texels[texel].astype(np.float32)
            return found

        above = at(0, 0) * (1.0 - right_share) + at(0, 1) * right_share
        below = at(1, 0) * (1.0 - right_share) + at(1, 1) * right_share
        colours: NDArray[np.float32] = (above * (1.0 - below_share) + below * below_share) / np.float32(255.0)
        return colours


def texel_density(corners: NDArray[Any], uvs: NDArray[np.float32], size_px: NDArray[Any]) -> NDArray[np.float32]:
    """Return texels per unit of length (F,) of triangles with corners (F, 3, 3), uvs (F, 3, 2) and images (F, 2) px."""
    along, up = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = np.linalg.norm(np.cross(along, up), axis=1)
    right, down = ((uvs[:, index] - uvs[:, 0]) * size_px for index in (1, 2))
    area_px = np.abs(right[:, 0] * down[:, 1] - right[:, 1] * down[:, 0])
    density: NDArray[np.float32] = np.sqrt(area_px / np.maximum(area, 1e-12)).astype(np.float32)
    return density


def _pyramid(image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return the image and its levels, each half as large, down to one texel and then the same again."""
    import cv2

    levels = [np.ascontiguousarray(image, dtype=np.float32)]
    while len(levels) < LEVELS:
        height, width = levels[-1].shape[:2]
        smaller = (max(1, width // 2), max(1, height // 2))
        levels.append(np.asarray(cv2.resize(levels[-1], smaller, interpolation=cv2.INTER_AREA), np.float32))
    return levels
