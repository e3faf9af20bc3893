"""Contexts: made of images or camera frames, repeated for particles, and slid along a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.checks import check_shape
from come_nav.core.geometry import se2
from come_nav.core.geometry.point_rendering import level_camera
from come_nav.core.types import Context, Frame, OlderFrames
from come_nav.world_model.codec import encode_images, estimate_depth_m
from come_nav.world_model.depth_of_frames import completed_depth, measured_depth, scale_of
from come_nav.world_model.images import camera_of_frame, extrinsics_of, images_from_rgb
from come_nav.world_model.parts import ModelParts
from come_nav.world_model.reprojection import (
    PixelFacts,
    context_points,
    extrinsics_of_each,
    slid_points,
    with_older_points,
)

# images (N, 3, H, W), poses (N, 3), extrinsics (N, 4, 4) and measured depth (N, H, W; 0 = unknown) if known
OlderImages = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


def model_images(parts: ModelParts, frames: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Return (T, 3, S, S) in [-1, 1] of uint8 RGB images (H, W, 3) of any size: centre crop, resize, scale."""
    return images_from_rgb(frames, parts.image_size, parts.images.aspect, parts.images.crop).to(parts.device)


def context_from_images(  # noqa: PLR0913  what is known of the camera and the past, each optional
    parts: ModelParts,
    images: Tensor,
    poses_xyyaw: Tensor | NDArray[Any],
    frame_offsets: Tensor | Sequence[float] | None = None,
    generator: torch.Generator | None = None,
    *,
    camera: Tensor | None = None,
    T_base_camera: Tensor | None = None,
    latents: Tensor | None = None,
    depth_m: Tensor | None = None,
    older: OlderImages | None = None,
    older_offsets: Sequence[float] | None = None,
    absolute_pose_xyyaw: Tensor | NDArray[Any] | None = None,
) -> Context:
    """Return the context (batch 1) of images (T, 3, H, W), oldest first, seen from poses (T, 3) in one frame.

    Args:
        parts: of the model; where it looks at views, the context holds points.
        images: in [-1, 1], of the model's size; T must be ``context_frames``.
        poses_xyyaw: of base_link at each image, in any common frame, e.g. odom.
        frame_offsets: (T,) times before the newest in protocol frames; one frame apart where not given.
        generator: sample the latents instead of taking the mode.
        camera: (1, 4) of the images (fractions, see core.geometry.point_rendering); the model's own by default.
        T_base_camera: (1, 4, 4), or (1, T, 4, 4) where frames have their own, of which the newest is the targets';
            level over base_link's origin by default.
        latents: (T, C, h, w) of the images where they are encoded already.
        depth_m: (T, H, W) of the images as a camera measured it, 0 = unknown; estimated where unknown or not given.
        older: frames before, oldest first, for the short-term expert.
        older_offsets: (N,) their times before the newest in protocol frames, where they do not follow one another one
            frame apart.
        absolute_pose_xyyaw: (3,) of the newest frame in the odom frame, where memories of the episode are in use.

    Raises:
        ShapeError: for another number of images, or shapes that do not agree.
    """
    poses = torch.as_tensor(poses_xyyaw, dtype=torch.float64)
    count = parts.context_frames
    check_shape(f"context images of a model with {count} context frames", images, f"{count} 3 H W")
    check_shape("context poses", poses, f"{count} 3")
    offsets = torch.arange(1 - count, 1) if frame_offsets is None else torch.as_tensor(frame_offsets)
    check_shape("context frame_offsets", offsets, f"{count}")
    latents = encode_images(parts, images, generator) if latents is None else latents.to(parts.device)
    relative = se2.relative(poses[-1:], poses).float().to(latents.device)[None]
    absolute = None if absolute_pose_xyyaw is None else torch.as_tensor(absolute_pose_xyyaw)
    context = Context(
        latents[None],
        relative,
        offsets.float().to(latents.device)[None],
        None if absolute is None else absolute.to(latents.device, torch.float64)[None],
    )
    if parts.depth is None:
        return context
    camera = (parts.images.camera() if camera is None else camera).to(parts.device, torch.float32)
    estimated_m = estimate_depth_m(parts, images, camera)
    depth_m = None if depth_m is None else depth_m.to(estimated_m)
    facts = _pixel_facts(parts, context.frame_offsets, depth_m)
    known_m = completed_depth(depth_m, estimated_m)
    context = _with_points(parts, context, images, camera, T_base_camera, known_m, facts)
    if older is None or not len(older[0]):
        return context
    past = se2.relative(poses[-1:], torch.as_tensor(older[1], dtype=torch.float64)).float().to(parts.device)[None]
    past_extrinsics = None if older[2] is None else older[2].to(parts.device, torch.float32)[None]
    apart = context.frame_offsets[:, :1] - torch.arange(len(older[0]), 0, -1).to(past)
    offsets = apart if older_offsets is None else torch.tensor(older_offsets).to(past)[None]
    # older ones than all that the base learned with are told to be as old as the oldest of those
    oldest = float(1 - count - parts.base.model.settings.older_frames)
    told = apart if older_offsets is None else offsets.clamp(min=oldest)
    context = _with_older_frames(parts, context, older[0], past, told)
    past_m = estimate_depth_m(parts, older[0], camera)
    past_measured_m = None if older[3] is None else older[3].to(past_m)
    past_m = completed_depth(past_measured_m, past_m, scale_of(depth_m, estimated_m))
    facts = _pixel_facts(parts, offsets, past_measured_m)
    past_images = older[0].to(parts.device)[None]
    return with_older_points(context, past_images, past_m[None], past, past_extrinsics, parts.reprojection, facts)


