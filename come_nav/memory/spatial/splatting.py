"""Rendering of a voxel cloud without holes in near surfaces: what shines through the gaps between points is covered.

A point in a z-buffer is one pixel wide, so that a wall nearer than (focal length x size of a point) has gaps that show
what lies behind. A morphological closing of the inverse depth (dilation, then erosion) finds these gaps: it fills what
is narrower than the spacing of the points at that depth and leaves outlines where they are.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from come_nav.core import compiled
from come_nav.core.geometry.point_rendering import FARTHEST_M, NEAREST_M, close_gaps

if TYPE_CHECKING:
    from come_nav.memory.spatial.loops.splat_loops import Packed

SPREAD = 1.4  # mean positions of neighbouring cells lie up to so many voxels apart
WINDOWS_PX = (33, 17, 9, 5, 3)  # close gaps between points that lie up to 32, 16, 8, 4, 2 px apart
BEHIND = -0.1  # cosine between a normal and the direction to the camera, below which a point is seen from behind
SLAB_M, SLAB_RATIO = 0.05, 0.01  # points so far behind the nearest one of a pixel belong to the same surface
LEAK_M, LEAK_RATIO = 0.03, 0.02  # what is farther than the closed surface by this lies behind it
LEAST_NEIGHBOURS = 5  # of eight, that give an unseen pixel their mean
POINTS_PER_CHUNK, ON_A_GPU = 2_000_000, 16_000_000  # the latter need about 2 GB
VIEWS_AT_ONCE = 8  # of compiled loops: their layers stay in a processor's cache
MAX_LEVEL = 3  # of merged cells: 8 voxels
_HALF_GRID = 1 << 15  # cells on each side of the origin


@dataclass(frozen=True)
class SpatialView:
    """What is remembered of a view.

    Attributes:
        image: (B, C, H, W) features, zero where nothing is remembered; colours lie in [-1, 1].
        depth_m: (B, H, W) metres along the optical axis, NaN where nothing is remembered.
        visible: (B, H, W) bool, where something is remembered.
    """

    image: Tensor
    depth_m: Tensor
    visible: Tensor

    @property
    def coverage(self) -> Tensor:
        """Part (B,) of each view that is remembered."""
        return self.visible.float().mean(dim=(1, 2))


@dataclass(frozen=True)
class Viewpoint:
    """Cameras of a batch, as :mod:`come_nav.core.geometry.point_rendering` takes them.

    Attributes:
        poses_xyyaw: (B, 3) poses of base_link.
        camera: (B or 1, 4) fractions.
        T_base_camera: (B or 1, 4, 4).
    """

    poses_xyyaw: Tensor
    camera: Tensor
    T_base_camera: Tensor

    @property
    def positions(self) -> Tensor:
        """Positions (B, 3) of the cameras in the reference frame."""
        cosine, sine = self.poses_xyyaw[:, 2].cos(), self.poses_xyyaw[:, 2].sin()
        x, y, z = self.T_base_camera[:, :3, 3].unbind(1)
        ahead, left = cosine * x - sine * y, sine * x + cosine * y
        return torch.stack([self.poses_xyyaw[:, 0] + ahead, self.poses_xyyaw[:, 1] + left, z.expand_as(ahead)], dim=1)

    @property
    def projection(self) -> Tensor:
        """Matrices (B, 3, 4) from homogeneous points of the reference frame to (u z, v z, z), u and v as fractions."""
        batch = len(self.poses_xyyaw)
        x, y, yaw = self.poses_xyyaw.double().unbind(1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        cosine, sine = yaw.cos(), yaw.sin()
        rows = [
            [cosine, sine, zero, -cosine * x - sine * y],
            [-sine, cosine, zero, sine * x - cosine * y],
            [zero, zero, one, zero],
            [zero, zero, zero, one],
        ]
        T_base_reference = torch.stack([torch.stack(row, 1) for row in rows], 1)
        extrinsics = self.T_base_camera.double()
        T_camera_base = torch.linalg.inv_ex(extrinsics).inverse[:, :3].expand(batch, -1, -1)
        fx, fy, cx, cy = self.camera.double().expand(batch, -1).unbind(1)
        zero = torch.zeros_like(fx)
        lens = [[fx, zero, cx], [zero, fy, cy], [zero, zero, torch.ones_like(fx)]]
        matrix = torch.stack([torch.stack(row, 1) for row in lens], 1)
        projection: Tensor = (matrix @ T_camera_base @ T_base_reference).to(self.poses_xyyaw)
        return projection

    def part(self, rows: slice) -> Viewpoint:
        """Return some rows of the batch."""
        camera, extrinsic = (value if len(value) == 1 else value[rows] for value in (self.camera, self.T_base_camera))
        return Viewpoint(self.poses_xyyaw[rows], camera, extrinsic)


@dataclass(frozen=True)
class Splats:
    """The cloud as tensors.

    Attributes:
        points_xyz: (N, 3).
        features: (N, C).
        normals: (N, 3) mean normals, towards where the points were seen from. A point that is looked at from behind
            hides what is farther away, but what it looks like from there is not known.
        sizes_m: (N,) what each point stands for: its voxel, or the pixel that saw it where that is wider.
        weights: (N,) how much each point counts where several fall into one pixel.
    """

    points_xyz: Tensor
    features: Tensor
    normals: Tensor
    sizes_m: Tensor
    weights: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in this order."""
        return self.points_xyz, self.features, self.normals, self.sizes_m, self.weights

    @cached_property
    def packed(self) -> Packed:
        """The points as compiled loops take them, sorted so that blocks out of view cost nothing."""
        from come_nav.memory.spatial.loops.splat_loops import BLOCK, LANES, Cloud, Packed, find_cells, pack

        count, channels = self.features.shape
        cloud = Cloud(*(tensor.detach().contiguous().numpy() for tensor in self.tensors))
        blocks = -(-count // BLOCK)
        places, boxes = np.empty((blocks, 3, BLOCK), np.float32), np.empty((6, blocks), np.float32)
        values = np.zeros((count, -(-(channels + 3) // LANES) * LANES), np.float32)
        packed, keys = Packed(places, np.empty((count, 3), np.float32), values, boxes), np.empty(count, np.uint16)
        find_cells(cloud.points, keys)
        pack(keys.argsort(kind="stable"), cloud, packed)  # 16 bits are sorted in a tenth of the time that 64 take
        return packed

    def part(self, chosen: Tensor) -> Splats:
        """Return the points that a mask (N,) names."""
        return Splats(*(tensor[chosen] for tensor in self.tensors))


def thinned(splats: Splats, centre_xyz: Tensor, reach_m: float, pixel: float, voxel_m: float) -> Splats:
    """Merge points that cameras around ``centre_xyz`` (3,) cannot tell apart, so that many views cost little.

    Args:
        splats: the cloud, one point for each voxel.
        centre_xyz: middle of the cameras.
        reach_m: largest distance of a camera from it.
        pixel: width of a pixel per unit of distance, 1 / (focal length in pixels).
        voxel_m: edge of a voxel. Points merge in cells of 2, 4, ... voxels that are no wider than a pixel.
    """
    distance = (splats.points_xyz - centre_xyz).norm(dim=1) - reach_m
    level = (distance.clamp_min(voxel_m) * pixel / voxel_m).log2().floor().clamp(0, MAX_LEVEL).long()
    far = level > 0
    if not bool(far.any()):
        return splats
    coarse = _merged(splats.part(far), voxel_m * 2.0 ** level[far], level[far])
    near = splats.part(~far)
    return Splats(*(torch.cat(pair) for pair in zip(near.tensors, coarse.tensors, strict=True)))


def coarsened(splats: Splats, cell_m: float) -> Splats:
    """Merge all points that lie in the same cell of edge ``cell_m``, for small images that are needed quickly."""
    one_level = torch.zeros_like(splats.weights, dtype=torch.int64)
    return _merged(splats, torch.full_like(splats.weights, cell_m), one_level)


def _merged(splats: Splats, cell_m: Tensor, level: Tensor) -> Splats:
    """Merge the points of each cell of a grid; cells have edges (N,), and one ``level`` (N,) for each edge."""
    index = (splats.points_xyz / cell_m[:, None]).floor().long() + _HALF_GRID
    rows = level * 2 * _HALF_GRID + index[:, 0]
    _, cell = ((rows * 2 * _HALF_GRID + index[:, 1]) * 2 * _HALF_GRID + index[:, 2]).unique(return_inverse=True)
    count = int(cell.max()) + 1 if len(cell) else 0
    weights = splats.weights[:, None]
    parts = [splats.points_xyz, splats.features, splats.normals]
    values = torch.cat([*(part * weights for part in parts), weights], dim=1)
    sums = _sums(values, cell, count)
    points, features, normals = (sums[:, :-1] / sums[:, -1:].clamp_min(1e-9)).split([p.shape[1] for p in parts], dim=1)
    sizes = torch.maximum(splats.sizes_m, cell_m)
    sizes = sizes.new_zeros(count).scatter_reduce_(0, cell, sizes, "amax")
    unit = normals / normals.norm(dim=1, keepdim=True).clamp_min(1e-6)
    return Splats(points, features, unit, sizes, sums[:, -1])


def _sums(values: Tensor, place: Tensor, count: int) -> Tensor:
    """Return sums (count, C) of the rows (N, C) that share a ``place`` (N,).

    A GPU adds in an order that changes from run to run: in float64, so that the float32 result does not.
    """
    exact = torch.float64 if values.is_cuda else values.dtype
    sums = torch.zeros(count, values.shape[1], dtype=exact, device=values.device)
    return sums.index_add_(0, place, values.to(exact)).to(values.dtype)


def render_splats(splats: Splats, view: Viewpoint, size: tuple[int, int], gaps: bool = True) -> SpatialView:
    """Render a cloud from B cameras; see the module.

    Args:
        splats: the cloud.
        view: B cameras.
        size: rows and columns of the image.
        gaps: close single unseen pixels among seen ones.
    """
    batch, (count, channels) = len(view.poses_xyyaw), splats.features.shape
    if not count or not batch:
        empty = splats.points_xyz.new_zeros(batch, *size)
        return SpatialView(empty.new_zeros(batch, channels, *size), empty + math.nan, empty.bool())
    if compiled.suits(*splats.tensors, view.poses_xyyaw, view.camera, view.T_base_camera):
        image, depth, visible = _compiled(splats, view, size)
    else:
        step = max(1, (ON_A_GPU if splats.points_xyz.is_cuda else POINTS_PER_CHUNK) // count)
        parts = [_render(splats, view.part(slice(start, start + step)), size) for start in range(0, batch, step)]
        image, depth, visible = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    if gaps:
        joined = torch.cat([image, depth[:, None]], dim=1)
        joined, visible = close_gaps(joined, visible, LEAST_NEIGHBOURS)
        image, depth = joined[:, :-1], joined[:, -1]
    return SpatialView(image, torch.where(visible, depth, math.nan), visible)


def _compiled(splats: Splats, view: Viewpoint, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return what :func:`_render` does."""
    from come_nav.memory.spatial.loops.cover_loops import Images, cover
    from come_nav.memory.spatial.loops.splat_loops import Cameras, Layers, Rules, render

    batch, channels = len(view.poses_xyyaw), splats.features.shape[1]
    focal_px = (view.camera[:, 0] * size[1]).expand(batch)
    cameras = [tensor.detach().contiguous().numpy() for tensor in (view.projection, view.positions, focal_px)]
    image, depth = torch.empty(batch, channels, *size), torch.empty(batch, *size)
    visible = torch.empty(batch, *size, dtype=torch.bool)
    images = [tensor.numpy() for tensor in (image, depth, visible)]
    numbers = (NEAREST_M, FARTHEST_M, SLAB_M, SLAB_RATIO, BEHIND, SPREAD, LEAK_M, LEAK_RATIO)
    packed = splats.packed
    rules = Rules(*(np.float32(number) for number in numbers))

    def some(start: int, stop: int) -> None:
        for first in range(start, stop, VIEWS_AT_ONCE):
            part = slice(first, min(first + VIEWS_AT_ONCE, stop))
            count = part.stop - first
            sheets = np.empty((count, channels + 2, *size), np.float32)
            layers = Layers(sheets, np.empty((count, *size), np.bool_), np.empty(count, np.float32))
            render(packed, Cameras(*(array[part] for array in cameras)), rules, layers)
            cover(layers, rules, WINDOWS_PX, Images(*(array[part] for array in images)))

    compiled.shared_out(some, batch)
    return image, depth, visible


def _render(splats: Splats, view: Viewpoint, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return image, depth (0 = unknown) and visibility."""
    blend = _blend_by_kernels if _suits_kernels(*splats.tensors, view.poses_xyyaw) else _blend
    image, sizes_m, inverse, front = blend(splats, view, size)
    image, inverse, front = image.clone(), inverse.clone(), front.clone()  # gradients need what they were before, too
    points_px = SPREAD * sizes_m * view.camera[:, 0, None, None, None] * size[1] * inverse
    for window in WINDOWS_PX:  # the nearest surfaces first: what shines through them is no surface
        near = points_px > (window - 1) / 2
        if image.is_cuda:  # asking which views come so near would wait for the device
            image, inverse, front = _cover(image, inverse, front, near, window)
            continue
        which = near.flatten(1).any(dim=1)  # few views come so near to a surface
        if bool(which.any()):
            covered = _cover(image[which], inverse[which], front[which], near[which], window)
            image[which], inverse[which], front[which] = covered
    visible = (inverse > 0) & front
    return image * visible, torch.where(visible, 1.0 / inverse, 0.0)[:, 0], visible[:, 0]


@cache
def _has_triton() -> bool:
    """Say whether the compiler of kernels is installed, as it is with torch for CUDA."""
    return importlib.util.find_spec("triton") is not None


def _suits_kernels(*tensors: Tensor) -> bool:
    """Say whether kernels may take these tensors: float32 of a CUDA device that no gradient flows through."""
    if not _has_triton() or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return False
    return all(tensor.is_cuda and tensor.dtype == torch.float32 for tensor in tensors)


def _blend_by_kernels(splats: Splats, view: Viewpoint, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what :func:`_blend` does, without a wait for the device."""
    from come_nav.memory.spatial.loops.splat_kernels import Rules, blend

    rules = Rules(NEAREST_M, FARTHEST_M, SLAB_M, SLAB_RATIO, BEHIND)
    nearest, sums = blend(splats.tensors, view.projection, view.positions, size, rules)
    batch, channels = len(nearest), splats.features.shape[1]
    front = sums[..., :1] > 0
    means = sums[..., 1:] / torch.where(front, sums[..., :1], 1.0)
    inverse = 1.0 / torch.where(front[..., 0], means[..., 1], nearest)  # 0 where nothing is
    image = means[..., 2:].transpose(1, 2).reshape(batch, channels, *size)
    others = (means[..., 0], inverse, front[..., 0])
    points_m, inverse_depth, seen = (value.reshape(batch, 1, *size) for value in others)
    return image, points_m, inverse_depth, seen


def _blend(splats: Splats, view: Viewpoint, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return image (B, C, H, W), size of the points, inverse depth, and whether the front was seen, each (B, 1, H, W).

    A z-buffer finds the nearest point of each pixel; those that lie on the same surface, up to a slab behind it, are
    averaged, so that noise of depth does not become noise of colour.
    """
    batch, pixels = len(view.poses_xyyaw), size[0] * size[1]
    points = splats.points_xyz
    homogeneous = torch.cat([points, torch.ones_like(points[:, :1])], dim=1)
    projected = (view.projection.flatten(0, 1) @ homogeneous.T).unflatten(0, (batch, 3))  # one product for all views
    depth = projected[:, 2]
    u, v = (projected[:, :2] / depth.clamp_min(NEAREST_M)[:, None]).unbind(1)
    inside = (u >= 0) & (u < 1) & (v >= 0) & (v < 1) & (depth > NEAREST_M) & (depth < FARTHEST_M)
    which, chosen = inside.nonzero(as_tuple=True)
    u, v, depth = u[inside], v[inside], depth[inside]
    row, column = (v * size[0]).long(), (u * size[1]).long()
    pixel = which * pixels + row * size[1] + column
    nearest = depth.new_full((batch * pixels,), math.inf).scatter_reduce_(0, pixel, depth, "amin")
    same = depth <= nearest[pixel] * (1.0 + SLAB_RATIO) + SLAB_M
    which, chosen, pixel, depth = which[same], chosen[same], pixel[same], depth[same]
    towards = view.positions[which] - points[chosen]
    cosine = (splats.normals[chosen] * towards).sum(dim=1) / towards.norm(dim=1).clamp_min(1e-6)
    weights = (splats.weights[chosen] * (cosine > BEHIND))[:, None]
    own = torch.stack([splats.sizes_m[chosen], depth, torch.ones_like(depth)], dim=1)
    values = torch.cat([splats.features[chosen], own], dim=1)
    sums = _sums(values * weights, pixel, batch * pixels)
    front = sums[:, -1] > 0
    means = sums[:, :-1] / torch.where(front, sums[:, -1], 1.0)[:, None]
    inverse = 1.0 / torch.where(front, means[:, -1], nearest)  # 0 where nothing is
    image, sizes_m = means[:, :-1].reshape(batch, *size, -1).permute(0, 3, 1, 2).split([means.shape[1] - 2, 1], dim=1)
    return image, sizes_m, inverse.reshape(batch, 1, *size), front.reshape(batch, 1, *size)


def _cover(image: Tensor, inverse: Tensor, front: Tensor, near: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """Close gaps up to ``window`` px among the ``near`` points that are seen from the front."""
    surface = near & front
    closed = -_dilate(-_dilate(torch.where(surface, inverse, 0.0), window), window)
    slack = 1.0 - LEAK_M * closed - LEAK_RATIO
    leak = (inverse < closed * slack.clamp_min(0.1)) | (~front & (inverse < closed))
    mask = (surface & ~leak).to(image)
    total, share = (_mean(value, window) for value in (image * mask, mask))
    leak &= share > 0
    image = torch.where(leak, total / share.clamp_min(1e-6), image)
    return image, torch.where(leak, closed, inverse), front | leak


def _dilate(image: Tensor, window: int) -> Tensor:
    """Largest value in a square window, one axis after the other."""
    half = window // 2
    rows = max_pool2d(image, (window, 1), 1, (half, 0))
    return max_pool2d(rows, (1, window), 1, (0, half))


def _mean(image: Tensor, window: int) -> Tensor:
    """Mean in a square window by running sums, one axis after the other; what lies outside counts as zero."""
    half = window // 2
    columns = pad(image, (0, 0, half + 1, half)).cumsum(dim=2)
    image = columns[:, :, window:] - columns[:, :, :-window]
    rows = pad(image, (half + 1, half, 0, 0)).cumsum(dim=3)
    return (rows[..., window:] - rows[..., :-window]) / window**2
