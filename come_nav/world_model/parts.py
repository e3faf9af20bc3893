"""The parts of a diffusion world model, and where and how they compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch

from come_nav.core.checks import check_range
from come_nav.core.device.precision import full_float32, multiplies_bfloat16
from come_nav.core.errors import ConfigError
from come_nav.core.protocols import Expert, SpatialSource
from come_nav.experts.base import BaseExpert
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder
from come_nav.world_model.calibration.likelihood import SpatialLikelihood
from come_nav.world_model.composition import CompositionSettings, check_schedules
from come_nav.world_model.depth import DepthEstimator
from come_nav.world_model.images import ImageSettings
from come_nav.world_model.inference_settings import InferenceSettings
from come_nav.world_model.reprojection import ReprojectionSettings
from come_nav.world_model.sampling.schedule import NoiseSchedule
from come_nav.world_model.sampling.settings import SamplerSettings

PIXELS_PER_CALL = 1 << 20  # of the autoencoder


class ModelParts:
    """An autoencoder, a noise schedule, experts that share both, and the settings they run with.

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
        spatial: the memory that experts or the likelihood look at.
        likelihood: corrects what the experts predict by what ``spatial`` shows; None = it does not.
        tuned: sections of the model folder's config.yaml that say what was tuned to these weights (``navigation``,
            ``composition_weights``); kept, so that they are saved again.

    Raises:
        ConfigError: without a base, for experts of another schedule, or where views lack depth or depth views.
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
        self.likelihood: SpatialLikelihood | None = None
        self.tuned: dict[str, dict[str, Any]] = {}
        if (depth is not None) != (self.base.model.settings.extra_channels > 0):
            raise ConfigError("a base expert with extra channels needs a depth estimator, and only such a one does")

    @property
    def base(self) -> BaseExpert:
        """The first expert."""
        return cast(BaseExpert, next(iter(self.experts.values())))

    @property
    def memory_base(self) -> BaseExpert:
        """The network of the spatial and the long-term expert."""
        return self.base if self.memory_expert is None else self.memory_expert

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each expert in the composition."""
        return dict(zip(self.experts, self.composition.weights, strict=False))

    @property
    def image_size(self) -> int:
        """Rows and columns of images, pixels."""
        return self.autoencoder.settings.image_size

    @property
    def image_batch(self) -> int:
        """Images in one call of the autoencoder."""
        most = max(1, PIXELS_PER_CALL // self.image_size**2)
        return self.inference.image_batch or min(self.inference.micro_batch, most)

    @property
    def context_frames(self) -> int:
        """Frames that a context holds."""
        return self.base.model.settings.context_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.base.parameters()).device

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which networks run in the precision that ``inference.precision`` means here."""
        device, wanted = self.device.type, self.inference.precision
        use = wanted == "bfloat16" or (wanted == "auto" and multiplies_bfloat16(device))
        return torch.autocast(device, torch.bfloat16) if use else _float32(device)


@contextmanager
def _float32(device: str) -> Iterator[None]:
    with torch.autocast(device, torch.bfloat16, enabled=False), full_float32():
        yield
