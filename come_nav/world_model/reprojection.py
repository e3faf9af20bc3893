"""Context frames moved to where a candidate would stand: estimated depth, points, a z-buffer, a latent view.

A small model has seen too little to learn perspective from examples; this states it. The base expert still looks at
nothing but its context frames: their depth is estimated, not measured. Off for Navigation World Models checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

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
from come_nav.core.types import Context, PointSet

INVERSE_DEPTH_STEPS = 64.0  # of a byte, per 1/m
HALF_TRUSTED_JUMP = 0.5  # 1/m
VIEW_FACTS = 2  # channels of a view beside the latents: share of seen pixels, mean inverse depth
FACTS_APART = 4  # of a view by itself: share of seen pixels, mean inverse depth, age, reliability
ESTIMATED_TRUST = 0.5  # of points whose depth was estimated; 1 where it was measured
AGE_SCALE = 4.0  # log(1 + age in s) over this is what networks are told: 1 is a minute
AGE_STEPS, TRUST_STEPS = 32.0, 255.0  # of a byte, per unit of log(1 + age) and of trust


@dataclass(frozen=True)
class ReprojectionSettings:
    """How context frames become points.

    Attributes:
        older_points: points kept of the frames before the newest, those first that the newest frame does not show.
        gap_passes: times that cracks between points are closed from their neighbours.
        long_points: points kept of the frames before the context, for the short-term expert.
        render_blend: how far :func:`come_nav.world_model.views.blended_images` draws images to what the memory shows,
            where it knows a smooth surface (0 to 1). No prediction, plan or decoded image is touched by it.
    """

    older_points: int = 4096
    gap_passes: int = 2
    long_points: int = 8192
    render_blend: float = 0.85

    def __post_init__(self) -> None:
        check_range("reprojection.older_points", self.older_points, 0)
        check_range("reprojection.gap_passes", self.gap_passes, 0)
        check_range("reprojection.long_points", self.long_points, 1)
        check_range("reprojection.render_blend", self.render_blend, 0.0, 1.0)


@dataclass(frozen=True)
class PixelFacts:
    """What networks with ``view_groups`` are told of the pixels that a view is rendered from.

    Attributes:
        age_s: (B or 1, T) age of each frame.
        measured: (B, T, H, W) where its depth was measured; None = nowhere.
    """

    age_s: Tensor
    measured: Tensor | None = None

    def layers(self, depth_m: Tensor) -> Tensor:
        """Return age and trust (B, T, 2, H, W) of pixels with depth (B, T, H, W)."""
        age = self.age_s.to(depth_m)[:, :, None, None].expand_as(depth_m)
        trust = torch.full_like(depth_m, ESTIMATED_TRUST)
        if self.measured is not None:
            trust = torch.where(self.measured > 0, torch.ones_like(trust), trust)
        return torch.stack([age, trust], 2)


@dataclass(frozen=True)
class RenderedView:
    """What one source shows from S targets.

    Attributes:
        image: (S, 3, H, W) in [-1, 1], arbitrary where nothing is known.
        known: (S, H, W) bool.
        inverse_depth: (S, H, W) 1/m, zero where unknown.
        facts: (S, 2, H, W) age in s and trust in the depth that it was rendered with; None where not kept.
    """

    image: Tensor
    known: Tensor
    inverse_depth: Tensor
    facts: Tensor | None = None

    @property
    def filled(self) -> Tensor:
        """Image (S, 3, H, W) with its holes filled smoothly."""
        return fill_unseen(self.image, self.known)

    @property
    def reliability(self) -> Tensor:
        """How reliable the image is at each pixel, (S, 1, H, W) in [0, 1].

        Zero amid the unknown. Less where inverse depth jumps within 3 x 3 pixels: outlines of voxels are ragged, and a
        pose that is a little off shows there first. A jump of :data:`HALF_TRUSTED_JUMP` halves it.
        """
        known = self.known[:, None].to(self.inverse_depth)
        near = max_pool2d(torch.where(self.known, self.inverse_depth, 0.0)[:, None], 3, 1, 1)
        far = -max_pool2d(torch.where(self.known, -self.inverse_depth, -torch.inf)[:, None], 3, 1, 1)
        jump = (near - far).clamp_min(0.0)  # where nothing near is known, far is infinite
        reliable: Tensor = _softened(known) / (1.0 + jump / HALF_TRUSTED_JUMP)
        return reliable

    def over(self, back: RenderedView) -> RenderedView:
        """Return this layer with ``back`` where it knows nothing; facts of either are not kept."""
        return RenderedView(
            torch.where(self.known[:, None], self.image, back.image),
            self.known | back.known,
            torch.where(self.known, self.inverse_depth, back.inverse_depth),
        )

    def only(self, where: Tensor) -> RenderedView:
        """Return the layer that knows nothing but ``where``, bool that broadcasts to (S, H, W)."""
        known = self.known & where
        return RenderedView(self.image, known, self.inverse_depth * known, self.facts)

    def packed(self) -> Tensor:
        """Return the layer as bytes (S, 5 or 7, H, W): colours, known or not, inverse depth up to 4 per metre, facts.

        Age is kept to 3 % up to 48 minutes.
        """
        colours = self.image.clamp(-1.0, 1.0).add(1.0).mul(127.5).round()
        inverse_depth = self.inverse_depth.mul(INVERSE_DEPTH_STEPS).round().clamp(0, 255)
        known = self.known[:, None].to(colours)
        layers = [colours * known, known, inverse_depth[:, None] * known]
        if self.facts is not None:
            age, trust = self.facts.clamp_min(0.0).unbind(1)
            bytes_of = torch.stack([torch.log1p(age) * AGE_STEPS, trust * TRUST_STEPS], 1)
            layers.append(bytes_of.round().clamp(0, 255) * known)
        return torch.cat(layers, dim=1).to(torch.uint8)

    @classmethod
    def unpacked(cls, views: Tensor) -> RenderedView:
        """Return the layer of bytes (S, 5 or 7, H, W)."""
        numbers, facts = views.float(), None
        if views.shape[1] > 5:
            facts = torch.stack([torch.expm1(numbers[:, 5] / AGE_STEPS), numbers[:, 6] / TRUST_STEPS], 1)
        return cls(numbers[:, :3] / 127.5 - 1.0, views[:, 3] > 0, numbers[:, 4] / INVERSE_DEPTH_STEPS, facts)

    def encoded(self, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the view (S, C + 2, h, w) that a network's extra channels take.

        The first C channels are the latents of the image with its holes filled smoothly, then the share of each cell
        that is known, then the mean inverse depth (1/m).
        """
        latents = encode(self.filled)
        cell = self.image.shape[-1] // latents.shape[-1]
        facts = [avg_pool2d(self.known[:, None].to(latents), cell), avg_pool2d(self.inverse_depth[:, None], cell)]
        return torch.cat([latents, *facts], dim=1)

    def encoded_apart(self, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the view by itself (S, C + 4, h, w), for networks with ``view_groups``.

        To the channels of :meth:`encoded` come the mean age of what is known in each cell (log(1 + s) / 4) and its
        reliability: of the surface (:attr:`reliability`), times the trust in the depth that it was rendered with.
        """
        both = self.encoded(encode)
        cell = self.image.shape[-1] // both.shape[-1]
        known = self.known[:, None].to(both)
        age, trust = (known * 0.0, known) if self.facts is None else self.facts.to(both).split(1, dim=1)
        share = avg_pool2d(known, cell).clamp_min(1e-6)
        ages = avg_pool2d(torch.log1p(age.clamp_min(0.0)) * known, cell) / share / AGE_SCALE
        return torch.cat([both, ages, avg_pool2d(self.reliability * trust * known, cell)], dim=1)


def _softened(mask: Tensor) -> Tensor:
    """Return a mask (S, 1, H, W) with soft borders: two means over 3 x 3 pixels."""
    for _ in range(2):
        mask = avg_pool2d(mask, 3, 1, 1, count_include_pad=False)
    return mask


def context_points(
    images: Tensor,
    depth_m: Tensor,
    poses_xyyaw: Tensor,
    camera: Tensor,
    T_base_camera: Tensor,
    settings: ReprojectionSettings,
    facts: PixelFacts | None = None,
) -> PointSet:
    """Return the points of context frames from which views are rendered, the newest frame's points first.

    Args:
        images: (B, T, 3, H, W) context frames in [-1, 1], oldest first.
        depth_m: (B, T, H, W) their z-depth.
        poses_xyyaw: (B, T, 3) in the newest frame's base.
        camera: (B or 1, 4) fractions, see :mod:`come_nav.core.geometry.point_rendering`.
        T_base_camera: (B or 1, 4, 4), or (B or 1, T, 4, 4) where each frame has its own (Frame.over_footprint).
        settings: how many points are kept.
        facts: of the pixels, for networks that are told.
    """
    sizes = check_shape("context images", images, "B T 3 H W")
    batch = sizes["B"]
    camera = camera.expand(batch, -1)
    extrinsics = extrinsics_of_each(T_base_camera, sizes["T"]).expand(batch, -1, -1, -1)
    points, colours = _lifted(images, depth_m, poses_xyyaw, camera, extrinsics, facts)
    newest = _point_set(points[:, -1], colours[:, -1])
    if points.shape[1] == 1 or not settings.older_points:
        return newest
    older = _not_shown_by_newest(points[:, :-1], colours[:, :-1], camera, extrinsics[:, -1], settings)
    both = None if newest.facts is None or older.facts is None else torch.cat([newest.facts, older.facts], 1)
    return PointSet(torch.cat([newest.xyz, older.xyz], 1), torch.cat([newest.rgb, older.rgb], 1), both)


def _point_set(points: Tensor, colours: Tensor) -> PointSet:
    """Return points (B, N, 3) with colours and, behind those, facts (B, N, 3 or 5)."""
    facts = colours[..., 3:] if colours.shape[-1] > 3 else None
    return PointSet(points, colours[..., :3], facts)


def extrinsics_of_each(T_base_camera: Tensor, frames: int) -> Tensor:
    """Return extrinsics (B, T, 4, 4) of one that all frames share, (B, 4, 4), or of what is one for each already."""
    return T_base_camera if T_base_camera.ndim == 4 else T_base_camera[:, None].expand(-1, frames, -1, -1)


def _lifted(
    images: Tensor,
    depth_m: Tensor,
    poses_xyyaw: Tensor,
    camera: Tensor,
    extrinsics: Tensor,
    facts: PixelFacts | None = None,
) -> tuple[Tensor, Tensor]:
    """Return points (B, T, H*W, 3) of all frames in the reference base, and their colours with facts behind them."""
    points, colours = [], []
    if facts is not None:
        images = torch.cat([images, facts.layers(depth_m)], dim=2)
    for index in range(images.shape[1]):
        lifted = lift_depth(depth_m[:, index], camera, extrinsics[:, index])
        nowhere = lifted[..., :1] <= 0.5 * NOWHERE
        moved = transform_points(poses_xyyaw[:, index], lifted)
        points.append(torch.where(nowhere, lifted, moved))
        colours.append(images[:, index].flatten(2).transpose(1, 2))
    return torch.stack(points, 1), torch.stack(colours, 1)


def context_view(
    context: Context, actions_xyyaw: Tensor, image_size: int, settings: ReprojectionSettings
) -> RenderedView:
    """Return what the context's points show from target poses (S, 3); raise ShapeError for a context without any."""
    points, camera, extrinsics = context.points, context.camera, context.T_base_camera
    if points is None or camera is None or extrinsics is None:
        raise ShapeError("the context lacks points: make it with context_from_images, which this model needs")
    return points_view(points, camera, extrinsics, actions_xyyaw, image_size, settings)


def points_view(
    points: PointSet,
    camera: Tensor,
    T_base_camera: Tensor,
    actions_xyyaw: Tensor,
    image_size: int,
    settings: ReprojectionSettings,
) -> RenderedView:
    """Return what points (S or 1 rows) show from target poses (S, 3) to a camera that is mounted alike."""
    size = (image_size, image_size)
    features = points.rgb if points.facts is None else torch.cat([points.rgb, points.facts], -1)
    image, depth, visible = render_points(points.xyz, features, actions_xyyaw, camera, T_base_camera, size)
    inverse_depth = torch.nan_to_num(1.0 / depth)
    for _ in range(settings.gap_passes):
        image, visible = close_gaps(image, visible)
    return RenderedView(image[:, :3], visible, inverse_depth, None if points.facts is None else image[:, 3:])


def with_older_points(
    context: Context,
    images: Tensor,
    depth_m: Tensor,
    poses_xyyaw: Tensor,
    T_base_camera: Tensor | None,
    settings: ReprojectionSettings,
    facts: PixelFacts | None = None,
) -> Context:
    """Return the context with the points of frames before it (arguments as of :func:`context_points`).

    Extrinsics are the newest frame's where not given. Points that the newest frame could show are left out; of the
    others the newest are kept.
    """
    camera, newest = context.camera, context.T_base_camera
    if camera is None or newest is None:
        raise ShapeError("the context lacks points, so it takes no older ones: make it with context_from_images")
    extrinsics = extrinsics_of_each(newest if T_base_camera is None else T_base_camera, images.shape[1])
    points = points_before(images, depth_m, poses_xyyaw, camera, newest, extrinsics, settings, facts)
    return replace(context, older_points=points)


def points_before(
    images: Tensor,
    depth_m: Tensor,
    poses_xyyaw: Tensor,
    camera: Tensor,
    newest_T_base_camera: Tensor,
    T_base_camera: Tensor,
    settings: ReprojectionSettings,
    facts: PixelFacts | None = None,
) -> PointSet:
    """Return at most ``long_points`` points of frames before the context that its newest frame could not show.

    Arguments as of :func:`context_points`; ``newest_T_base_camera`` (B or 1, 4, 4) is the newest frame's.
    """
    points, colours = _lifted(images, depth_m, poses_xyyaw, camera, T_base_camera, facts)
    bounded = replace(settings, older_points=settings.long_points)
    return _not_shown_by_newest(points, colours, camera, newest_T_base_camera, bounded)


def slid_points(points: PointSet, action_xyyaw: Tensor, elapsed_s: float = 0.0) -> PointSet:
    """Return points (S or 1 rows) seen from a new base, ``elapsed_s`` later, at ``action_xyyaw`` (S, 3) in the old."""
    count = len(action_xyyaw)
    cosine, sine = action_xyyaw[:, 2:].cos(), action_xyyaw[:, 2:].sin()
    x, y, z = points.xyz.unbind(-1)
    x, y = x - action_xyyaw[:, 0:1], y - action_xyyaw[:, 1:2]
    moved = torch.stack([cosine * x + sine * y, cosine * y - sine * x, z.expand(count, -1)], dim=-1)
    facts = None
    if points.facts is not None:  # age and trust
        older = torch.tensor([elapsed_s, *[0.0] * (points.facts.shape[-1] - 1)]).to(points.facts)
        facts = (points.facts + older).expand(count, -1, -1)
    return PointSet(moved, points.rgb.expand(count, -1, -1), facts)


def _not_shown_by_newest(
    points: Tensor, colours: Tensor, camera: Tensor, extrinsics: Tensor, settings: ReprojectionSettings
) -> PointSet:
    """Keep the points (B, T, N, 3) of older frames that lie outside the newest frame's view, the newest of them first.

    What the newest frame shows it shows best, and its own estimate of depth must not fight older ones.
    """
    batch, frames, pixels = points.shape[:3]
    flat = points.flatten(1, 2)
    u, v, depth = project_points(flat, flat.new_zeros(batch, 3), camera, extrinsics)
    shown = (u >= 0) & (u < 1) & (v >= 0) & (v < 1) & (depth > 0)
    age = torch.arange(frames, 0, -1, device=flat.device).repeat_interleave(pixels)
    ranks = (shown * (frames + 1) + age) * (frames * pixels) + torch.arange(frames * pixels, device=flat.device)
    order = ranks.topk(min(settings.older_points, frames * pixels), largest=False).indices  # no two are equal
    kept = torch.gather(flat, 1, order[..., None].expand(-1, -1, 3))
    kept = torch.where(torch.gather(shown, 1, order)[..., None], kept.new_tensor(NOWHERE), kept)
    chosen = order[..., None].expand(-1, -1, colours.shape[-1])
    return _point_set(kept, torch.gather(colours.flatten(1, 2), 1, chosen))
