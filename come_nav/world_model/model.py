"""The diffusion world model: latents of a camera view at another pose and time (WorldModel protocol)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.checks import check_choice, check_range, check_shape
from come_nav.core.errors import ConfigError, ShapeError, suggest
from come_nav.core.geometry import se2
from come_nav.core.geometry.point_rendering import level_camera
from come_nav.core.protocols import Expert, SpatialSource
from come_nav.core.types import Context, Frame
from come_nav.experts.base import BaseExpert
from come_nav.experts.lora import LongTermExpert, LongTermThroughView
from come_nav.experts.memory_views import short_term_expert, spatial_expert
from come_nav.experts.passes import ABSOLUTE_POSE, LONG_VIEW, MEMORY_VIEW, VIEW, Condition, Query
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder
from come_nav.world_model.composition import (
    CompositionMode,
    CompositionSettings,
    ExpertProduct,
    ProductNoise,
    check_schedules,
)
from come_nav.world_model.contexts import repeat_for_particles, rows_of, slide
from come_nav.world_model.depth import DepthEstimator
from come_nav.world_model.images import ImageSettings, camera_of_frame, extrinsics_of, images_from_rgb
from come_nav.world_model.imaginer import ModelImaginer
from come_nav.world_model.reprojection import (
    OLDER_POINTS,
    RenderedView,
    ReprojectionSettings,
    context_points,
    context_view,
    longer_view,
    older_points,
    with_views,
)
from come_nav.world_model.sampling.sampler import SamplerSettings, noise_source, sample
from come_nav.world_model.sampling.schedule import NoiseSchedule

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class InferenceSettings:
    """How predictions are computed, not what they are.

    Attributes:
        micro_batch: candidates per denoiser call (and images per autoencoder call); bounds the memory.
        precision: "float32", "bfloat16", or "auto": bfloat16 on CUDA and on CPUs that multiply it in hardware (AMX).
    """

    micro_batch: int = 128
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        check_range("inference.micro_batch", self.micro_batch, 1)
        check_choice("inference.precision", self.precision, get_args(Precision))


class DiffusionWorldModel:
    """An autoencoder, a noise schedule, experts that share both, and a sampler.

    Args:
        autoencoder: of images to latents.
        experts: by name; the first one is the base, whose context and units the others share.
        schedule: the full schedule that all experts were trained on.
        sampler: how latents are drawn.
        composition: weights of the experts; one of weight 1 each by default.
        rate_hz: protocol frames per second.
        images: how camera images become the model's.
        inference: batch sizes and precision.
        memory_expert: the network that learned to look at memories, for the spatial and the long-term expert; the base
            where not given.
        depth: estimates the depth of context frames, for a base whose extra channels take reprojected views.
        reprojection: how context frames become points.

    Attributes:
        tuned: sections of the model folder's config.yaml that say what was tuned to these weights (``navigation``,
            ``composition_weights``); kept, so that they are saved again.
    """

    def __init__(  # noqa: PLR0913  the parts of a model, in one flat list
        self,
        autoencoder: ImageAutoencoder,
        experts: Mapping[str, Expert],
        schedule: NoiseSchedule,
        sampler: SamplerSettings | None = None,
        *,
        composition: CompositionSettings | None = None,
        rate_hz: float = 4.0,
        images: ImageSettings | None = None,
        inference: InferenceSettings | None = None,
        memory_expert: BaseExpert | None = None,
        depth: DepthEstimator | None = None,
        reprojection: ReprojectionSettings | None = None,
    ) -> None:
        if not experts or not isinstance(next(iter(experts.values())), BaseExpert):
            raise ConfigError(f"a world model needs a BaseExpert as its first expert, got {list(experts)}")
        self.autoencoder = autoencoder
        self.experts: dict[str, Expert] = dict(experts)
        self.schedule = schedule
        self.sampler = sampler or SamplerSettings()
        self.composition = composition or CompositionSettings(weights=(1.0,) * len(self.experts))
        check_schedules(self.experts, schedule.digest)
        self.rate_hz = check_range("rate_hz", rate_hz, 0.0, open_low=True)
        self.images = images or ImageSettings()
        self.inference = inference or InferenceSettings()
        self.depth = depth
        self.reprojection = reprojection or ReprojectionSettings()
        self.memory_expert = memory_expert
        self.spatial: SpatialSource | None = None
        self.tuned: dict[str, dict[str, Any]] = {}
        if (depth is not None) != (self.base.model.settings.extra_channels > 0):
            raise ConfigError("a base expert with extra channels needs a depth estimator, and only such a one does")

    # -- facts -------------------------------------------------------------------------------------------------------

    @property
    def base(self) -> BaseExpert:
        """The first expert."""
        return cast(BaseExpert, next(iter(self.experts.values())))

    @property
    def memory_base(self) -> BaseExpert:
        """The network of the spatial and the long-term expert."""
        return self.base if self.memory_expert is None else self.memory_expert

    @property
    def image_size(self) -> int:
        """Rows and columns of images, pixels."""
        return self.autoencoder.settings.image_size

    @property
    def context_frames(self) -> int:
        """Frames that a context holds."""
        return self.base.model.settings.context_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.base.parameters()).device

    def to(self, device: torch.device | str) -> DiffusionWorldModel:
        """Move all weights; return self."""
        self.autoencoder.to(device)
        if self.depth is not None:
            self.depth.to(device)
        if self.memory_expert is not None:
            self.memory_expert.to(device)
        for expert in self.experts.values():
            if isinstance(expert, torch.nn.Module):
                expert.to(device)
        return self

    # -- memories ----------------------------------------------------------------------------------------------------

    def with_memory(
        self, spatial: SpatialSource | None = None, long_term: LongTermExpert | None = None
    ) -> DiffusionWorldModel:
        """Return a model of the same weights whose experts look at memories too.

        Experts are "base", "short_term" (where the base looks at views), "long_term" and "spatial" (where given), all
        of weight 1 but for the short-term one, which is left out until :meth:`composed` gives it a weight.

        Raises:
            ConfigError: for a spatial memory and a base that looks at no views.
        """
        experts: dict[str, Expert] = {"base": self.base}
        weights = [1.0]
        if self.depth is not None:
            experts["short_term"], weights = short_term_expert(self.base), [*weights, 0.0]
        if long_term is not None:
            experts["long_term"], weights = long_term, [*weights, 1.0]
        if spatial is not None:
            experts["spatial"], weights = spatial_expert(self.base, self.memory_base), [*weights, 1.0]
        check_schedules(experts, self.schedule.digest)
        model = copy.copy(self)
        model.spatial, model.experts = spatial, experts
        model.composition = replace(self.composition, weights=tuple(weights))
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
        model.composition = replace(self.composition, mode=mode or self.composition.mode, weights=exponents)
        return model

    # -- images and contexts -----------------------------------------------------------------------------------------

    def images_from_rgb(self, frames: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return (T, 3, S, S) in [-1, 1] of uint8 RGB images (H, W, 3) of any size: centre crop, resize, scale."""
        return images_from_rgb(frames, self.image_size, self.images.aspect, self.images.crop).to(self.device)

    # Contexts and latents may go on to be trained on (episodic memory): no_grad, for inference tensors refuse that.
    @torch.no_grad()
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return scaled latents (B, C, h, w) of images (B, 3, H, W): the mode, or a sample with a generator."""
        parts = torch.split(images.to(self.device), self.inference.micro_batch)
        with self._autocast():
            return torch.cat([self.autoencoder.encode(part, generator).float() for part in parts])

    @torch.no_grad()
    def encode_moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (B, C, h, w) of the unscaled posterior of images (B, 3, H, W)."""
        parts = torch.split(images.to(self.device), self.inference.micro_batch)
        with self._autocast():
            moments = [self.autoencoder.moments(part) for part in parts]
        return torch.cat([mean.float() for mean, _ in moments]), torch.cat([logvar.float() for _, logvar in moments])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return images (B, 3, H, W) in [-1, 1] of scaled latents (B, C, h, w)."""
        parts = torch.split(latents.to(self.device), self.inference.micro_batch)
        with self._autocast():
            return torch.cat([self.autoencoder.decode(part).float() for part in parts])

    @torch.inference_mode()
    def blended_images(self, latents: Tensor, context: Context, actions_xyyaw: Tensor) -> Tensor:
        """Return images (S, 3, H, W) of latents predicted at poses (S, 3): decoded, and finished by a memory.

        Where the spatial memory has a say in the prediction and knows the view, it gets a second one. A network blurs
        what it is unsure of, and its autoencoder loses detail; a rendered cloud is sharp, but cracked, and ragged at
        outlines. Images are drawn to it by ``reprojection.render_blend``, as far as it is reliable at each pixel:
        the mean of two guesses has smaller errors than either. (The network's own view has what was seen just now
        first; the cloud's measured depth makes the better image.) Plans compare latents, to which none of this is
        done: it made them worse.
        """
        trust, images = self.reprojection.render_blend, self.decode(latents)
        if not self._looks_at_memory or trust == 0.0:
            return images
        actions = actions_xyyaw.to(self.device, torch.float32)
        view = self._remembered(self._on_device(context).extras, actions)
        return images + trust * view.reliability * (view.filled - images)

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
        older: tuple[Tensor, Tensor, Tensor | None] | None = None,
        absolute_pose_xyyaw: Tensor | NDArray[Any] | None = None,
    ) -> Context:
        """Return the context (batch 1) of images (T, 3, H, W), oldest first, seen from poses (T, 3) in one frame.

        Args:
            images: in [-1, 1], of the model's size; T must be ``context_frames``.
            poses_xyyaw: of base_link at each image, in any common frame, e.g. odom.
            frame_offsets: (T,) times before the newest in protocol frames; one frame apart where not given.
            generator: sample the latents instead of taking the mode.
            camera: (1, 4) of the images (fractions, see core.geometry.point_rendering); the model's own by default.
            T_base_camera: (1, 4, 4), or (1, T, 4, 4) where frames have their own, of which the newest is the targets';
                level over base_link's origin by default.
            latents: (T, C, h, w) of the images where they are encoded already.
            older: images (N, 3, H, W), poses (N, 3) and extrinsics (N, 4, 4) or None of frames before, oldest first,
                for the short-term expert.
            absolute_pose_xyyaw: (3,) of the newest frame in the odom frame, where memories of the episode are in use.

        Raises:
            ShapeError: for another number of images, or shapes that do not agree.
        """
        poses = torch.as_tensor(poses_xyyaw, dtype=torch.float64)
        count = self.context_frames
        check_shape(f"context images of a model with {count} context frames", images, f"{count} 3 H W")
        check_shape("context poses", poses, f"{count} 3")
        offsets = torch.arange(1 - count, 1) if frame_offsets is None else torch.as_tensor(frame_offsets)
        check_shape("context frame_offsets", offsets, f"{count}")
        latents = self.encode(images, generator) if latents is None else latents.to(self.device)
        relative = se2.relative(poses[-1:], poses).float().to(latents.device)[None]
        extras: dict[str, Tensor] = {}
        if self.depth is not None:
            camera = (self.images.camera() if camera is None else camera).to(self.device, torch.float32)
            extrinsics = level_camera(self.images.camera_height_m) if T_base_camera is None else T_base_camera
            extrinsics = extrinsics.to(self.device, torch.float32)
            extras = context_points(*self._with_depth(images), relative, camera, extrinsics, self.reprojection)
            if older is not None and len(older[0]):
                past = se2.relative(poses[-1:], torch.as_tensor(older[1], dtype=torch.float64)).float()
                past = past.to(self.device)[None]
                past_extrinsics = extras["T_base_camera"] if older[2] is None else older[2].to(extrinsics)[None]
                extras |= older_points(*self._with_depth(older[0]), past, past_extrinsics, extras, self.reprojection)
        if absolute_pose_xyyaw is not None:
            extras[ABSOLUTE_POSE] = torch.as_tensor(absolute_pose_xyyaw).to(latents.device, torch.float32)[None]
        return Context(latents[None], relative, offsets.float().to(latents.device)[None], extras)

    def context_from_frames(
        self,
        frames: Sequence[Frame],
        poses_xyyaw: Tensor | NDArray[Any],
        frame_offsets: Tensor | Sequence[float] | None = None,
        generator: torch.Generator | None = None,
        *,
        latents: Tensor | None = None,
        older: Sequence[tuple[Frame, NDArray[np.float64]]] = (),
        absolute_pose_xyyaw: Tensor | NDArray[Any] | None = None,
    ) -> Context:
        """Return the context of camera frames, with the newest one's intrinsics and each one's extrinsics."""
        camera = camera_of_frame(frames[-1].intrinsics, self.images.aspect)
        extrinsics = extrinsics_of(frames)
        images = self.images_from_rgb([frame.rgb for frame in frames])
        past = None
        if older and self.depth is not None:
            past_images = self.images_from_rgb([frame.rgb for frame, _ in older])
            past_poses = torch.from_numpy(np.stack([pose for _, pose in older]))
            past = past_images, past_poses, extrinsics_of([frame for frame, _ in older])
        return self.context_from_images(
            images,
            poses_xyyaw,
            frame_offsets,
            generator,
            camera=camera,
            T_base_camera=None if extrinsics is None else extrinsics[None],
            latents=latents,
            older=past,
            absolute_pose_xyyaw=absolute_pose_xyyaw,
        )

    def _with_depth(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (1, T, 3, H, W) and their estimated depth (1, T, H, W)."""
        images = images.to(self.device)
        return images[None], self.estimate_depth_m(images)[None]

    @torch.no_grad()
    def estimate_depth_m(self, images: Tensor) -> Tensor:
        """Return the estimated z-depth (B, H, W) in metres of images (B, 3, H, W)."""
        if self.depth is None:
            raise ConfigError("this model has no depth estimator")
        with self._autocast():
            return self.depth.depth_m(images.to(self.device))

    # -- prediction --------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def predict(
        self,
        context: Context,
        actions_xyyaw: Tensor,
        rel_frames: Tensor,
        generator: torch.Generator,
        *,
        shared_noise: bool = False,
    ) -> Tensor:
        """Return latents (S, C, h, w) at poses (S, 3), ``rel_frames`` (S,) after the newest context frame.

        Args:
            context: of batch 1 (shared by all candidates) or S.
            actions_xyyaw: target poses in the newest context frame's base, metres and radians.
            rel_frames: times of the targets in protocol frames.
            generator: source of all noise.
            shared_noise: start all candidates from one noise, so that they differ by their actions alone.

        Raises:
            ShapeError: when the batch sizes do not agree.
            ConfigError: for particles together with a guidance interval, or weights that do not fit the experts.
        """
        count = check_shape("actions_xyyaw", actions_xyyaw, "S 3")["S"]
        check_shape("rel_frames", rel_frames, f"{count}")
        if context.latents.shape[0] not in (1, count):
            raise ShapeError(f"the context must have batch 1 or {count}, got {context.latents.shape[0]}")
        context = self._on_device(context)
        actions = actions_xyyaw.to(self.device, torch.float32)
        times = rel_frames.to(self.device, torch.float32)
        shape = (1 if shared_noise else count, *context.latents.shape[2:])
        noise = noise_source(generator)(torch.empty(shape, device=self.device)).expand(count, *shape[1:])
        product = self._product()
        context, actions, times = repeat_for_particles(context, actions, times, self.sampler.resampling.particles)
        size = self.inference.micro_batch
        parts = [slice(start, start + size) for start in range(0, len(actions), size)]
        contexts = [self._seen_from(rows_of(context, part), actions[part], product.views) for part in parts]

        def noise_prediction(x_t: Tensor, t: Tensor) -> Tensor | ProductNoise:
            queries = [
                Query(x_t[part], t[part], seen, actions[part], times[part])
                for part, seen in zip(parts, contexts, strict=True)
            ]
            return self._noise(product, queries, int(t[0]))

        start_exponents = sum(product.exponents(len(self.schedule) - 1).values())
        return sample(noise_prediction, noise, self.sampler, self.schedule, generator, exponent_sum=start_exponents)

    @torch.inference_mode()
    def rollout(
        self,
        context: Context,
        poses_xyyaw: Tensor,
        generator: torch.Generator,
        stride: int = 1,
        *,
        shared_noise: bool = False,
    ) -> Tensor:
        """Return latents (S, T // stride, C, h, w) along poses (S, T, 3), each step seen from the one before.

        The context slides over the model's own latents (never decoded); each action and all context poses are
        expressed in the base of the newest imagined frame. Poses lie one protocol frame apart in the start frame.
        """
        sizes = check_shape("poses_xyyaw", poses_xyyaw, "S T 3")
        if not 1 <= stride <= sizes["T"]:
            raise ConfigError(f"rollout stride must be in [1, {sizes['T']}] for {sizes['T']} poses, got {stride}")
        context = self._on_device(context)
        targets = poses_xyyaw.to(self.device, torch.float32)[:, stride - 1 :: stride]
        elapsed = torch.full((sizes["S"],), float(stride), device=self.device)
        newest = torch.zeros_like(targets[:, 0])
        imagined = []
        for target in targets.unbind(1):
            action: Tensor = se2.relative(newest, target)
            latents = self.predict(context, action, elapsed, generator, shared_noise=shared_noise)
            context = slide(context, latents, action, stride)
            imagined.append(latents)
            newest = target
        return torch.stack(imagined, dim=1)

    def imaginer(
        self,
        context: Context,
        rel_frames: float,
        mode: Literal["jump", "rollout"] = "jump",
        *,
        decode: bool = False,
        shared_noise: bool = True,
    ) -> ModelImaginer:
        """Return an Imaginer with ``context`` bound in, for candidates that end ``rel_frames`` after it.

        Args:
            context: what was seen, batch 1.
            rel_frames: time of a candidate's last pose, protocol frames.
            mode: "jump" predicts the last view at once, "rollout" frame by frame.
            decode: also decode the views to images, for objectives that compare pixels.
            shared_noise: start all candidates from one noise, so that costs differ by the candidates alone.
        """
        return ModelImaginer(self, context, float(rel_frames), mode, decode, shared_noise)

    @property
    def _weights(self) -> dict[str, float]:
        return dict(zip(self.experts, self.composition.weights, strict=False))

    @property
    def _looks_at_memory(self) -> bool:
        return self.depth is not None and self.spatial is not None and self._weights.get("spatial", 0.0) > 0.0

    def _seen_from(self, context: Context, actions: Tensor, wanted: frozenset[str]) -> Context:
        """Add what the context's points and the memory show from each target, once for all sampling steps."""
        if self.depth is None:
            return context
        layers = self._layers(context, actions, wanted)
        return with_views(context, {name: layers[name].encoded(self.autoencoder.encode) for name in wanted})

    def _layers(self, context: Context, actions: Tensor, wanted: frozenset[str]) -> dict[str, RenderedView]:
        """Return what is seen from each target, by the name of the view; more views than wanted may be there."""
        size, settings, extras = self.image_size, self.reprojection, context.extras
        layers = {VIEW: context_view(extras, actions, size, settings)}
        if wanted & {LONG_VIEW, MEMORY_VIEW}:
            longer = layers[VIEW]
            if OLDER_POINTS[0] in extras:
                longer = longer.over(longer_view(extras, actions, size, settings))
            layers[LONG_VIEW] = layers[MEMORY_VIEW] = longer
        if MEMORY_VIEW in wanted:
            # What was seen just now is sharper than voxels, and no drift of odometry lies between: it comes first.
            layers[MEMORY_VIEW] = layers[MEMORY_VIEW].over(self._remembered(extras, actions))
        return layers

    def _remembered(self, extras: Mapping[str, Tensor], actions: Tensor) -> RenderedView:
        """Return what the spatial memory shows from each target."""
        if self.spatial is None or ABSOLUTE_POSE not in extras:
            raise ShapeError("the spatial expert needs a memory (with_memory) and a context with absolute_pose_xyyaw")
        poses: Tensor = se2.compose(extras[ABSOLUTE_POSE].expand(len(actions), -1), actions)
        return RenderedView(*self.spatial.views(poses, self.image_size, extras["T_base_camera"]))

    def _product(self) -> ExpertProduct:
        """Return the product of the experts as they are now."""
        if self.sampler.resampling.particles > 1 and not self.composition.everywhere:
            raise ConfigError(
                f"sampler.resampling.particles {self.sampler.resampling.particles} needs composition.interval [0, 1], "
                f"got {list(self.composition.interval)}: weights follow one product through all noise levels"
            )
        experts = dict(self.experts)
        long_term = experts.get("long_term")
        if isinstance(long_term, LongTermExpert) and self._weights.get("spatial"):
            # Both memories see the same view, so that together they cost no more passes than one of them.
            experts["long_term"] = LongTermThroughView(long_term, MEMORY_VIEW)
        return ExpertProduct(list(experts.values()), self.composition, len(self.schedule))

    def _noise(self, product: ExpertProduct, queries: Sequence[Query], step: int) -> Tensor | ProductNoise:
        """Return the composed noise, its parts for resampling, or with variance values from one expert alone."""
        single = product.single(step)
        with self._autocast():
            if self.sampler.name == "ddpm" and single is not None and single.condition == Condition():
                network = single.network
                if isinstance(network, BaseExpert):
                    return torch.cat(
                        [network.eps_with_variance(q.x_t, q.t, q.context, q.action, q.rel_time) for q in queries]
                    )
            answers = [product(query, step) for query in queries]
        if self.sampler.resampling.particles == 1:
            return torch.cat([answer.composed() for answer in answers])
        return ProductNoise(torch.cat([answer.noises for answer in answers], dim=1), answers[0].exponents)

    def _autocast(self) -> AbstractContextManager[Any]:
        device = self.device.type
        amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        fast = device == "cuda" or (device == "cpu" and amx())
        use = self.inference.precision == "bfloat16" or (self.inference.precision == "auto" and fast)
        return torch.autocast(device, torch.bfloat16, enabled=use)

    def _on_device(self, context: Context) -> Context:
        extras = {name: value.to(self.device) for name, value in context.extras.items()}
        return Context(
            context.latents.to(self.device, torch.float32),
            context.poses_xyyaw.to(self.device, torch.float32),
            context.frame_offsets.to(self.device, torch.float32),
            extras,
        )

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, folder: Path | str, card: str | None = None) -> None:
        """Write the model folder atomically (see :mod:`come_nav.world_model.checkpoint`)."""
        from come_nav.world_model.checkpoint import save_model

        save_model(self, Path(folder), card)

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> DiffusionWorldModel:
        """Read a model folder, ready for inference; raise CheckpointError in one line where it cannot be read."""
        from come_nav.world_model.checkpoint import load_model

        return load_model(Path(folder)).to(device)
