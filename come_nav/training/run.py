"""The training run: autoencoder, latent bank, denoiser, export. Every stage resumes where it stopped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import IterableDataset

from come_nav.core.files import atomic_path, writable_folder
from come_nav.experts.base import BaseExpert
from come_nav.sim.splits import VALIDATION_SEEDS
from come_nav.training.card import model_card
from come_nav.training.checkpoints import checkpoint_to_export, load_weights, newest_checkpoint, steps_done
from come_nav.training.config import TrainSettings
from come_nav.training.data.bank import LatentBank
from come_nav.training.data.frames import FrameStream
from come_nav.training.data.sources import TrainingData
from come_nav.training.data.windows import Encode
from come_nav.training.fitting import Stage
from come_nav.training.machine import Machine
from come_nav.training.pretrained import given_autoencoder
from come_nav.training.run_parts import (
    check_fine_tuning,
    load_autoencoder,
    new_estimator,
    new_expert,
    pin_config,
    pin_init,
    seeded_layers,
)
from come_nav.training.samples import SampleImages
from come_nav.training.tasks.autoencoder import AutoencoderTask
from come_nav.training.tasks.denoiser import DenoiserTask, LossWeighting
from come_nav.training.tasks.depth import DepthTask
from come_nav.training.tasks.views import DepthStream, ViewMaker, focal_ratios
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder
from come_nav.world_model.depth import DepthEstimator
from come_nav.world_model.images import ImageSettings
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.sampling.schedule import NoiseSchedule

VALIDATION_BATCHES = 8
COMPONENT_VIEWS = 512  # views whose principal components start a lapped autoencoder

TaskT = TypeVar("TaskT", bound=pl.LightningModule)


class Run:
    """A folder that one training run lives in: config, checkpoints, logs, the latent bank and the exported model."""

    def __init__(self, config: TrainSettings, folder: Path, machine: Machine, init: DiffusionWorldModel | None = None):
        self.config, self.folder, self.machine, self.init = config, writable_folder(folder), machine, init
        self.processes = machine.launch()
        if init is not None:
            check_fine_tuning(config, init)
        with self.processes.first_alone():
            pin_config(self.config, self.folder)
            pin_init([] if init is None else [init.autoencoder, init.depth, init.base.model], self.folder)

    def finish(self) -> Path | None:
        """Run whatever is not done yet; return the exported model folder, or None when time ran out first."""
        autoencoder = self.train_autoencoder()
        if autoencoder is None:
            return None
        depth = None
        if self.config.depth_model is not None:
            depth = self.train_depth(autoencoder)
            if depth is None:
                return None
        expert = self.train_denoiser(autoencoder, depth)
        return None if expert is None else self.export(autoencoder, depth, expert)

    def export_newest(self) -> Path:
        """Write the model folder of the newest checkpoint of a denoiser that is still being trained; train nothing.

        Raises:
            CheckpointError: the denoiser has no checkpoint yet.
        """
        newest = checkpoint_to_export(self.folder, "denoiser")
        autoencoder = self.train_autoencoder()  # both stages are finished, or the denoiser had not begun
        depth = self.train_depth(autoencoder) if autoencoder is not None and self.config.depth_model else None
        assert autoencoder is not None
        task = self._task(autoencoder, depth)
        load_weights(task, newest)
        return self.export(autoencoder, depth, task.expert)

    # -- stages ------------------------------------------------------------------------------------------------------

    def train_autoencoder(self) -> ImageAutoencoder | None:
        """Return the trained autoencoder, or None when time ran out; fine-tuning keeps the initial one."""
        if self.init is not None:
            return self.init.autoencoder
        if self.config.autoencoder_from is not None:
            with self.processes.first_alone():
                return given_autoencoder(self.config)
        done = self.folder / "autoencoder.safetensors"
        with seeded_layers(self.config.seed):
            autoencoder = ImageAutoencoder(self.config.autoencoder_model)
        if done.exists():
            return load_autoencoder(autoencoder, done)
        stage, machine = self.config.autoencoder, self.machine
        autoencoder.set_scaling_factor(1.0)  # fitted once it is trained
        task = AutoencoderTask(autoencoder, stage, self.config.kl_weight, self.config.seed)
        training_seeds = self._training_seeds()

        def frames(seeds: Iterable[int], seed: int, start: int, stop: int) -> FrameStream:
            return self._frames(seeds, stage.batch_size, seed, range(start, stop))

        if self.config.autoencoder_model.kind == "lapped" and not newest_checkpoint(self.folder / "autoencoder"):
            first_views = self._frames(training_seeds, COMPONENT_VIEWS, self.config.seed + 2, range(1), shared=False)
            autoencoder.lapped.start_from_components(next(iter(first_views)).cpu())  # type: ignore[union-attr]
        trained = Stage("autoencoder", stage, self.folder, machine).fit(
            task,
            lambda start: frames(training_seeds, self.config.seed, start, stage.steps),
            frames(VALIDATION_SEEDS[: self.config.data.validation_worlds], 1, 0, VALIDATION_BATCHES),
            ("validation/psnr_db", "max"),
            SampleImages(self.folder / "samples" / "autoencoder"),
        )
        if trained is None:
            return None
        with self.processes.first_alone() as first:
            if first:
                autoencoder = trained.autoencoder.eval().to(machine.device)
                batches: Iterable[Any] = self._frames(
                    training_seeds, stage.batch_size, self.config.seed + 1, range(16), shared=False
                )
                autoencoder.fit_scaling_factor(images.to(machine.device) for images in batches)
                facts = {"scaling_factor": repr(autoencoder.scaling_factor)}
                with atomic_path(done) as temporary:
                    save_file(autoencoder.cpu().state_dict(), temporary, facts)
        return load_autoencoder(trained.autoencoder.cpu(), done)

    def train_depth(self, autoencoder: ImageAutoencoder) -> DepthEstimator | None:
        """Return the trained depth estimator, or None when time ran out.

        Fine-tuning keeps the initial model's, or tunes it on recordings that hold measured depth.
        """
        config, stage = self.config, self.config.depth
        done = self.folder / "depth.safetensors"
        estimator = new_estimator(config, self.init)
        if config.depth_from is not None:
            return estimator
        if done.exists():
            estimator.load_state_dict(load_file(done))
            return estimator
        measured = self._measured_depth(autoencoder) if self.init is not None else None
        if self.init is not None and measured is None:
            return estimator

        def stream(start: int) -> IterableDataset[Any]:
            if measured is not None:
                ratios = focal_ratios(measured, self._images())
                told = estimator.settings.canonical_focal > 0.0
                return DepthStream(measured, stage.batch_size, config.seed, range(start, stage.steps), ratios, told)
            steps = range(start, stage.steps)
            return self._frames(self._training_seeds(), stage.batch_size, config.seed + 3, steps, with_depth=True)

        seeds = VALIDATION_SEEDS[: config.data.validation_worlds]
        held_out = self._frames(seeds, stage.batch_size, 1, range(VALIDATION_BATCHES), with_depth=True)
        task = DepthTask(estimator.train(), stage, config.seed)
        trained = Stage("depth", stage, self.folder, self.machine).fit(task, stream, held_out)
        if trained is None:
            return None
        estimator = trained.estimator.eval().cpu()
        with self.processes.first_alone() as first:
            if first:
                with atomic_path(done) as temporary:
                    save_file(estimator.state_dict(), temporary)
        return estimator

    def train_denoiser(self, autoencoder: ImageAutoencoder, depth: DepthEstimator | None) -> BaseExpert | None:
        """Return the trained expert with averaged weights, or None when time ran out."""
        config, data = self.config, self.data(autoencoder, depth)
        task = self._task(autoencoder, depth)
        stage = config.denoiser
        held_out = data.held_out(VALIDATION_BATCHES)
        share = self.processes.rank, self.processes.count
        trained = Stage("denoiser", stage, self.folder, self.machine).fit(
            task,
            lambda start: data.stream(stage.batch_size, start, stage.steps, *share),
            held_out,
            samples=SampleImages(self.folder / "samples" / "denoiser", autoencoder, config.sampler),
        )
        return None if trained is None else trained.expert

    def data(self, autoencoder: ImageAutoencoder, depth: DepthEstimator | None) -> TrainingData:
        """Return the windows to learn from; their banks are made once and kept, unless built-in worlds are endless."""
        alone = self.processes.first_alone
        return TrainingData(
            self.config,
            self.folder,
            self.machine.device,
            autoencoder,
            depth,
            self._images(),
            first_alone=alone,
            progress=self.machine.progress,
        )

    def export(self, autoencoder: ImageAutoencoder, depth: DepthEstimator | None, expert: BaseExpert) -> Path:
        """Write the model folder that every other verb loads."""
        trained = expert.cpu().eval()
        # Tuned on views of a memory, it looks at memories from now on, and the base stays as it was; a network that
        # takes them apart is base and expert of memories in one.
        apart = self.config.denoiser_model.view_groups > 0
        base = self.init.base if self.init is not None and self.config.data.memory_s and not apart else trained
        model = DiffusionWorldModel(
            autoencoder.cpu().eval(),
            {"base": base},
            NoiseSchedule.linear(),
            self.config.sampler,
            rate_hz=self.config.rate_hz,
            images=self._images(),
            memory_expert=None if base is trained else trained,
            depth=None if depth is None else depth.cpu().eval(),
            reprojection=self.config.reprojection,
        )
        if self.init is not None:  # what was tuned to the initial model holds for the tuned one until shown otherwise
            model.tuned = dict(self.init.tuned)
        target = self.folder / self.config.name
        with self.processes.first_alone() as first:
            if first:
                card = model_card(
                    as_trained(self.config, self.folder), model, self.machine.device, self.init is not None
                )
                model.save(target, card)
        return target

    # -- parts -------------------------------------------------------------------------------------------------------

    def _task(self, autoencoder: ImageAutoencoder, depth: DepthEstimator | None) -> DenoiserTask:
        """Return the denoiser's task with untrained weights, or the initial model's."""
        config, schedule, views = self.config, NoiseSchedule.linear(), None
        if depth is not None:
            views = ViewMaker(self._encode(autoencoder), config.reprojection, self._images(), config.rate_hz)
        return DenoiserTask(
            new_expert(config, self.init, schedule),
            schedule,
            config.denoiser,
            config.context_dropout,
            config.seed,
            views,
            LossWeighting(config.weighting, config.noise_shift),
            config.data.memory_fraction if config.data.memory_s else 0.0,
            config.input_dropout,
        )

    def _measured_depth(self, autoencoder: ImageAutoencoder) -> LatentBank | None:
        """Return the frames of all recordings with measured depth, or None where no recording has any."""
        data = self.data(autoencoder, None)
        banks = [data.recording_bank(path, estimated_depth=False) for path in self.config.data.recordings]
        banks = [bank for bank in banks if bank.depth_m is not None and bool(torch.isfinite(bank.depth_m).any())]
        return LatentBank.concatenate(banks) if banks else None

    def _encode(self, autoencoder: ImageAutoencoder) -> Encode:
        autoencoder = autoencoder.eval().to(self.machine.device)

        @torch.no_grad()
        def encode(images: torch.Tensor) -> torch.Tensor:
            return autoencoder.encode(images.to(self.machine.device))

        return encode

    def _images(self) -> ImageSettings:
        if self.init is not None:
            return self.init.images
        return ImageSettings() if self.config.data.cameras is None else ImageSettings(horizontal_fov_deg=0.0)

    def _training_seeds(self) -> range:
        first = self.config.data.first_world
        return range(first, first + self.config.data.worlds)

    def _frames(
        self,
        seeds: Iterable[int],
        batch_size: int,
        seed: int,
        steps: range,
        with_depth: bool = False,
        shared: bool = True,
    ) -> FrameStream:
        """Return fresh views: the share of this process, or all where every process needs the same."""
        size, device = self.config.image_size, self.machine.device
        rank, count = (self.processes.rank, self.processes.count) if shared else (0, 1)
        data, progress = self.config.data, self.machine.progress
        some = list(seeds)[: data.view_worlds or None]
        varied = (data.cameras, data.sensors, data.sets_of_worlds)
        return FrameStream(some, size, batch_size, seed, steps, device, rank, count, with_depth, progress, *varied)


def as_trained(config: TrainSettings, folder: Path) -> TrainSettings:
    """Return a run's configuration with as many steps of the denoiser as there were; runs are exported on their way."""
    steps = steps_done(newest_checkpoint(folder / "denoiser"))
    return replace(config, denoiser=replace(config.denoiser, steps=steps)) if steps else config
