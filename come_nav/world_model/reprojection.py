"""Context frames moved to where a candidate would stand: estimated depth, points, a z-buffer, a latent view.

A small model has seen too little to learn perspective from examples; this states it. The base expert still looks at
nothing but its context frames: their depth is estimated, not measured. Off for Navigation World Models checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from come_nav.core.checks import check_range, check_shape
from come_nav.core.errors import ShapeError
from come_nav.core.geometry.point_rendering import (
    NOWHERE,
    close_gaps,
    fill_unseen,
    lift_depth,
    project_points,
    render_points,
    transform_points,
)
from come_nav.core.types import Context
from come_nav.experts.passes import VIEW

POINTS = ("points_xyz", "points_rgb", "camera", "T_base_camera")  # Context.extras that views are rendered from
VIEW_FACTS = 2  # channels of a view beside the latents: share of seen pixels, mean inverse depth


@dataclass(frozen=True)
class ReprojectionSettings:
    """How context frames become points.

    Attributes:
        older_points: points kept of the frames before the newest, those first that the newest frame does not show.
        gap_passes: times that cracks between points are closed from their neighbours.
    """

    older_points: int = 4096
    gap_passes: int = 2

    def __post_init__(self) -> None:
        check_range("reprojection.older_points", self.older_points, 0)
        check_range("reprojection.gap_passes", self.gap_passes, 0)


def context_points(
    images: Tensor,
    depth_m: Tensor,
    poses_xyyaw: Tensor,
    camera: Tensor,
    T_base_camera: Tensor,
    settings: ReprojectionSettings,
) -> dict[str, Tensor]:
    """Return the extras of a context from which views are rendered.

    Args:
        images: (B, T, 3, H, W) context frames in [-1, 1], oldest first.
        depth_m: (B, T, H, W) their z-depth.
        poses_xyyaw: (B, T, 3) in the newest frame's base.
        camera: (B or 1, 4) fractions, see :mod:`come_nav.core.geometry.point_rendering`.
        T_base_camera: (B or 1, 4, 4).
        settings: how many points are kept.

    Returns:
        points_xyz, points_rgb (B, N, 3) with the newest frame's points first; camera (B, 4); T_base_camera (B, 4, 4).
    """
    sizes = check_shape("context images", images, "B T 3 H W")
    batch, frames = sizes["B"], sizes["T"]
    camera, mount = camera.expand(batch, -1), T_base_camera.expand(batch, -1, -1)
    points, colours = [], []
    for index in range(frames):
        lifted = lift_depth(depth_m[:, index], camera, mount)
        nowhere = lifted[..., :1] <= 0.5 * NOWHERE
        moved = transform_points(poses_xyyaw[:, index], lifted)
        points.append(torch.where(nowhere, lifted, moved))
        colours.append(images[:, index].flatten(2).transpose(1, 2))
    newest, newest_rgb = points.pop(), colours.pop()
    if points and settings.older_points:
        older, older_rgb = _not_shown_by_newest(
            torch.stack(points, 1), torch.stack(colours, 1), camera, mount, settings
        )
        newest, newest_rgb = torch.cat([newest, older], 1), torch.cat([newest_rgb, older_rgb], 1)
    return dict(zip(POINTS, (newest, newest_rgb, camera, mount), strict=True))


def latent_view(
    extras: dict[str, Tensor],
    actions_xyyaw: Tensor,
    image_size: int,
    encode: Callable[[Tensor], Tensor],
    settings: ReprojectionSettings,
) -> Tensor:
    """Return what the context's points show from target poses: (S, C + 2, h, w).

    The first C channels are the latents of the rendered picture with its holes filled smoothly, then the share of each
    cell that was really seen, then the mean inverse depth (1/m) of what was seen.
    """
    image, seen_share, inverse_depth = rendered_view(extras, actions_xyyaw, image_size, settings)
    latents = encode(image)
    cell = image_size // latents.shape[-1]
    return torch.cat([latents, avg_pool2d(seen_share, cell), avg_pool2d(inverse_depth, cell)], dim=1)


def rendered_view(
    extras: dict[str, Tensor], actions_xyyaw: Tensor, image_size: int, settings: ReprojectionSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Return picture (S, 3, H, W) with holes filled, seen (S, 1, H, W) 0 or 1, and inverse depth (S, 1, H, W) 1/m."""
    missing = [name for name in POINTS if name not in extras]
    if missing:
        raise ShapeError(f"the context lacks {missing}: make it with context_from_images, which this model needs")
    xyz, rgb, camera, mount = (extras[name] for name in POINTS)
    image, depth, visible = render_points(xyz, rgb, actions_xyyaw, camera, mount, (image_size, image_size))
    inverse_depth = torch.nan_to_num(1.0 / depth)
    for _ in range(settings.gap_passes):
        image, visible = close_gaps(image, visible)
    return fill_unseen(image, visible), visible[:, None].to(image), inverse_depth[:, None]


def slide_points(extras: dict[str, Tensor], action_xyyaw: Tensor) -> dict[str, Tensor]:
    """Return the extras with points seen from a new base that stands at ``action_xyyaw`` (S, 3) in the old one."""
    if POINTS[0] not in extras:
        return extras
    count = len(action_xyyaw)
    cosine, sine = action_xyyaw[:, 2:].cos(), action_xyyaw[:, 2:].sin()
    x, y, z = extras[POINTS[0]].unbind(-1)
    x, y = x - action_xyyaw[:, 0:1], y - action_xyyaw[:, 1:2]
    points = torch.stack([cosine * x + sine * y, cosine * y - sine * x, z.expand(count, -1)], dim=-1)
    rest = {name: extras[name].expand(count, *extras[name].shape[1:]) for name in POINTS[1:]}
    return {**extras, POINTS[0]: points, **rest}


def with_view(context: Context, view: Tensor) -> Context:
    """Return the context with ``view`` (S, C + 2, h, w) and without the points it was made of."""
    extras = {name: value for name, value in context.extras.items() if name not in POINTS}
    return Context(context.latents, context.poses_xyyaw, context.frame_offsets, {**extras, VIEW: view})


def _not_shown_by_newest(
    points: Tensor, colours: Tensor, camera: Tensor, mount: Tensor, settings: ReprojectionSettings
) -> tuple[Tensor, Tensor]:
    """Keep the points (B, T, N, 3) of older frames that lie outside the newest frame's view, the newest of them first.

    What the newest frame shows it shows best, and its own estimate of depth must not fight older ones.
    """
    batch, frames, pixels = points.shape[:3]
    flat = points.flatten(1, 2)
    u, v, depth = project_points(flat, flat.new_zeros(batch, 3), camera, mount)
    shown = (u >= 0) & (u < 1) & (v >= 0) & (v < 1) & (depth > 0)
    age = torch.arange(frames, 0, -1, device=flat.device).repeat_interleave(pixels)
    order = (shown * (frames + 1) + age).topk(min(settings.older_points, frames * pixels), largest=False).indices
    kept = torch.gather(flat, 1, order[..., None].expand(-1, -1, 3))
    kept = torch.where(torch.gather(shown, 1, order)[..., None], kept.new_tensor(NOWHERE), kept)
    return kept, torch.gather(colours.flatten(1, 2), 1, order[..., None].expand(-1, -1, 3))
