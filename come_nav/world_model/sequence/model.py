"""A sequence denoiser with its autoencoder and units: frames in, remembered views out; and its model folder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError
from come_nav.core.weights_file import (
    WEIGHTS_NAME,
    check_format,
    checked_weights,
    has_format,
    load_tensors,
    read_folder_config,
    write_model_folder,
)
from come_nav.experts.normalizer import Normalizer
from come_nav.experts.sequence.expert import SequenceNetwork
from come_nav.experts.sequence.network import SequenceDenoiser, SequenceState
from come_nav.experts.sequence.settings import SequenceSettings
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings, ImageAutoencoder
from come_nav.world_model.sampling.sampler import sample
from come_nav.world_model.sampling.schedule import NoiseSchedule, ScheduleSettings
from come_nav.world_model.sampling.settings import SamplerSettings

FORMAT = "come_nav sequence model 1"


@dataclass(frozen=True)
class SequenceModelSettings:
    """Content of a sequence model's ``config.yaml``.

    Attributes:
        format: version of this layout.
        weights_sha256: of the weights file.
        network: shape of the denoiser.
        autoencoder: shape of the autoencoder.
        normalizer: of poses and motions.
        schedule: of the noise.
        sampler_steps: steps in which a view is sampled, without noise of their own (DDIM, evenly spaced from pure
            noise on).
        frames: length of the sequences that it was trained on.
        rate_hz: of the frames.
    """

    format: str = FORMAT
    weights_sha256: str | None = None
    network: SequenceSettings = field(default_factory=SequenceSettings)
    autoencoder: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    normalizer: Normalizer = field(default_factory=Normalizer)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    sampler_steps: int = 1
    frames: int = 100
    rate_hz: float = 4.0

    def __post_init__(self) -> None:
        check_format(self.format, FORMAT)
        check_range("sampler_steps", self.sampler_steps, 1, self.schedule.steps)
        check_range("frames", self.frames, 1)
        check_range("rate_hz", self.rate_hz, 0.0, open_low=True)
        check_same_latents(self.network, self.autoencoder)


def check_same_latents(network: SequenceSettings, autoencoder: AutoencoderSettings) -> None:
    """Raise ConfigError where a denoiser is not of the autoencoder's latents."""
    pairs = (
        ("in_channels", network.in_channels, autoencoder.latent_channels),
        ("input_size", network.input_size, autoencoder.latent_size),
    )
    for name, own, wanted in pairs:
        if own != wanted:
            raise ConfigError(f"network.{name} must be {wanted} as in the autoencoder's latents, got {own}")


def is_sequence_folder(folder: Path) -> bool:
    """Whether a model folder's config says that it holds a sequence model; False where there is no readable one."""
    return has_format(folder, FORMAT)


def read_sequence_settings(folder: Path) -> SequenceModelSettings:
    """Return a sequence model folder's config.

    Raises:
        CheckpointError: where ``folder`` is none, naming what it is.
        ConfigError: for a value that breaks a rule.
    """
    make_one = "make one: come-nav train --sequence ssm"
    return read_folder_config(Path(folder), SequenceModelSettings, FORMAT, "sequence model", make_one)


class SequenceModel:
    """Remembers sequences and imagines views at poses.

    Attributes:
        settings: of the model.
        network: the denoiser in metres.
        autoencoder: images to latents and back.
        schedule: of the noise.
    """

    def __init__(
        self, settings: SequenceModelSettings, denoiser: SequenceDenoiser, autoencoder: ImageAutoencoder
    ) -> None:
        self.settings, self.autoencoder = settings, autoencoder.eval()
        self.schedule = NoiseSchedule.linear(settings.schedule)
        self.network = SequenceNetwork(denoiser, settings.normalizer, self.schedule).eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.abar.device

    def to(self, device: torch.device | str) -> SequenceModel:
        """Move all weights; return self."""
        self.network.to(device)
        self.autoencoder.to(device)
        return self

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return scaled latents (B, C, h, w) of images (B, 3, H, W) in [-1, 1]."""
        return self.autoencoder.encode(images.to(self.device))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return images (B, 3, H, W) in [-1, 1] of scaled latents (B, C, h, w)."""
        return self.autoencoder.decode(latents.to(self.device))

    @torch.no_grad()
    def imagine(
        self,
        state: SequenceState | None,
        poses_xyyaw: Tensor,
        actions_xyyaw: Tensor,
        generator: torch.Generator,
        steps: int | None = None,
    ) -> Tensor:
        """Sample one next frame for each of B sequences; their state stays as it is.

        Args:
            state: of B sequences; None = nothing is remembered.
            poses_xyyaw: (B, 3) in the frame of each sequence's first frame, m and rad.
            actions_xyyaw: (B, 3) in the base of each sequence's newest frame.
            generator: of the noise that sampling starts from.
            steps: of the sampler; the model's own where None.

        Returns:
            latents (B, C, h, w).
        """
        latent, poses, actions = self.settings.network, poses_xyyaw.to(self.device), actions_xyyaw.to(self.device)
        shape = (len(poses), latent.in_channels, latent.input_size, latent.input_size)
        sampler = SamplerSettings("ddim", self.settings.sampler_steps if steps is None else steps)

        def noise(x_t: Tensor, t: Tensor) -> Tensor:
            return self.network.noise(x_t, t, poses, actions, state)

        return sample(noise, shape, sampler, self.schedule, generator, device=self.device)

    def save(self, folder: Path, card: str | None = None) -> None:
        """Write weights, then the config that holds their checksum, then the card; each file atomically."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self._modules().state_dict().items()}
        default = f"# {folder.name}\n\nA sequence model of come_nav: memory '{self.settings.network.memory}'.\n"
        write_model_folder(
            folder, tensors, FORMAT, lambda digest: replace(self.settings, weights_sha256=digest), card or default
        )

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> SequenceModel:
        """Load a model folder.

        Raises:
            CheckpointError: in one line, for a folder, file or tensor that is missing or broken.
            ConfigError: for a value in ``config.yaml`` that breaks a rule.
        """
        settings = read_sequence_settings(folder)
        tensors = checked_weights(Path(folder), settings.weights_sha256)
        model = cls(settings, SequenceDenoiser(settings.network), ImageAutoencoder(settings.autoencoder))
        load_tensors(model._modules(), tensors, Path(folder) / WEIGHTS_NAME)
        return model.to(device)

    def _modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"network": self.network.model, "autoencoder": self.autoencoder.network})
