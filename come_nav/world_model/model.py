"""The diffusion world model: latents of a camera view at another pose and time (WorldModel, ExpertModel protocols)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.errors import ConfigError, suggest
from come_nav.core.experts import BASE, LONG_TERM, SHORT_TERM, SPATIAL, CompositionMode
from come_nav.core.protocols import Expert, SpatialSource
from come_nav.core.types import Context, Frame
from come_nav.experts.memory_views import short_term_expert, spatial_expert
from come_nav.world_model.calibration.likelihood import LikelihoodSettings, SpatialLikelihood
from come_nav.world_model.calibration.prior import LikelihoodPriorSettings
from come_nav.world_model.codec import decode_latents, encode_images, estimate_depth_m
from come_nav.world_model.composition import LevelWeights, check_schedules
from come_nav.world_model.contexts import OlderImages, context_from_frames, context_from_images, model_images
from come_nav.world_model.files.checkpoint import load_model, save_model
from come_nav.world_model.imaginer import ModelImaginer
from come_nav.world_model.parts import ModelParts
from come_nav.world_model.prediction import predict, rollout


class DiffusionWorldModel(ModelParts):
    """Parts that imagine: an autoencoder, a noise schedule, experts that share both, and a sampler.

    What a method does in detail is said where it is done: :mod:`come_nav.world_model.codec` (images and latents),
    :mod:`~come_nav.world_model.contexts`, :mod:`~come_nav.world_model.views`, :mod:`~come_nav.world_model.prediction`,
    :mod:`~come_nav.world_model.files.checkpoint`.
    """

    # -- memories ----------------------------------------------------------------------------------------------------

    @property
    def supported_experts(self) -> frozenset[str]:
        """Experts that this model can have, given their memories; those that look at views need a base that does."""
        blind = frozenset({BASE, LONG_TERM})
        return blind if self.depth is None else blind | {SHORT_TERM, SPATIAL}

    def with_memory(self, spatial: SpatialSource | None = None, long_term: Expert | None = None) -> DiffusionWorldModel:
        """Return a model of the same weights whose experts look at memories too.

        Experts are "base", "short_term" (where the base looks at views), "long_term" and "spatial" (where given), all
        of weight 1 but for the short-term one, which is left out until :meth:`composed` gives it a weight.

        Raises:
            ConfigError: for a spatial memory and a base that looks at no views.
        """
        experts: dict[str, Expert] = {BASE: self.base}
        weights = [1.0]
        if self.depth is not None:
            experts[SHORT_TERM], weights = short_term_expert(self.base), [*weights, 0.0]
        if long_term is not None:
            experts[LONG_TERM], weights = long_term, [*weights, 1.0]
        if spatial is not None:
            experts[SPATIAL], weights = spatial_expert(self.base, self.memory_base), [*weights, 1.0]
        check_schedules(experts, self.schedule.digest)
        model = copy.copy(self)
        model.spatial, model.experts = spatial, experts
        model.composition = replace(self.composition, weights=tuple(weights), levels=())
        return model

    def composed(self, weights: Mapping[str, float], mode: CompositionMode | None = None) -> DiffusionWorldModel:
        """Return the product of some of this model's experts; the base always stays the first of them.

        Args:
            weights: by the expert's name; experts that are not named have weight 0.
            mode: of the composition, this model's by default.

        Raises:
            ConfigError: for an expert that this model does not have.
        """
        for name in weights:
            if name not in self.experts:
                raise ConfigError(f"this model has no expert '{name}'{suggest(name, self.experts)}")
        chosen = [name for name in self.experts if name in weights or self.experts[name] is self.base]
        model = copy.copy(self)
        model.experts = {name: self.experts[name] for name in chosen}
        exponents = tuple(float(weights.get(name, 0.0)) for name in chosen)
        model.composition = replace(self.composition, mode=mode or self.composition.mode, weights=exponents, levels=())
        return model

    # -- images and contexts -----------------------------------------------------------------------------------------

    def images_from_rgb(self, frames: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return (T, 3, S, S) in [-1, 1] of uint8 RGB images (H, W, 3) of any size: centre crop, resize, scale."""
        return model_images(self, frames)

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return scaled latents (B, C, h, w) of images (B, 3, H, W): the mode, or a sample with a generator."""
        return encode_images(self, images, generator)

    def decode(self, latents: Tensor) -> Tensor:
        """Return images (B, 3, H, W) in [-1, 1] of scaled latents (B, C, h, w): what was imagined, and nothing else."""
        return decode_latents(self, latents)

    def estimate_depth_m(self, images: Tensor, camera: Tensor | None = None) -> Tensor:
        """Return the estimated z-depth (B, H, W) in metres of images (B, 3, H, W) of a ``camera`` (1, 4)."""
        return estimate_depth_m(self, images, camera)

    def context_from_images(  # noqa: PLR0913  what is known of the camera and the past, each optional
        self,
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
        """Return the context (batch 1) of images (T, 3, H, W); see :func:`.contexts.context_from_images`."""
        return context_from_images(
            self,
            images,
            poses_xyyaw,
            frame_offsets,
            generator,
            camera=camera,
            T_base_camera=T_base_camera,
            latents=latents,
            depth_m=depth_m,
            older=older,
            older_offsets=older_offsets,
            absolute_pose_xyyaw=absolute_pose_xyyaw,
        )

    def context_from_frames(
        self,
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
        """Return the context (batch 1) of camera frames; see :func:`.contexts.context_from_frames`."""
        return context_from_frames(
            self,
            frames,
            poses_xyyaw,
            frame_offsets,
            generator,
            latents=latents,
            older=older,
            older_offsets=older_offsets,
            absolute_pose_xyyaw=absolute_pose_xyyaw,
        )

    # -- prediction --------------------------------------------------------------------------------------------------

    def predict(
        self,
        context: Context,
        actions_xyyaw: Tensor,
        rel_frames: Tensor,
        generator: torch.Generator,
        *,
        shared_noise: bool = False,
    ) -> Tensor:
        """Return latents (S, C, h, w) at poses (S, 3), ``rel_frames`` (S,) later; see :func:`.prediction.predict`."""
        return predict(self, context, actions_xyyaw, rel_frames, generator, shared_noise=shared_noise)

    def rollout(
        self,
        context: Context,
        poses_xyyaw: Tensor,
        generator: torch.Generator,
        stride: int = 1,
        *,
        shared_noise: bool = False,
    ) -> Tensor:
        """Return latents (S, T // stride, C, h, w) along poses (S, T, 3); see :func:`.prediction.rollout`."""
        return rollout(self, context, poses_xyyaw, generator, stride, shared_noise=shared_noise)

    def imaginer(
        self,
        context: Context,
        rel_frames: float,
        mode: Literal["jump", "rollout"] = "jump",
        *,
        decode: bool = False,
        shared_noise: bool = True,
    ) -> ModelImaginer:
        """Return an Imaginer with ``context`` bound in, for candidates that end ``rel_frames`` after it."""
        return ModelImaginer(self, context, float(rel_frames), mode, decode, shared_noise)

    # -- place and files ---------------------------------------------------------------------------------------------

    def to(self, device: torch.device | str) -> DiffusionWorldModel:
        """Move all weights; return self."""
        for module in (self.autoencoder, self.depth, self.memory_expert, *self.experts.values()):
            if isinstance(module, torch.nn.Module):
                module.to(device)
        return self

    def save(self, folder: Path | str, card: str | None = None) -> None:
        """Write the model folder atomically (see :mod:`come_nav.world_model.files.checkpoint`)."""
        save_model(self, Path(folder), card)

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> DiffusionWorldModel:
        """Read a model folder, ready for inference; raise CheckpointError in one line where it cannot be read."""
        return load_model(Path(folder), cls).to(device)


def with_likelihood(
    model: DiffusionWorldModel, settings: LikelihoodSettings | None, spatial: SpatialSource
) -> DiffusionWorldModel:
    """Return a model whose experts' product is corrected by what a spatial memory shows; None = no longer.

    It needs no training and no network that looks at views: any checkpoint will do (see
    :mod:`come_nav.world_model.calibration.likelihood`).

    Raises:
        ConfigError: for gains of another number of channels than the latents have.
    """
    other = copy.copy(model)
    other.spatial = spatial
    other.likelihood = None if settings is None else SpatialLikelihood(settings, len(model.schedule))
    channels = model.autoencoder.settings.latent_channels
    if settings is not None and settings.table.shape[-1] not in (1, channels):
        raise ConfigError(f"likelihood.gains must be of 1 or {channels} channels, got {settings.table.shape[-1]}")
    return other


def guided_by(
    model: DiffusionWorldModel, spatial: SpatialSource, prior: LikelihoodPriorSettings, exponent: float = 1.0
) -> DiffusionWorldModel:
    """Return a model that a spatial memory corrects as far as a prior trusts it: for models without fitted gains.

    ``exponent`` is that of the likelihood; see :func:`with_likelihood`.
    """
    gains = LikelihoodSettings.from_variances(model.schedule, prior.clean_variance, prior.render_variance)
    return with_likelihood(model, replace(gains, temper=exponent), spatial)


def with_levels(
    model: DiffusionWorldModel, levels: Mapping[float, Mapping[str, float]], least_exponent: float = 0.0
) -> DiffusionWorldModel:
    """Return a model whose weights depend on the noise level, a fraction of the schedule: level -> name -> weight.

    Experts that a level does not name keep their weight. Passes below ``least_exponent`` are left out.
    """
    names, weights = tuple(model.experts), model.composition.weights
    found = [
        LevelWeights(level, tuple(own.get(name, kept) for name, kept in zip(names, weights, strict=True)))
        for level, own in sorted(levels.items())
    ]
    other = copy.copy(model)
    other.composition = replace(model.composition, levels=tuple(found), least_exponent=least_exponent)
    return other
