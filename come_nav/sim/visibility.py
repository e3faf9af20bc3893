"""What each pixel of a level camera sees: boxes are tested per image column in the plane, then per pixel in height.

The camera is level, so all rays of an image column share one vertical plane. With z-depth t as the ray parameter a
ray is (x, y)(t) = camera + t (forward + a right) and z(t) = h + t s, where a depends on the column and s on the row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

NEAR_EPSILON = 1e-7


@dataclass(frozen=True)
class PackedBoxes:
    """Boxes of several worlds, padded to the same number N; padding lies far away and is never hit.

    Attributes:
        centre_x, centre_y, half_x, half_y, cosine, sine, z_low, z_high: (Wn, N) float32.
        full: (Wn, N) bool, boxes from floor to ceiling.
        ceiling: (Wn,) heights.
    """

    centre_x: torch.Tensor
    centre_y: torch.Tensor
    half_x: torch.Tensor
    half_y: torch.Tensor
    cosine: torch.Tensor
    sine: torch.Tensor
    z_low: torch.Tensor
    z_high: torch.Tensor
    full: torch.Tensor
    ceiling: torch.Tensor


@dataclass(frozen=True)
class Hits:
    """Nearest hits of B x W columns with H rows.

    Attributes:
        depth: (B * W, H) z-depth in metres.
        face: (B * W, H) int32, box * 6 + face (4 = top, 5 = underside); -1 = floor or ceiling.
        direction: (B * W, 2) plane direction per unit of z-depth.
    """

    depth: torch.Tensor
    face: torch.Tensor
    direction: torch.Tensor


@dataclass(frozen=True)
class _Pairs:
    """Column-box pairs that may be visible, ordered by rank in the column, then by the column's number of boxes.

    ``counts[k]`` columns have more than k boxes; ``order`` lists the columns, fullest first.
    """

    enter: torch.Tensor
    leave: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    side: torch.Tensor
    top: torch.Tensor
    counts: list[int]
    order: torch.Tensor


def cast(
    boxes: PackedBoxes,
    world: torch.Tensor,
    poses_xyyaw: torch.Tensor,
    slopes_right: torch.Tensor,
    slopes_up: torch.Tensor,
    camera_height_m: float,
) -> Hits:
    """Find the nearest surface of every pixel.

    Args:
        boxes: of Wn worlds.
        world: (B,) long, the world of each camera.
        poses_xyyaw: (B, 3) camera positions and headings.
        slopes_right: (W,) offset to the right per unit of depth of each column's centre.
        slopes_up: (H,) rise per unit of depth of each row's centre, none of them zero.
        camera_height_m: above the floor.
    """
    pairs, direction = _visible_pairs(boxes, world, poses_xyyaw, slopes_right, camera_height_m)
    inverse_up = 1.0 / slopes_up
    looks_up = slopes_up > 0
    room_to_ceiling = (boxes.ceiling[world] - camera_height_m).repeat_interleave(len(slopes_right))
    background = torch.where(looks_up, room_to_ceiling[:, None], -camera_height_m) * inverse_up
    depth = background.index_select(0, pairs.order)
    face = torch.full_like(depth, -1, dtype=torch.int32)
    underside = looks_up.to(torch.int32)
    start = 0
    for count in pairs.counts:
        part = slice(start, start + count)
        start += count
        enter = pairs.enter[part, None]
        to_low, to_high = pairs.low[part, None] * inverse_up, pairs.high[part, None] * inverse_up
        near = torch.maximum(torch.minimum(to_low, to_high), enter)
        far = torch.minimum(torch.maximum(to_low, to_high), pairs.leave[part, None])
        seen = (near < far) & (near < depth[:count])
        surface = torch.where(near > enter, pairs.top[part, None] + underside, pairs.side[part, None])
        depth[:count] = torch.where(seen, near, depth[:count])
        face[:count] = torch.where(seen, surface, face[:count])
    back = torch.empty_like(pairs.order)
    back[pairs.order] = torch.arange(len(back), device=back.device)
    return Hits(depth.index_select(0, back), face.index_select(0, back), direction)


def _visible_pairs(
    boxes: PackedBoxes,
    world: torch.Tensor,
    poses_xyyaw: torch.Tensor,
    slopes_right: torch.Tensor,
    camera_height_m: float,
) -> tuple[_Pairs, torch.Tensor]:
    """Intersect B x W plane rays with N footprints (slab test in each box's frame) and keep those before a wall."""
    batch, width = len(world), len(slopes_right)
    cos_box, sin_box = boxes.cosine[world], boxes.sine[world]
    cos_yaw, sin_yaw = poses_xyyaw[:, 2].cos()[:, None], poses_xyyaw[:, 2].sin()[:, None]
    delta_x = poses_xyyaw[:, :1] - boxes.centre_x[world]
    delta_y = poses_xyyaw[:, 1:2] - boxes.centre_y[world]
    slab_x = _slab(
        cos_box * delta_x + sin_box * delta_y,
        cos_box * cos_yaw + sin_box * sin_yaw,
        cos_box * sin_yaw - sin_box * cos_yaw,
        boxes.half_x[world],
        slopes_right,
    )
    slab_y = _slab(
        cos_box * delta_y - sin_box * delta_x,
        cos_box * sin_yaw - sin_box * cos_yaw,
        -sin_box * sin_yaw - cos_box * cos_yaw,
        boxes.half_y[world],
        slopes_right,
    )
    enter = torch.maximum(slab_x[0], slab_y[0]).clamp_(min=0.0)
    leave = torch.minimum(slab_x[1], slab_y[1])
    crossed = enter < leave
    wall = torch.where(crossed & boxes.full[world][:, None], enter, torch.inf).amin(-1, keepdim=True)
    column, box = (crossed & (enter <= wall)).view(batch * width, -1).nonzero(as_tuple=True)
    pair = column * enter.shape[-1] + box
    total = torch.bincount(column, minlength=batch * width)
    order = torch.argsort(total, descending=True, stable=True)
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order), device=order.device)
    histogram = torch.bincount(total).flip(0).cumsum(0).flip(0)[1:]  # how many columns have more than k boxes
    rank = torch.arange(len(column), device=column.device) - (total.cumsum(0) - total)[column]
    target = (histogram.cumsum(0) - histogram)[rank] + position[column]
    arranged = torch.empty_like(pair)
    arranged[target] = pair

    def dense(values: torch.Tensor) -> torch.Tensor:
        return values.reshape(-1)[arranged]

    world_box = world[arranged // (width * enter.shape[-1])] * enter.shape[-1] + arranged % enter.shape[-1]
    through_x = dense(slab_x[0]) >= dense(slab_y[0])
    ahead = torch.where(through_x, dense(slab_x[2]), dense(slab_y[2])) > 0
    side = torch.where(through_x, 0, 2) + ahead.long()  # a ray that runs along +x enters through the -x face
    base = (arranged % enter.shape[-1]) * 6
    pairs = _Pairs(
        enter=dense(enter),
        leave=dense(leave),
        low=boxes.z_low.reshape(-1)[world_box] - camera_height_m,
        high=boxes.z_high.reshape(-1)[world_box] - camera_height_m,
        side=(base + side).to(torch.int32),
        top=(base + 4).to(torch.int32),
        counts=histogram.tolist(),
        order=order,
    )
    direction = torch.stack([cos_yaw + slopes_right * sin_yaw, sin_yaw - slopes_right * cos_yaw], -1)
    return pairs, direction.reshape(-1, 2)


def _slab(
    origin: torch.Tensor, forward: torch.Tensor, right: torch.Tensor, half: torch.Tensor, slopes_right: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return where rays enter and leave |coordinate| <= half, and their speed along the axis, each (B, W, N).

    ``origin``, ``forward``, ``right`` and ``half`` are (B, N), along one axis of the boxes.
    """
    # a ray exactly parallel to the slab would give inf - inf; this nudge is far below a pixel
    speed = torch.addcmul((forward + NEAR_EPSILON)[:, None], right[:, None], slopes_right[None, :, None])
    inverse = torch.reciprocal(speed)
    middle = inverse * -origin[:, None]
    reach = inverse.abs() * half[:, None]
    return middle - reach, middle + reach, speed
