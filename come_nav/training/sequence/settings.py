"""Settings of a sequence denoiser's training run; YAML only overrides."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from come_nav.core.checks import check_choice, check_range
from come_nav.core.errors import ConfigError
from come_nav.core.settings import to_mapping
from come_nav.experts.sequence.settings import MEMORY_KINDS, SequenceSettings
from come_nav.sim.sensors.settings import sensor_settings
from come_nav.sim.world_sets import MAZE, world_set
from come_nav.training.config import OptimiserSettings
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings

LAPPED = AutoencoderSettings(kind="lapped", block_size=16, latent_channels=24)


@dataclass(frozen=True)
class SequenceDataSettings:
    """What a sequence denoiser learns from: one walk through each maze, or one drive through each built-in world.

    Attributes:
        first_world, worlds: seeds [first_world, first_world + worlds); must be training seeds.
        validation_worlds: number of worlds from seed 10000 on that measure the validation loss.
        set_of_worlds: how they are drawn (come_nav/sim/world_sets.py); mazes are walked by discrete moves.
        sensors: preset of what the camera delivers, and of the camera that each walk draws (come_nav/sim/sensors).
        walk_frames: of each walk or drive; sequences are cut out of it.
        drivers: scripted drivers of worlds that are no mazes, taken in turn.
        cache_folder: where encoded walks are kept for several runs; the run folder where null.
    """

    first_world: int = 0
    worlds: int = 200
    validation_worlds: int = 8
    set_of_worlds: str = MAZE
    sensors: str = "ideal"
    walk_frames: int = 500
    drivers: tuple[str, ...] = ("wander", "tour")
    cache_folder: Path | None = None

    def __post_init__(self) -> None:
        check_range("data.first_world", self.first_world, 0, 9999)
        check_range("data.worlds", self.worlds, 1, 10000 - self.first_world)
        check_range("data.validation_worlds", self.validation_worlds, 1, 100)
        check_range("data.walk_frames", self.walk_frames, 2, 100_000)
        world_set(self.set_of_worlds)
        sensor_settings(self.sensors)
        for name in self.drivers:
            check_choice("data.drivers", name, ("wander", "tour"))
        if not self.drivers:
            raise ConfigError("data.drivers must name at least one of wander, tour")


@dataclass(frozen=True)
class SequenceTrainSettings:
    """One run of a sequence denoiser (diffusion forcing, arXiv 2407.01392: every frame has a noise level of its own).

    Attributes:
        name: of the exported model folder.
        seed: of everything random in the run.
        frames: length of the sequences.
        rate_hz: frames per second.
        scale_m: metres that count as 1 in poses and motions.
        autoencoder: of latents that are made for the data: a lapped transform whose filters are the principal
            components of blocks of 512 views, which takes no training.
        autoencoder_from: model whose autoencoder is taken instead, a name or a folder.
        prefix_share: share of sequences that begin with a clean part of random length, more than half of it; the loss
            is over the rest (LSSVWM, arXiv 2505.20171: half of them).
        clean_share: of the frames of the other sequences, drawn one by one, are clean: what surrounds a noisy frame is
            then worth remembering, and most sequences teach at many places at once.
        scattered_share: of the sequences are frames drawn from a whole walk, in their order, in place of neighbours:
            what is remembered is then asked for from afar, as a planner does.
        curriculum_frames: sequences are so short at first and grow evenly to ``frames``; 0 = of one length. The paper
            has no such curriculum, summaries of it do.
        curriculum_share: of the steps, after which sequences have all their frames.
        recall_weight: a noisy frame that can be remembered from afar counts so many times more: its view was shown
            clean before, last more than ``recall_age`` frames ago. A loss of the same summaries; needs walks that come
            back to a pose exactly, as those through mazes do. 0 = all count the same.
        recall_age: frames.
        context_dropout: share of steps in which every frame is alone, which trains the side without memory.
        weighting: of the squared errors by noise level: "uniform" counts velocities, "x_0" what they say of the clean
            latents, which leaves out what a token is too narrow to pass on, the noise of nearly clean frames.
        noise_shift: above 1 the noisier levels are drawn more often (arXiv 2403.03206, equation 23).
        sampler_steps: of the exported model.
        precision: Lightning's; "auto" is bf16-mixed on CUDA and on CPUs that multiply it (AMX, AVX512-BF16), else
            32-true.
        data: what is learned from.
        network: shape, and what it remembers with.
        optimiser: of the one stage; a batch is so many sequences.
    """

    name: str = "sequence"
    seed: int = 0
    frames: int = 100
    rate_hz: float = 4.0
    scale_m: float = 1.0
    autoencoder: AutoencoderSettings = field(default_factory=lambda: LAPPED)
    autoencoder_from: str | None = None
    prefix_share: float = 0.5
    clean_share: float = 0.0
    scattered_share: float = 0.0
    curriculum_frames: int = 0
    curriculum_share: float = 0.5
    recall_weight: float = 0.0
    recall_age: int = 10
    context_dropout: float = 0.05
    weighting: Literal["uniform", "x_0"] = "x_0"
    noise_shift: float = 1.0
    sampler_steps: int = 1
    precision: str = "auto"
    data: SequenceDataSettings = field(default_factory=SequenceDataSettings)
    network: SequenceSettings = field(default_factory=SequenceSettings)
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(**DEFAULT_STAGE))

    def __post_init__(self) -> None:
        if self.autoencoder_from is None and self.autoencoder.kind != "lapped":
            raise ConfigError(
                f"autoencoder.kind must be lapped, got '{self.autoencoder.kind}': another one has to be trained first, "
                "and is taken by autoencoder_from"
            )
        check_range("frames", self.frames, 2, self.data.walk_frames)
        check_range("rate_hz", self.rate_hz, 0.1, 100.0)
        check_range("scale_m", self.scale_m, 0.0, open_low=True)
        check_range("prefix_share", self.prefix_share, 0.0, 1.0)
        check_range("clean_share", self.clean_share, 0.0, 0.9)
        check_range("scattered_share", self.scattered_share, 0.0, 1.0)
        check_range("curriculum_frames", self.curriculum_frames, 0, self.frames)
        check_range("curriculum_share", self.curriculum_share, 0.0, 1.0)
        check_range("recall_weight", self.recall_weight, 0.0)
        check_range("recall_age", self.recall_age, 1)
        if self.curriculum_frames == 1:
            raise ConfigError("curriculum_frames must be 0 (no curriculum) or at least 2: one frame is no sequence")
        if self.recall_weight > 0.0 and self.data.set_of_worlds != MAZE:
            raise ConfigError(
                "recall_weight needs walks that come back to a pose exactly; drives through "
                f"'{self.data.set_of_worlds}' never do: set it to 0, or data.set_of_worlds to {MAZE}"
            )
        check_range("context_dropout", self.context_dropout, 0.0, 0.9)
        check_choice("weighting", self.weighting, ("uniform", "x_0"))
        check_range("noise_shift", self.noise_shift, 0.01, 100.0)
        check_range("sampler_steps", self.sampler_steps, 1, 1000)

    def frames_at(self, step: int) -> int:
        """Return the length of the sequences of a step."""
        if self.curriculum_frames == 0:
            return self.frames
        grown = min(1.0, step / max(1.0, self.curriculum_share * self.optimiser.steps))
        return self.curriculum_frames + int(grown * (self.frames - self.curriculum_frames))


DEFAULT_STAGE: dict[str, Any] = {
    "steps": 4000,
    "batch_size": 4,
    "learning_rate": 2e-3,
    "warmup_steps": 50,
    "weight_decay": 0.01,
    "ema_decay": 0.99,
    "validate_every": 500,
    "save_every": 100,
}


def default_values(kind: str) -> dict[str, Any]:
    """Return the mapping that a kind's configuration starts from."""
    check_choice("--sequence", kind, MEMORY_KINDS)
    return {"name": f"sequence_{kind}", "autoencoder": to_mapping(LAPPED), "network": {"memory": kind}}
