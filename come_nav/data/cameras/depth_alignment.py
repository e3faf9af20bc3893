"""Depth in the pixels of the colour image: checked against frames and CameraInfo, moved over where it is not there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se3
from come_nav.data.cameras.lens import Lens

SAME_FOCAL, SAME_CENTRE_PX = 0.01, 2.0  # two calibrations that differ by less are one
SAME_M, SAME_RAD = 1e-3, 2e-3
WIDEST = 100.0  # tangent of the angle to the axis; NaN where a lens has no such pixel compares false
MOST_PIXELS = 6  # of colour, that one pixel of depth may cover in a row

Depth = NDArray[np.float32]


@dataclass(frozen=True)
class DepthView:
    """Where depth images come from: the frame of their header, their lens if known, and their topic."""

    topic: str
    frame: str
    lens: Lens | None
    says_registered: bool = False


@dataclass(frozen=True)
class DepthAlignment:
    """Turns a depth image into one of the straightened colour image.

    ``depth`` and ``T_colour_depth`` are None where depth lies in the pixels of the colour image already.
    """

    colour: Lens | None
    depth: Lens | None = None
    T_colour_depth: NDArray[np.float64] | None = None

    def __call__(self, depth_m: Depth) -> Depth:
        """Return depth (H, W) in metres along the colour camera's z axis, NaN where none is known."""
        if self.depth is None or self.colour is None or self.T_colour_depth is None:
            return depth_m if self.colour is None else self.colour.straighten_depth(depth_m)
        return register_depth(depth_m, self.depth, self.colour, self.T_colour_depth)


def align_depth(
    colour_frame: str,
    colour: Lens | None,
    view: DepthView,
    T_colour_depth: NDArray[np.float64] | None,
    warnings: list[str],
    *,
    believed: bool = False,
) -> DepthAlignment | None:
    """Return how depth gets into the colour image; None where that cannot be told, and depth is left out.

    Args:
        colour_frame: of the colour images.
        colour: their lens, if calibrated.
        view: the depth images.
        T_colour_depth: (4, 4) of the transforms, None where they do not connect the frames.
        warnings: notes are appended.
        believed: the user named the depth topic; what cannot be checked is taken as registered, with a note.
    """
    one_frame = view.says_registered or view.frame == colour_frame or not (view.frame and colour_frame)
    if one_frame:
        T_colour_depth = np.eye(4)
    together = T_colour_depth is not None and _is_identity(T_colour_depth)
    if together and (view.lens is None or colour is None or _same(view.lens, colour)):
        return DepthAlignment(colour)
    if T_colour_depth is not None and view.lens is not None and colour is not None:
        why = "has a CameraInfo of its own" if together else f"is in {view.frame}, images in {colour_frame}"
        warnings.append(f"{view.topic}: depth {why}; it is registered to colour")
        return DepthAlignment(colour, view.lens, T_colour_depth)
    missing = "/tf does not connect them" if T_colour_depth is None else "a CameraInfo is missing"
    told = f"{view.topic}: depth is in {view.frame}, images in {colour_frame}, and {missing}"
    if believed:
        warnings.append(f"{told}; as it was named, it is used as if it were registered")
        return DepthAlignment(colour)
    warnings.append(f"{told}; it is left out (--depth-topic {view.topic} uses it as if it were registered)")
    return None


def register_depth(
    depth_m: Depth, depth: Lens, colour: Lens, T_colour_depth: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return depth of the straightened colour image (H, W), NaN where no point falls; the nearest point wins.

    Each pixel of depth covers as many pixels of colour as it is wide there, so that a finer image gets no holes.
    """
    rays = depth.rays
    known = np.isfinite(depth_m) & (depth_m > 0) & (np.abs(rays) < WIDEST).all(axis=-1)
    z = depth_m[known].astype(np.float64)
    points = np.column_stack([rays[known] * z[:, None], z])
    points = se3.transform_points(T_colour_depth, points)
    ahead = points[:, 2] > 0
    points, z = points[ahead], z[ahead]
    scale = np.array([colour.K[0, 0] / depth.K[0, 0], colour.K[1, 1] / depth.K[1, 1]])
    width = np.clip(scale * (z / points[:, 2])[:, None], 1.0, MOST_PIXELS)
    centre = points[:, :2] / points[:, 2:] * [colour.K[0, 0], colour.K[1, 1]] + colour.K[:2, 2]
    low, high = np.rint(centre - 0.5 * (width - 1)), np.rint(centre + 0.5 * (width - 1))
    registered = np.full((colour.height, colour.width), np.inf, np.float32)
    for down in range(int((high - low)[:, 1].max(initial=0)) + 1):
        for right in range(int((high - low)[:, 0].max(initial=0)) + 1):
            place = low + np.array([right, down])
            inside = (place <= high).all(axis=1) & (place >= 0).all(axis=1)
            inside &= (place[:, 0] < colour.width) & (place[:, 1] < colour.height)
            columns, rows = place[inside].astype(np.int64).T
            np.minimum.at(registered, (rows, columns), points[inside, 2].astype(np.float32))
    registered[~np.isfinite(registered)] = np.nan
    return registered


def _same(first: Lens, second: Lens) -> bool:
    """Tell whether two lenses are one; of two resolutions they never are."""
    if (first.width, first.height) != (second.width, second.height):
        return False
    focal = np.abs(np.diag(first.K)[:2] / np.diag(second.K)[:2] - 1.0).max()
    centre = np.abs(first.K[:2, 2] - second.K[:2, 2]).max()
    return bool(focal <= SAME_FOCAL and centre <= SAME_CENTRE_PX)


def _is_identity(T: NDArray[np.float64]) -> bool:
    return bool(np.linalg.norm(T[:3, 3]) < SAME_M and se3.rotation_angle(T[:3, :3]) < SAME_RAD)
