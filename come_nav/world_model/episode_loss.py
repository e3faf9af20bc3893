"""The loss that an episodic memory trains with: a world model's diffusion loss on windows of the episode."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.geometry.point_rendering import level_camera
from come_nav.core.types import Context, ContextViews
from come_nav.experts.base import BaseExpert
from come_nav.experts.lora import diffusion_loss
from come_nav.experts.optional_inputs import camera_values
from come_nav.world_model.codec import estimate_depth_m
from come_nav.world_model.depth_of_frames import completed_depth
from come_nav.world_model.images import bytes_from_images, images_from_bytes
from come_nav.world_model.parts import ModelParts
from come_nav.world_model.reprojection import PixelFacts, RenderedView, context_points, points_view

# Names of what is kept of a frame for models with reprojected views
IMAGE, DEPTH, EXTRINSICS = "rgb", "depth_m", "T_base_camera"
MEMORY = "memory"  # what the spatial memory showed of the frame's view before the frame was added to it


class Windows(Protocol):
    """Windows of an episode; see :class:`come_nav.memory.episodic.episode.EpisodeBatch`."""

    @property
    def context(self) -> Context: ...  # noqa: D102
    @property
    def target_latents(self) -> Tensor: ...  # noqa: D102
    @property
    def actions_xyyaw(self) -> Tensor: ...  # noqa: D102
    @property
    def rel_frames(self) -> Tensor: ...  # noqa: D102
    @property
    def frames(self) -> dict[str, Tensor]: ...  # noqa: D102
    @property
    def targets(self) -> dict[str, Tensor]: ...  # noqa: D102


class EpisodeLoss:
    """Mean squared error of a network's target on windows, at the noise levels that the model's sampler visits.

    Attributes:
        camera: (1, 4) of the frames, fractions of the image; may be set once it is known.
    """

    def __init__(
        self,
        model: ModelParts,
        *,
        all_levels: bool = False,
        context_dropout: float = 0.0,
        memory_fraction: float = 0.5,
        camera: Tensor | None = None,
        T_base_camera: Tensor | None = None,
    ) -> None:
        """Take the model whose base the network is a copy of.

        Args:
            model: gives the noise levels, and what its base's extra channels take.
            all_levels: train all steps of the schedule, not only those that the sampler visits.
            context_dropout: share of windows that do not see their context.
            memory_fraction: share of windows that see what the spatial memory knew of the target, where it was kept.
            camera: (1, 4) of the frames; the model's own by default.
            T_base_camera: (1, 4, 4); level by default.
        """
        self.model, self.context_dropout, self.memory_fraction = model, context_dropout, memory_fraction
        visited = model.schedule if all_levels else model.sampler.visited(model.schedule)
        self._levels = torch.as_tensor(visited.timestep_map)
        self.camera = model.images.camera() if camera is None else camera
        self._extrinsics = level_camera(model.images.camera_height_m) if T_base_camera is None else T_base_camera

    def frame(
        self,
        image: Tensor,
        remembered: RenderedView | None = None,
        T_base_camera: NDArray[np.float64] | None = None,
        depth_m: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return what the memory must keep of an image besides its latents; often nothing.

        Args:
            image: (3, H, W) in [-1, 1].
            remembered: what a spatial memory that does not hold this frame yet shows of its view, where there is one:
                the adapter then learns what such views lack, and never from the answer itself. For all frames or none.
            T_base_camera: (4, 4) of this frame, see Frame.over_footprint; that of the episode by default.
            depth_m: (H, W) as the camera measured it, 0 = unknown; estimated where unknown or not given.
        """
        if self.model.depth is None:
            return {}
        rgb = bytes_from_images(image).cpu()
        extrinsics = self._extrinsics[0] if T_base_camera is None else torch.from_numpy(T_base_camera)
        estimated_m = estimate_depth_m(self.model, image[None], self.camera)
        if depth_m is not None:
            estimated_m = completed_depth(depth_m[None].to(estimated_m), estimated_m)
        kept = {IMAGE: rgb, DEPTH: estimated_m[0].half().cpu(), EXTRINSICS: extrinsics.float().cpu()}
        return kept if remembered is None else {**kept, MEMORY: remembered.packed()[0].cpu()}

    def __call__(self, network: nn.Module, batch: Windows, generator: torch.Generator) -> Tensor:
        """Return the loss of ``network``, a copy of the model's base expert, on ``batch``."""
        if not isinstance(network, BaseExpert):
            raise ConfigError(f"an episode trains a copy of the base expert, got {type(network).__name__}")
        device = self.model.device
        return diffusion_loss(
            network,
            batch.target_latents.to(device),
            self.context(batch, generator),
            batch.actions_xyyaw.to(device),
            batch.rel_frames.to(device),
            generator,
            levels=self._levels,
            context_dropout=self.context_dropout,
        )

    @torch.no_grad()
    def context(self, batch: Windows, generator: torch.Generator) -> Context:
        """Return the windows' context on the model's device, with the reprojected view where the base takes one."""
        device, own = self.model.device, batch.context
        context = own.to(device)
        if self.model.depth is None:
            return context
        missing = [name for name in (IMAGE, DEPTH, EXTRINSICS) if name not in batch.frames]
        if missing:
            raise ShapeError(f"the episode's frames lack {missing}: pass frame=loss.frame(image) to observe")
        images = images_from_bytes(batch.frames[IMAGE].to(device))
        depth_m = batch.frames[DEPTH].to(device).float()
        camera, extrinsics = self.camera.to(device, torch.float32), batch.frames[EXTRINSICS].to(device)
        size, settings = self.model.image_size, self.model.reprojection
        apart = self.model.base.model.settings.view_groups > 0
        facts = PixelFacts(-context.frame_offsets / self.model.rate_hz) if apart else None
        points = context_points(images, depth_m, context.poses_xyyaw, camera, extrinsics, settings, facts)
        newest, actions = extrinsics[:, -1], batch.actions_xyyaw.to(device)
        view = points_view(points, camera, newest, actions, size, settings)
        memory = seen = None
        if MEMORY in batch.targets:
            memory = RenderedView.unpacked(batch.targets[MEMORY].to(device))
            seen = (torch.rand(len(memory.known), generator=generator) < self.memory_fraction).to(device)
        if apart:
            return context.with_views(self._views_apart(view, memory, seen, camera_values(camera, newest)))
        if memory is not None and seen is not None:
            view = view.over(memory.only(seen[:, None, None]))
        return context.with_views(ContextViews(view.encoded(self.model.autoencoder.encode)))

    def _views_apart(
        self, view: RenderedView, memory: RenderedView | None, seen: Tensor | None, camera: Tensor
    ) -> ContextViews:
        """Return the views of a network with ``view_groups``; the memory's only in windows that have ``seen`` it."""
        encode = self.model.autoencoder.encode
        if memory is None or seen is None:
            return ContextViews(view.encoded_apart(encode), camera=camera)
        shown = torch.stack([torch.ones_like(seen), torch.zeros_like(seen), seen], 1)
        return ContextViews(view.encoded_apart(encode), memory=memory.encoded_apart(encode), shown=shown, camera=camera)
