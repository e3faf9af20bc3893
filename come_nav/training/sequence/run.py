"""A sequence denoiser's training run: walks, one stage, export. It resumes where it stopped."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from come_nav.core.files import writable_folder
from come_nav.core.resources import find_resource
from come_nav.experts.normalizer import Normalizer
from come_nav.experts.sequence.expert import SequenceNetwork
from come_nav.experts.sequence.network import SequenceDenoiser
from come_nav.sim.splits import VALIDATION_SEEDS
from come_nav.training.checkpoints import checkpoint_to_export, load_weights
from come_nav.training.data.windows import Encode
from come_nav.training.fitting import Stage
from come_nav.training.machine import Machine
from come_nav.training.run_parts import pin_config, seeded_layers
from come_nav.training.sequence.settings import SequenceTrainSettings
from come_nav.training.sequence.task import SequenceTask
from come_nav.training.sequence.walks import SequenceSamples, WalkBank, kept_walks, make_walks, spread_views, walks_name
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder
from come_nav.world_model.autoencoders.lapped import LappedTransform
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.sampling.schedule import NoiseSchedule
from come_nav.world_model.sequence.model import SequenceModel, SequenceModelSettings, check_same_latents

STAGE = "denoiser"
COMPONENT_VIEWS, COMPONENT_WORLDS = 512, 24
VALIDATION_SEED, VALIDATION_BATCHES, VALIDATION_SEQUENCES = 1, 2, 4


class SequenceRun:
    """A folder that one run lives in: config, walks, checkpoints, logs and the exported model."""

    def __init__(self, config: SequenceTrainSettings, folder: Path, machine: Machine) -> None:
        """Take what is trained and where.

        Raises:
            ConfigError: the folder holds another run, or the network is not of the autoencoder's latents.
            CheckpointError: there is no such autoencoder.
        """
        self.autoencoder = sequence_autoencoder(config)
        check_same_latents(config.network, self.autoencoder.settings)
        self.config, self.folder, self.machine = config, writable_folder(folder), machine
        self.processes = machine.launch()
        with self.processes.first_alone():
            pin_config(config, self.folder)

    def finish(self) -> Path | None:
        """Train what is not done yet; return the exported model folder, or None when time ran out first."""
        with self.processes.first_alone():
            bank, held_out = self.walks("train"), self.walks("validation")
        config, task, stage = self.config, self.task(), self.config.optimiser
        share, scattered = (self.processes.rank, self.processes.count), config.scattered_share
        frames = config.frames

        def batches(start: int) -> SequenceSamples:
            steps = range(start, stage.steps)
            length = config.frames_at
            return SequenceSamples(bank, frames, stage.batch_size, config.seed, steps, share, scattered, length)

        validation = SequenceSamples(
            held_out, frames, VALIDATION_SEQUENCES, VALIDATION_SEED, range(VALIDATION_BATCHES), scattered=scattered
        )
        trained = Stage(STAGE, stage, self.folder, self.machine).fit(task, batches, validation)
        return None if trained is None else self._export(trained)

    def export_newest(self) -> Path:
        """Write the model folder of the newest checkpoint of a run that is not finished; train nothing.

        Raises:
            CheckpointError: there is no checkpoint yet.
        """
        newest = checkpoint_to_export(self.folder, STAGE)
        task = self.task()
        load_weights(task, newest)
        return self._export(task)

    def task(self) -> SequenceTask:
        """Return the task with untrained weights, which depend only on the seed."""
        config, schedule = self.config, NoiseSchedule.linear()
        with seeded_layers(config.seed):
            denoiser = SequenceDenoiser(config.network)
        network = SequenceNetwork(denoiser, Normalizer.metric(config.scale_m), schedule)
        return SequenceTask(network, schedule, config)

    def walks(self, part: str) -> WalkBank:
        """Return the encoded walks of "train" or "validation"; they are made once and kept."""
        config, data = self.config, self.config.data
        seeds = range(data.first_world, data.first_world + data.worlds)
        if part == "validation":
            seeds = VALIDATION_SEEDS[: data.validation_worlds]
        name = walks_name(part, seeds, data, config.rate_hz, digest_of(self.autoencoder))
        folder = self.folder / "walks" if data.cache_folder is None else Path(data.cache_folder)
        machine = self.machine
        return kept_walks(
            folder / name,
            lambda: make_walks(seeds, data, config.rate_hz, self._encode(), machine.device, machine.progress),
        )

    def _encode(self) -> Encode:
        autoencoder = self.autoencoder.to(self.machine.device)

        @torch.no_grad()
        def encode(images: torch.Tensor) -> torch.Tensor:
            return autoencoder.encode(images)

        return encode

    def _export(self, task: SequenceTask) -> Path:
        config = self.config
        settings = SequenceModelSettings(
            network=config.network,
            autoencoder=self.autoencoder.settings,
            normalizer=task.network.normalizer,
            sampler_steps=config.sampler_steps,
            frames=config.frames,
            rate_hz=config.rate_hz,
        )
        target = self.folder / config.name
        with self.processes.first_alone() as first:
            if first:
                model = SequenceModel(settings, task.network.model.cpu(), self.autoencoder.cpu())
                model.save(target, sequence_card(config, model))
        return target


def sequence_autoencoder(config: SequenceTrainSettings) -> ImageAutoencoder:
    """Return the autoencoder of a run: a model's, or principal components of views of its first worlds.

    Raises:
        ConfigError, CheckpointError: there is no such model.
    """
    if config.autoencoder_from is not None:
        folder = find_resource("models", config.autoencoder_from)
        return DiffusionWorldModel.load(folder).autoencoder.eval()
    with seeded_layers(config.seed):
        autoencoder = ImageAutoencoder(config.autoencoder)
    data = config.data
    worlds = range(data.first_world, data.first_world + min(data.worlds, COMPONENT_WORLDS))
    views = spread_views(worlds, data, config.rate_hz, -(-COMPONENT_VIEWS // len(worlds)))
    assert isinstance(autoencoder.network, LappedTransform)
    autoencoder.network.start_from_components(views)
    autoencoder.fit_scaling_factor([views])
    return autoencoder.eval()


def digest_of(autoencoder: ImageAutoencoder) -> str:
    """Return a short name of an autoencoder's weights and scale."""
    digest = hashlib.sha256(repr(round(autoencoder.scaling_factor, 6)).encode())
    for tensor in autoencoder.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().round(4).tobytes())
    return digest.hexdigest()[:16]


def sequence_card(config: SequenceTrainSettings, model: SequenceModel) -> str:
    """Return Markdown that says what a sequence model is and what it learned from."""
    data, stage, network = config.data, config.optimiser, config.network
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    rows = {
        "memory": network.memory,
        "network": f"{network.depth} layers of width {network.hidden_size}, {parameters:,} parameters",
        "frames": f"{network.tokens} tokens each, sequences of {config.frames}",
        "worlds": f"{data.set_of_worlds}, seeds {data.first_world}-{data.first_world + data.worlds - 1}, "
        f"{data.walk_frames} frames each",
        "training": f"{stage.steps:,} steps of {stage.batch_size}, AdamW {stage.learning_rate:g}",
        "autoencoder": "principal components" if config.autoencoder_from is None else f"of {config.autoencoder_from}",
        "seed": str(config.seed),
    }
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
    made = f"A sequence model of come_nav, trained by `come-nav train --sequence {network.memory}`."
    return f"# {config.name}\n\n{made}\n\n{table}\n"
