"""The training run: autoencoder, latent bank, denoiser, export. Every stage resumes where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from numpy.typing import NDArray
from pytorch_lightning.loggers import CSVLogger
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, IterableDataset

from come_nav.core.errors import CheckpointError, ConfigError
from come_nav.core.files import atomic_path, atomic_write_text, writable_folder
from come_nav.core.settings import to_mapping
from come_nav.experts.base import BaseExpert
from come_nav.experts.cdit import CDiT
from come_nav.experts.normalizer import Normalizer
from come_nav.sim.splits import VALIDATION_SEEDS
from come_nav.training.autoencoder_task import AutoencoderTask
from come_nav.training.bank import Encode, LatentBank, Sampling, WindowStream, step_generator
from come_nav.training.callbacks import LAST, SliceTimer, training_callbacks
from come_nav.training.card import model_card
from come_nav.training.config import DataConfig, OptimiserConfig, TrainConfig
from come_nav.training.denoiser_task import DenoiserTask
from come_nav.training.depth_task import DepthTask
from come_nav.training.sim_bank import FrameStream, sim_bank
from come_nav.training.views import DepthStream, ViewMaker, with_estimated_depth
from come_nav.world_model.autoencoder import ImageAutoencoder
from come_nav.world_model.depth import DepthEstimator
from come_nav.world_model.images import ImageSettings
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.schedule import NoiseSchedule

VALIDATION_BATCHES = 8
COMPONENT_VIEWS = 512  # views whose principal components start a lapped autoencoder


@dataclass(frozen=True)
class Machine:
    """Where a run trains; the names are Lightning's.

    Attributes:
        accelerator, devices, num_nodes, strategy, precision: as for ``pytorch_lightning.Trainer``.
        max_minutes: stop and save after this time; the same command goes on from there. None = until done.
        progress: show progress bars.
    """

    accelerator: str = "auto"
    devices: int | str = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    max_minutes: float | None = None
    progress: bool = True

    @property
    def device(self) -> str:
        """Torch device on which data are rendered and encoded."""
        use_cuda = self.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        return "cuda" if use_cuda else "cpu"

    def lightning_precision(self) -> Any:
        """Resolve "auto": bf16 where the hardware multiplies it fast, float32 elsewhere."""
        if self.precision != "auto":
            return self.precision
        amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
        return "bf16-mixed" if self.device == "cuda" or amx else "32-true"


class Run:
    """A folder that one training run lives in: config, checkpoints, logs, the latent bank and the exported model."""

    def __init__(self, config: TrainConfig, folder: Path, machine: Machine, init: DiffusionWorldModel | None = None):
        self.config, self.folder, self.machine, self.init = config, writable_folder(folder), machine, init
        self._pin_config()

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

    # -- stages ------------------------------------------------------------------------------------------------------

    def train_autoencoder(self) -> ImageAutoencoder | None:
        """Return the trained autoencoder, or None when time ran out; fine-tuning keeps the initial one."""
        if self.init is not None:
            return self.init.autoencoder
        done = self.folder / "autoencoder.safetensors"
        with seeded_layers(self.config.seed):
            autoencoder = ImageAutoencoder(self.config.autoencoder_model)
        if done.exists():
            return self._load_autoencoder(autoencoder, done)
        stage, machine = self.config.autoencoder, self.machine
        task = AutoencoderTask(autoencoder, stage, self.config.kl_weight, self.config.seed)
        training_seeds = self._training_seeds()

        def frames(seeds: Iterable[int], seed: int, start: int, stop: int) -> FrameStream:
            return self._frames(seeds, stage.batch_size, seed, range(start, stop))

        if self.config.autoencoder_model.kind == "lapped" and not (self.folder / "autoencoder" / LAST).exists():
            first_views = self._frames(training_seeds, COMPONENT_VIEWS, self.config.seed + 2, range(1))
            autoencoder.lapped.start_from_components(next(iter(first_views)).cpu())  # type: ignore[union-attr]
        finished = self._fit(
            task,
            "autoencoder",
            stage,
            lambda start: frames(training_seeds, self.config.seed, start, stage.steps),
            frames(VALIDATION_SEEDS[: self.config.data.validation_worlds], 1, 0, VALIDATION_BATCHES),
            ("validation/psnr_db", "max"),
        )
        if not finished:
            return None
        autoencoder.eval().to(machine.device)
        batches = frames(training_seeds, self.config.seed + 1, 0, 16)
        autoencoder.fit_scaling_factor(images.to(machine.device) for images in batches)
        with atomic_path(done) as temporary:
            save_file(autoencoder.cpu().state_dict(), temporary, {"scaling_factor": repr(autoencoder.scaling_factor)})
        return autoencoder

    def train_depth(self, autoencoder: ImageAutoencoder) -> DepthEstimator | None:
        """Return the trained depth estimator, or None when time ran out.

        Fine-tuning keeps the initial model's, or tunes it on recordings that hold measured depth.
        """
        config, stage = self.config, self.config.depth
        done = self.folder / "depth.safetensors"
        with seeded_layers(config.seed):
            estimator = DepthEstimator(config.depth_model)
        if self.init is not None and self.init.depth is not None:
            estimator = self.init.depth
        if done.exists():
            estimator.load_state_dict(load_file(done))
            return estimator
        measured = self._measured_depth(autoencoder) if self.init is not None else None
        if self.init is not None and measured is None:
            return estimator

        def stream(start: int) -> IterableDataset[Any]:
            if measured is not None:
                return DepthStream(measured, stage.batch_size, config.seed, range(start, stage.steps))
            steps = range(start, stage.steps)
            return self._frames(self._training_seeds(), stage.batch_size, config.seed + 3, steps, with_depth=True)

        seeds = VALIDATION_SEEDS[: config.data.validation_worlds]
        held_out = self._frames(seeds, stage.batch_size, 1, range(VALIDATION_BATCHES), with_depth=True)
        task = DepthTask(estimator.train(), stage, config.seed)
        if not self._fit(task, "depth", stage, stream, held_out, ("validation/loss", "min")):
            return None
        with atomic_path(done) as temporary:
            save_file(estimator.eval().cpu().state_dict(), temporary)
        return estimator

    def train_denoiser(self, autoencoder: ImageAutoencoder, depth: DepthEstimator | None) -> BaseExpert | None:
        """Return the trained expert with averaged weights, or None when time ran out."""
        config, schedule = self.config, NoiseSchedule.linear()
        expert = self._new_expert(schedule)
        training, validation = self.banks(autoencoder, depth)
        views = None
        if depth is not None:
            views = ViewMaker(self._encode(autoencoder), config.reprojection, self._images())
        task = DenoiserTask(expert, schedule, config.denoiser, config.context_dropout, config.seed, views)
        sampling = Sampling(
            config.context_frames,
            config.data.goals_per_context,
            config.data.max_offset_frames,
            config.data.branch_fraction if config.data.worlds else 0.0,
        )
        stage = config.denoiser
        held_out = [validation.sample(sampling, 64, step_generator(1, 0, index)) for index in range(VALIDATION_BATCHES)]
        finished = self._fit(
            task,
            "denoiser",
            stage,
            lambda start: WindowStream(training, sampling, stage.batch_size, config.seed, start, stage.steps),
            held_out,
            ("validation/loss", "min"),
        )
        return expert if finished else None

    def banks(self, autoencoder: ImageAutoencoder, depth: DepthEstimator | None) -> tuple[LatentBank, LatentBank]:
        """Return the training and validation banks, made once and kept in the run folder."""
        config, device = self.config, self.machine.device
        data = replace(config.data, keep_images=config.data.keep_images or depth is not None)
        encode = self._encode(autoencoder)

        def finished(bank: LatentBank) -> LatentBank:
            return bank if depth is None else with_estimated_depth(bank, depth, device)

        def make(seeds: Iterable[int]) -> LatentBank:
            return finished(sim_bank(list(seeds), data, config.image_size, config.rate_hz, encode, device))

        training = [] if data.worlds == 0 else [self._bank("bank", lambda: make(self._training_seeds()))]
        training += [
            self._bank(f"bank_recording_{index}", lambda path=path: finished(self._recording_bank(path, data, encode)))
            for index, path in enumerate(data.recordings)
        ]
        validation = self._bank("bank_validation", lambda: make(VALIDATION_SEEDS[: data.validation_worlds]))
        return LatentBank.concatenate(training), validation

    def export(self, autoencoder: ImageAutoencoder, depth: DepthEstimator | None, expert: BaseExpert) -> Path:
        """Write the model folder that every other verb loads."""
        model = DiffusionWorldModel(
            autoencoder.cpu().eval(),
            {"base": expert.cpu().eval()},
            NoiseSchedule.linear(),
            self.config.sampler,
            rate_hz=self.config.rate_hz,
            images=self._images(),
            depth=None if depth is None else depth.cpu().eval(),
            reprojection=self.config.reprojection,
        )
        target = self.folder / self.config.name
        model.save(target, model_card(self.config, model, self.machine.device, self.init is not None))
        return target

    # -- parts -------------------------------------------------------------------------------------------------------

    def _fit(
        self,
        task: pl.LightningModule,
        name: str,
        stage: OptimiserConfig,
        stream: Callable[[int], IterableDataset[Any]],
        validation: Any,
        monitor: tuple[str, str],
    ) -> bool:
        """Train one stage from its last checkpoint on; return whether all its steps are done."""
        folder = self.folder / name
        last = folder / LAST
        start = _steps_done(last)
        callbacks = training_callbacks(folder, stage, *monitor, self.machine.progress)
        if self.machine.max_minutes is not None:
            callbacks.append(SliceTimer(duration=timedelta(minutes=self.machine.max_minutes)))
        trainer = pl.Trainer(
            accelerator=self.machine.accelerator,
            devices=self.machine.devices,
            num_nodes=self.machine.num_nodes,
            strategy=self.machine.strategy,
            precision=self.machine.lightning_precision(),
            max_steps=stage.steps,
            gradient_clip_val=stage.clip_norm,
            log_every_n_steps=stage.log_every,
            val_check_interval=stage.validate_every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            logger=CSVLogger(self.folder / "logs", name=name),
            callbacks=callbacks,
            enable_model_summary=False,
            enable_progress_bar=self.machine.progress,
        )
        trainer.fit(
            task,
            DataLoader(stream(start), batch_size=None),
            DataLoader(validation, batch_size=None),
            ckpt_path=last if start else None,
            weights_only=True if start else None,
        )
        return trainer.global_step >= stage.steps

    def _new_expert(self, schedule: NoiseSchedule) -> BaseExpert:
        """Return the expert to train: the initial model's, or a new one whose weights depend only on the seed."""
        if self.init is not None:
            expert = self.init.experts["base"]
            if not isinstance(expert, BaseExpert):
                raise CheckpointError("the initial model has no base expert to fine-tune")
            return expert.train()
        with seeded_layers(self.config.seed):
            network = CDiT.from_settings(self.config.denoiser_model)
        normalizer = Normalizer(kind="scale", scale_m=self.config.scale_m)
        return BaseExpert(network, normalizer, schedule, self.config.prediction)

    def _bank(self, name: str, make: Callable[[], LatentBank]) -> LatentBank:
        path = self.folder / f"{name}.safetensors"
        if path.exists():
            return LatentBank.load(path)
        bank = make()
        bank.save(path)
        return bank

    def _recording_bank(self, path: str, data: DataConfig, encode: Encode) -> LatentBank:
        from come_nav.data import open_recording
        from come_nav.training.recording_bank import recording_bank
        from come_nav.world_model.images import images_from_rgb

        aspect = self._images().aspect

        def prepare(images: list[NDArray[np.uint8]]) -> torch.Tensor:
            return images_from_rgb(images, self.config.image_size, aspect)

        return recording_bank(
            open_recording(path, rate_hz=self.config.rate_hz),
            data.recording_use,
            data.branches if data.worlds else 0,
            prepare,
            encode,
            aspect=aspect,
            keep_images=data.keep_images,
            keep_depth=data.keep_depth,
        )

    def _measured_depth(self, autoencoder: ImageAutoencoder) -> LatentBank | None:
        """Return the frames of all recordings with measured depth, or None where no recording has any."""
        data = replace(self.config.data, keep_images=True, keep_depth=True)
        encode = self._encode(autoencoder)
        banks = [self._recording_bank(path, data, encode) for path in data.recordings]
        banks = [bank for bank in banks if bank.depth_m is not None and bool(torch.isfinite(bank.depth_m).any())]
        return LatentBank.concatenate(banks) if banks else None

    def _encode(self, autoencoder: ImageAutoencoder) -> Encode:
        autoencoder = autoencoder.eval().to(self.machine.device)

        @torch.no_grad()
        def encode(images: torch.Tensor) -> torch.Tensor:
            return autoencoder.encode(images.to(self.machine.device))

        return encode

    def _images(self) -> ImageSettings:
        return ImageSettings() if self.init is None else self.init.images

    def _training_seeds(self) -> range:
        first = self.config.data.first_world
        return range(first, first + self.config.data.worlds)

    def _frames(
        self, seeds: Iterable[int], batch_size: int, seed: int, steps: range, with_depth: bool = False
    ) -> FrameStream:
        size, device = self.config.image_size, self.machine.device
        return FrameStream(list(seeds), size, batch_size, seed, steps, device, with_depth=with_depth)

    def _load_autoencoder(self, autoencoder: ImageAutoencoder, path: Path) -> ImageAutoencoder:
        with safe_open(path, framework="pt") as handle:
            scaling = float(handle.metadata()["scaling_factor"])
        autoencoder.load_state_dict(load_file(path))
        autoencoder.set_scaling_factor(scaling)
        return autoencoder

    def _pin_config(self) -> None:
        """Write the config into the run folder; a folder that holds another config is refused, not mixed."""
        path = self.folder / "config.yaml"
        text = yaml.safe_dump(to_mapping(self.config), sort_keys=False)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise ConfigError(
                f"{self.folder}: holds a run with another configuration (see its config.yaml); "
                "choose another --out, or remove the folder to start again"
            )
        atomic_write_text(path, text)


@contextmanager
def seeded_layers(seed: int) -> Iterator[None]:
    """Make new layers depend only on ``seed``: torch initialises them from its default generator, restored after."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _steps_done(checkpoint: Path) -> int:
    """Return the optimiser steps in a Lightning checkpoint, 0 where there is none."""
    if not checkpoint.exists():
        return 0
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        return int(state["global_step"])
    except Exception as error:
        raise CheckpointError(
            f"{checkpoint}: cannot be resumed from ({str(error).splitlines()[0]}); delete it to restart this stage"
        ) from error