def context_from_frames(  # noqa: PLR0913  what is known of the camera and the past, each optional
    parts: ModelParts,
    frames: Sequence[Frame],
    poses_xyyaw: Tensor | NDArray[Any],
    frame_offsets: Tensor | Sequence[float] | None = None,
    generator: torch.Generator | None = None,
    *,
    latents: Tensor | None = None,
    older: Sequence[tuple[Frame, NDArray[np.float64]]] = (),
    older_offsets: Sequence[float] | None = None,
    absolute_pose_xyyaw: Tensor | NDArray[Any] | None = None,
) -> Context:
    """Return the context of camera frames, with the newest one's intrinsics and each one's extrinsics.

    ``older`` are frames before with their poses (3,), oldest first; see :func:`context_from_images` for the rest.
    """
    extrinsics = extrinsics_of(frames)
    past = None
    if older and parts.depth is not None:
        before = [frame for frame, _ in older]
        past_images = model_images(parts, [frame.rgb for frame in before])
        past_poses = torch.from_numpy(np.stack([pose for _, pose in older]))
        past = past_images, past_poses, extrinsics_of(before), measured_in(parts, before)
    return context_from_images(
        parts,
        model_images(parts, [frame.rgb for frame in frames]),
        poses_xyyaw,
        frame_offsets,
        generator,
        camera=camera_of_frame(frames[-1].intrinsics, parts.images.aspect),
        T_base_camera=None if extrinsics is None else extrinsics[None],
        latents=latents,
        depth_m=measured_in(parts, frames),
        older=past,
        older_offsets=older_offsets,
        absolute_pose_xyyaw=absolute_pose_xyyaw,
    )


def measured_in(parts: ModelParts, frames: Sequence[Frame]) -> Tensor | None:
    """Return the depth (T, S, S) that the camera measured of frames, 0 = unknown; None where it is not to be used."""
    if parts.depth is None or not parts.inference.measured_depth:
        return None
    if all(frame.depth_m is None for frame in frames):
        return None
    return measured_depth(frames, parts.image_size, parts.images.aspect)


def repeat_for_particles(
    context: Context, actions: Tensor, times: Tensor, count: int
) -> tuple[Context, Tensor, Tensor]:
    """Repeat what each candidate is asked for its ``count`` particles, which lie side by side."""
    if count == 1:
        return context, actions, times
    repeated = context if len(context) == 1 else context.repeated(count)
    return repeated, actions.repeat_interleave(count, 0), times.repeat_interleave(count, 0)


