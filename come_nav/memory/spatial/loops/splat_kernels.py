"""What :mod:`come_nav.memory.spatial.splatting` does in its z-buffer and its means, as kernels of Triton for GPUs.

Every program takes one block of points of one view. Nothing waits for the host, and only points in view write.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
INFINITY_BITS = 0x7F800000  # of float32; those of numbers >= 0 are ordered as the numbers are


class Rules(NamedTuple):
    """Which points are in view and of one surface, see ``splatting``."""

    nearest_m: float
    farthest_m: float
    slab_m: float
    slab_ratio: float
    behind: float


# triton has no types: the decorator is untyped where it is installed, and Any, with nothing to ignore, where it is not
@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _seen(points: Any, projections: Any, index: Any, valid: Any, view: Any, rows: Any, columns: Any) -> Any:
    """Return pixel, depth, and whether they lie in the image, of points (N, 3)."""
    x = tl.load(points + 3 * index, mask=valid, other=0.0)
    y = tl.load(points + 3 * index + 1, mask=valid, other=0.0)
    z = tl.load(points + 3 * index + 2, mask=valid, other=0.0)
    matrix = projections + 12 * view
    across = tl.load(matrix) * x + tl.load(matrix + 1) * y + tl.load(matrix + 2) * z + tl.load(matrix + 3)
    down = tl.load(matrix + 4) * x + tl.load(matrix + 5) * y + tl.load(matrix + 6) * z + tl.load(matrix + 7)
    depth = tl.load(matrix + 8) * x + tl.load(matrix + 9) * y + tl.load(matrix + 10) * z + tl.load(matrix + 11)
    safe = tl.where(depth > 1e-6, depth, 1e-6)
    u, v = across / safe * columns, down / safe * rows
    inside = valid & (u >= 0.0) & (u < columns) & (v >= 0.0) & (v < rows)
    column, row = tl.where(inside, u, 0.0).to(tl.int32), tl.where(inside, v, 0.0).to(tl.int32)
    return view * rows * columns + row * columns + column, depth, inside


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _nearest(  # noqa: PLR0913, PLR0917  a kernel takes pointers and numbers alone
    points: Any,
    projections: Any,
    nearest: Any,
    count: Any,
    rows: Any,
    columns: Any,
    nearest_m: Any,
    farthest_m: Any,
    BLOCK: tl.constexpr,
) -> None:
    """Write the bits of the nearest depth of each pixel (B * P,)."""
    view, index = tl.program_id(1), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    pixel, depth, inside = _seen(points, projections, index, index < count, view, rows, columns)
    inside = inside & (depth > nearest_m) & (depth < farthest_m)
    bits = depth.to(tl.int32, bitcast=True)
    before = tl.load(nearest + pixel, mask=inside, other=0)
    tl.atomic_min(nearest + pixel, bits, mask=inside & (bits < before))


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _sums(  # noqa: PLR0913, PLR0917
    points: Any,
    features: Any,
    normals: Any,
    sizes: Any,
    weights: Any,
    projections: Any,
    positions: Any,
    nearest: Any,
    sums: Any,
    count: Any,
    rows: Any,
    columns: Any,
    nearest_m: Any,
    farthest_m: Any,
    slab_m: Any,
    slab_ratio: Any,
    behind: Any,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Add weight, weighted size, depth and features (B * P, C + 3) of the nearest surface, seen from the front."""
    view, index = tl.program_id(1), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = index < count
    pixel, depth, inside = _seen(points, projections, index, valid, view, rows, columns)
    inside = inside & (depth > nearest_m) & (depth < farthest_m)
    surface = tl.load(nearest + pixel, mask=inside, other=0).to(tl.float32, bitcast=True)
    same = inside & (depth <= surface * (1.0 + slab_ratio) + slab_m)
    tx = tl.load(positions + 3 * view) - tl.load(points + 3 * index, mask=same, other=0.0)
    ty = tl.load(positions + 3 * view + 1) - tl.load(points + 3 * index + 1, mask=same, other=0.0)
    tz = tl.load(positions + 3 * view + 2) - tl.load(points + 3 * index + 2, mask=same, other=0.0)
    along = tl.load(normals + 3 * index, mask=same, other=0.0) * tx
    along += tl.load(normals + 3 * index + 1, mask=same, other=0.0) * ty
    along += tl.load(normals + 3 * index + 2, mask=same, other=0.0) * tz
    distance = tl.sqrt(tx * tx + ty * ty + tz * tz)
    counts = same & (along > behind * tl.where(distance > 1e-6, distance, 1e-6))
    weight = tl.load(weights + index, mask=counts, other=0.0)
    place = sums + pixel * (CHANNELS + 3)
    size = tl.load(sizes + index, mask=counts, other=0.0)
    tl.atomic_add(place, weight.to(tl.float64), mask=counts)
    tl.atomic_add(place + 1, (weight * size).to(tl.float64), mask=counts)
    tl.atomic_add(place + 2, (weight * depth).to(tl.float64), mask=counts)
    for channel in range(CHANNELS):
        value = tl.load(features + CHANNELS * index + channel, mask=counts, other=0.0)
        tl.atomic_add(place + 3 + channel, (weight * value).to(tl.float64), mask=counts)


def blend(
    tensors: tuple[Tensor, ...], projections: Tensor, positions: Tensor, size: tuple[int, int], rules: Rules
) -> tuple[Tensor, Tensor]:
    """Return the nearest depth (B, P), infinite where nothing is, and sums (B, P, C + 3) of the nearest surface.

    Args:
        tensors: positions (N, 3), features (N, C), normals (N, 3), sizes (N,) and weights (N,) of points.
        projections: (B, 3, 4) as of ``Viewpoint``.
        positions: (B, 3) of the cameras.
        size: rows and columns.
        rules: see there.

    Sums hold weight, weighted size, weighted depth and weighted features.
    """
    points, features, normals, sizes, weights = (tensor.contiguous() for tensor in tensors)
    (count, channels), batch, pixels = features.shape, len(projections), size[0] * size[1]
    nearest = torch.full((batch, pixels), INFINITY_BITS, dtype=torch.int32, device=points.device)
    sums = points.new_zeros(batch, pixels, channels + 3, dtype=torch.float64)  # added in an order that changes
    cameras, grid = (projections.contiguous(), positions.contiguous()), (triton.cdiv(count, BLOCK), batch)
    near = (rules.nearest_m, rules.farthest_m)
    _nearest[grid](points, cameras[0], nearest, count, *size, *near, BLOCK=BLOCK)
    behind = (rules.slab_m, rules.slab_ratio, rules.behind)
    values = (points, features, normals, sizes, weights, *cameras, nearest, sums)
    _sums[grid](*values, count, *size, *near, *behind, CHANNELS=channels, BLOCK=BLOCK)
    return nearest.view(torch.float32), sums.float()
