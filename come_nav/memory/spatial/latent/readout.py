"""The read-out of a memory of latents: a z-buffer on the latent grid (Mirage, latent spatial memory, Eq. 5)."""

from __future__ import annotations

import math

from come_nav.core.geometry.point_rendering import render_points
from come_nav.memory.spatial.splatting import SpatialView, Splats, Viewpoint


def nearest_points(splats: Splats, view: Viewpoint, size: tuple[int, int]) -> SpatialView:
    """Return the features of the nearest point of each of ``size`` rows and columns of cells; cells without are holes.

    Points have no extent here, and no back: a cell between the points of a near surface shows what lies behind it.
    """
    batch, (count, channels) = len(view.poses_xyyaw), splats.features.shape
    if not count or not batch:
        empty = splats.points_xyz.new_zeros(batch, *size)
        return SpatialView(empty.new_zeros(batch, channels, *size), empty + math.nan, empty.bool())
    points, features = splats.points_xyz[None], splats.features[None]
    return SpatialView(*render_points(points, features, view.poses_xyyaw, view.camera, view.T_base_camera, size))