def slide(
    context: Context, latents: Tensor, action_xyyaw: Tensor, elapsed_frames: int, rate_hz: float = 1.0
) -> Context:
    """Drop the oldest frame, append imagined ones (S, C, h, w) at ``action_xyyaw`` (S, 3) and re-base on them."""
    elapsed_s = elapsed_frames / rate_hz
    context = context if len(context) == len(latents) else context.expand(len(latents))
    poses = torch.cat([context.poses_xyyaw[:, 1:], action_xyyaw[:, None]], dim=1)
    relative: Tensor = se2.relative(action_xyyaw[:, None], poses)
    newest = torch.zeros_like(context.frame_offsets[:, :1])
    absolute, points, older = context.absolute_pose_xyyaw, context.points, context.older_points
    return replace(
        context,
        latents=torch.cat([context.latents[:, 1:], latents[:, None]], dim=1),
        poses_xyyaw=relative,
        frame_offsets=torch.cat([context.frame_offsets[:, 1:] - elapsed_frames, newest], dim=1),
        absolute_pose_xyyaw=None if absolute is None else se2.compose(absolute, action_xyyaw),
        points=None if points is None else slid_points(points, action_xyyaw, elapsed_s),
        older_points=None if older is None else slid_points(older, action_xyyaw, elapsed_s),
        older=None if context.older is None else _slid_older(context, context.older, action_xyyaw, elapsed_frames),
    )


def _slid_older(context: Context, older: OlderFrames, action_xyyaw: Tensor, elapsed_frames: int) -> OlderFrames:
    """Return the frames before the context, re-based; the oldest makes room for the one that leaves the context."""
    rows = len(action_xyyaw)
    latents = torch.cat([older.latents[:, 1:].expand(rows, -1, -1, -1, -1), context.latents[:, :1]], 1)
    poses = torch.cat([older.poses_xyyaw[:, 1:].expand(rows, -1, -1), context.poses_xyyaw[:, :1]], 1)
    offsets = torch.cat([older.frame_offsets[:, 1:].expand(rows, -1), context.frame_offsets[:, :1]], 1)
    known = torch.cat([older.known[:, 1:].expand(rows, -1), torch.ones_like(older.known[:1, :1]).expand(rows, 1)], 1)
    return OlderFrames(latents, se2.relative(action_xyyaw[:, None], poses), offsets - elapsed_frames, known)


def _with_points(
    parts: ModelParts,
    context: Context,
    images: Tensor,
    camera: Tensor,
    T_base_camera: Tensor | None,
    depth_m: Tensor,
    facts: PixelFacts | None,
) -> Context:
    """Return the context with the points of its images, and the camera that they are looked at with."""
    extrinsics = level_camera(parts.images.camera_height_m) if T_base_camera is None else T_base_camera
    extrinsics = extrinsics.to(parts.device, torch.float32)
    seen, reprojection = images.to(parts.device)[None], parts.reprojection
    points = context_points(seen, depth_m[None], context.poses_xyyaw, camera, extrinsics, reprojection, facts)
    newest = extrinsics_of_each(extrinsics, len(images))[:, -1]
    return replace(context, camera=camera, T_base_camera=newest, points=points)


def _pixel_facts(parts: ModelParts, frame_offsets: Tensor, measured_m: Tensor | None) -> PixelFacts | None:
    """Return what a base with ``view_groups`` is told of pixels of frames at ``frame_offsets`` (1, T)."""
    if not parts.base.model.settings.view_groups:
        return None
    measured = None if measured_m is None else (measured_m > 0).to(frame_offsets.device)[None]
    return PixelFacts(-frame_offsets / parts.rate_hz, measured)


def _with_older_frames(
    parts: ModelParts, context: Context, images: Tensor, poses_xyyaw: Tensor, frame_offsets: Tensor
) -> Context:
    """Return the context with the frames before it, at ``frame_offsets`` (1, N), for a base that looks at them."""
    most = parts.base.model.settings.older_frames
    if not most:
        return context
    latents = encode_images(parts, images[-most:])
    count = len(latents)
    offsets = frame_offsets[:, -count:].to(latents.device)
    known = torch.ones(1, count, dtype=torch.bool, device=latents.device)
    return replace(context, older=OlderFrames(latents[None], poses_xyyaw[:, -count:], offsets, known))
