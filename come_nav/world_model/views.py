"""What the context, a longer past and the spatial memory show from each target."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.geometry import se2
from come_nav.core.geometry.point_rendering import fill_unseen
from come_nav.core.protocols import AgedSpatialSource, LatentSpatialSource, SpatialSource
from come_nav.core.types import Context, ContextViews, ViewSource
from come_nav.experts.optional_inputs import camera_values
from come_nav.experts.passes import looks_at
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings
from come_nav.world_model.codec import decode_latents
from come_nav.world_model.parts import ModelParts
from come_nav.world_model.reprojection import VIEW_FACTS, RenderedView, context_view, points_view


def seen_from(parts: ModelParts, context: Context, actions_xyyaw: Tensor, wanted: Collection[ViewSource]) -> Context:
    """Return the context with the ``wanted`` views from targets (S, 3), once for all sampling steps.

    A model whose networks look at no views gets the context as it is. A likelihood gets its evidence.
    """
    seen = _seen_by_networks(parts, context, actions_xyyaw, wanted)
    if parts.likelihood is None:
        return seen
    channels = parts.autoencoder.settings.latent_channels
    view = seen.views.memory if parts.base.model.settings.view_groups else None  # there it is by itself
    view = seen.views.latent_memory if view is None else view
    if view is None:
        view = remembered_view(parts, context, actions_xyyaw)
    return replace(seen, views=replace(seen.views, evidence=view[:, : channels + 1]))


def _seen_by_networks(
    parts: ModelParts, context: Context, actions_xyyaw: Tensor, wanted: Collection[ViewSource]
) -> Context:
    if parts.depth is None:
        return context
    if parts.base.model.settings.view_groups:
        return context.with_views(_views_apart(parts, context, actions_xyyaw, wanted))
    latent = ViewSource.MEMORY in wanted and isinstance(parts.spatial, LatentSpatialSource)
    pixels = {*wanted, ViewSource.LONGER} - {ViewSource.MEMORY} if latent else wanted
    rendered = rendered_views(parts, context, actions_xyyaw, pixels)
    found = {own: rendered[own].encoded(parts.autoencoder.encode) for own in ViewSource if own in pixels}
    branch = None
    if latent:
        found[ViewSource.MEMORY], behind = found[ViewSource.LONGER], remembered_view(parts, context, actions_xyyaw)
        if parts.memory_base.reads_latents:
            branch = _branch(parts, behind)
        else:
            found[ViewSource.MEMORY] = _over(found[ViewSource.LONGER], behind, parts.autoencoder.settings)
    own, longer, memory = (found.get(source) if source in wanted else None for source in ViewSource)
    return context.with_views(ContextViews(own, longer, memory, latent_memory=branch))


def remembered_view(parts: ModelParts, context: Context, actions_xyyaw: Tensor) -> Tensor:
    """Return what the spatial memory alone shows from targets (S, 3), as extra channels take it: (S, C + 2, h, w).

    A memory of latents is read out into the latent grid; one of colours is rendered and encoded.

    Raises:
        ShapeError: as :func:`memory_view`.
    """
    if not isinstance(parts.spatial, LatentSpatialSource):
        return memory_view(parts, context, actions_xyyaw).encoded(parts.autoencoder.encode)
    size, poses = parts.autoencoder.settings.latent_size, _targets_in_odom(parts, context, actions_xyyaw)
    return read_out(parts.spatial, poses, size, context.T_base_camera)


def _over(front: Tensor, back: Tensor, settings: AutoencoderSettings) -> Tensor:
    """Return encoded views (S, C + 2, h, w): ``front``, but ``back`` in cells that it knows and front less than half.

    This is :meth:`RenderedView.over` for views that are known cell by cell.
    """
    share = settings.latent_channels
    behind = (front[:, share] < 0.5) & (back[:, share] > 0.5)
    return torch.where(behind[:, None], back, front)


def _views_apart(
    parts: ModelParts, context: Context, actions_xyyaw: Tensor, wanted: Collection[ViewSource]
) -> ContextViews:
    """Return what each source shows by itself, where it is there, and the camera."""
    camera, extrinsics, older = context.camera, context.T_base_camera, context.older_points
    view = context_view(context, actions_xyyaw, parts.image_size, parts.reprojection)
    if camera is None or extrinsics is None:
        raise ShapeError("the context lacks a camera: make it with context_from_images")
    encode, further = parts.autoencoder.encode, ViewSource.LONGER in wanted or ViewSource.MEMORY in wanted
    longer = memory = branch = None
    if further and older is not None:
        layer = points_view(older, camera, extrinsics, actions_xyyaw, parts.image_size, parts.reprojection)
        longer = layer.encoded_apart(encode)
    if ViewSource.MEMORY in wanted:
        memory = _memory_apart(parts, context, actions_xyyaw)
        if isinstance(parts.spatial, LatentSpatialSource) and parts.memory_base.reads_latents:  # which waits for CUDA
            memory, branch = None, _branch(parts, memory)
    values = camera_values(camera, extrinsics).to(view.image)
    return ContextViews(view.encoded_apart(encode), longer, memory, latent_memory=branch, camera=values)


def _branch(parts: ModelParts, view: Tensor) -> Tensor:
    """Return what a memory of latents shows (S, E, h, w) as the channels of the network that reads it take it.

    Raises:
        ConfigError: for a network that learned with more facts of each cell, or fewer.
    """
    wanted, latents = (
        parts.memory_base.model.settings.latent_memory_channels,
        parts.autoencoder.settings.latent_channels,
    )
    told = (view.shape[1], latents + VIEW_FACTS)
    if wanted not in told:
        raise ConfigError(
            f"cdit.latent_memory_channels must be {' or '.join(map(str, sorted(set(told))))}, got {wanted}"
        )
    return view[:, :wanted]


def rendered_views(
    parts: ModelParts, context: Context, actions_xyyaw: Tensor, wanted: Collection[ViewSource]
) -> dict[ViewSource, RenderedView]:
    """Return what is seen from targets (S, 3); what the ``wanted`` views lie over may be there, too.

    What was seen just now is sharper than voxels, and no drift of odometry lies between: it lies over the older past,
    and that over the spatial memory.
    """
    size, settings = parts.image_size, parts.reprojection
    view = context_view(context, actions_xyyaw, size, settings)
    views = {ViewSource.CONTEXT: view}
    if ViewSource.LONGER in wanted or ViewSource.MEMORY in wanted:
        older, camera, extrinsics = context.older_points, context.camera, context.T_base_camera
        if older is not None and camera is not None and extrinsics is not None:
            view = view.over(points_view(older, camera, extrinsics, actions_xyyaw, size, settings))
        views[ViewSource.LONGER] = view
    if ViewSource.MEMORY in wanted:
        views[ViewSource.MEMORY] = view.over(memory_view(parts, context, actions_xyyaw))
    return views


def memory_view(parts: ModelParts, context: Context, actions_xyyaw: Tensor) -> RenderedView:
    """Return what the spatial memory alone shows from targets (S, 3).

    Raises:
        ShapeError: without a memory, or for a context that does not tell where it was in the episode.
    """
    poses = _targets_in_odom(parts, context, actions_xyyaw)
    source = cast(SpatialSource, parts.spatial)
    return RenderedView(*source.views(poses, parts.image_size, context.T_base_camera))


def _targets_in_odom(parts: ModelParts, context: Context, actions_xyyaw: Tensor) -> Tensor:
    """Return where targets (S, 3) lie in the frame of the spatial memory; raise ShapeError where that is unknown."""
    start = context.absolute_pose_xyyaw
    if parts.spatial is None or start is None:
        raise ShapeError(
            "what looks at a spatial memory needs one (with_memory) and a context with absolute_pose_xyyaw"
        )
    poses: Tensor = se2.compose(start.expand(len(actions_xyyaw), -1), actions_xyyaw)
    return poses


def _memory_apart(parts: ModelParts, context: Context, actions_xyyaw: Tensor) -> Tensor:
    """Return what the spatial memory alone shows, for a network with ``view_groups``: (S, C + 4, h, w).

    A memory of latents tells no age, and is as reliable as it is known.
    """
    if not isinstance(parts.spatial, LatentSpatialSource):
        return _aged_memory_view(parts, context, actions_xyyaw).encoded_apart(parts.autoencoder.encode)
    return with_facts(remembered_view(parts, context, actions_xyyaw))


def read_out(
    source: LatentSpatialSource, poses_odom_xyyaw: Tensor, latent_size: int, T_base_camera: Tensor | None = None
) -> Tensor:
    """Return what a memory of latents shows from poses (S, 3) in odom: (S, C + 2, h, w), its holes filled smoothly.

    Latents, the share of each cell that is known, and its inverse depth. Training and plans read it alike.
    """
    latents, known, inverse_depth = source.latent_views(poses_odom_xyyaw, latent_size, T_base_camera)
    facts = torch.stack([known.to(latents), inverse_depth.to(latents)], dim=1)
    return torch.cat([fill_unseen(latents, known), facts], dim=1)


def with_facts(view: Tensor) -> Tensor:
    """Return a read-out (S, C + 2, h, w) with age (none) and reliability (as it is known): (S, C + 4, h, w)."""
    known = view[:, -2:-1]
    return torch.cat([view, torch.zeros_like(known), known], dim=1)


def _aged_memory_view(parts: ModelParts, context: Context, actions_xyyaw: Tensor) -> RenderedView:
    """Return what the spatial memory alone shows, with the age of it where the source can tell."""
    view, start = memory_view(parts, context, actions_xyyaw), context.absolute_pose_xyyaw
    if not isinstance(parts.spatial, AgedSpatialSource) or start is None:
        return view
    poses: Tensor = se2.compose(start.expand(len(actions_xyyaw), -1), actions_xyyaw)
    age_s = parts.spatial.ages_s(poses, view.inverse_depth, context.T_base_camera)
    return replace(view, facts=torch.stack([age_s, view.known.to(age_s)], 1))


def weight_on_memory(parts: ModelParts) -> float:
    """Return the weight of the experts that look at the spatial memory."""
    looking = (name for name, expert in parts.experts.items() if looks_at(expert, ViewSource.MEMORY))
    return float(sum(parts.weights.get(name, 0.0) for name in looking))


@torch.inference_mode()
def blended_images(parts: ModelParts, latents: Tensor, context: Context, actions_xyyaw: Tensor) -> Tensor:
    """Return images (S, 3, H, W) of latents predicted at poses (S, 3): decoded, then drawn to the rendered memory.

    This is not what the composed sampler imagined; that is ``decode(latents)``. A table names it "render blend", a row
    of its own. Where the spatial memory has a say in the prediction and knows the view, it gets a second one here: a
    network blurs what it is unsure of, and its autoencoder loses detail; a rendered cloud is sharp, but cracked, and
    ragged at outlines. Images are drawn to it by ``reprojection.render_blend``, as far as it is reliable at each pixel:
    the mean of two guesses has smaller errors than either. (The network's own view has what was seen just now first;
    the cloud's measured depth makes the better image.)
    """
    trust, images = parts.reprojection.render_blend, decode_latents(parts, latents)
    if parts.depth is None or parts.spatial is None or trust == 0.0 or weight_on_memory(parts) <= 0.0:
        return images
    actions = actions_xyyaw.to(parts.device, torch.float32)
    view = memory_view(parts, context.to(parts.device), actions)
    return images + trust * view.reliability * (view.filled - images)
