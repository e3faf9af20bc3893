"""A motion network's training run: endless drives, one stage, export. It resumes where it stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from come_nav.core.files import writable_folder
from come_nav.policies.model import parameter_count
from come_nav.policies.motion.model import LearnedMotion
from come_nav.policies.motion.network import MotionNetwork
from come_nav.sim.splits import VALIDATION_SEEDS
from come_nav.training.checkpoints import checkpoint_to_export, load_weights, newest_checkpoint, steps_done
from come_nav.training.data.bank import LatentBank
from come_nav.training.data.endless import DriveEncoder, EndlessWorlds
from come_nav.training.data.mixture import BankSource, MixtureStream
from come_nav.training.data.prefetch import Prefetched
from come_nav.training.data.sensing import DriveSenses
from come_nav.training.data.sim_bank import sim_banks
from come_nav.training.data.windows import WindowBatch
from come_nav.training.fitting import Stage
from come_nav.training.machine import Machine
from come_nav.training.motion.settings import MotionTrainSettings
from come_nav.training.motion.task import MotionTask
from come_nav.training.run_parts import pin_config, seeded_layers

STAGE = "mixture"  # no name of a model folder, which lies beside it
VALIDATION_BATCH, VALIDATION_BATCHES, VALIDATION_SEED = 64, 24, 1


class MotionRun:
    """A folder that one run lives in: config, checkpoints, logs and the exported model."""

    def __init__(self, config: MotionTrainSettings, folder: Path, machine: Machine) -> None:
        """Take what is trained and where; raise ConfigError where the folder holds another run."""
        self.config, self.folder, self.machine = config, writable_folder(folder), machine
        self.processes = machine.launch()
        with self.processes.first_alone():
            pin_config(config, self.folder)

    def finish(self) -> Path | None:
        """Train what is not done yet; return the exported model folder, or None when time ran out first."""
        task, stage = self._task(), self.config.optimiser
        trained = Stage(STAGE, stage, self.folder, self.machine).fit(task, self._stream, self._held_out())
        return None if trained is None else self._export(trained)

    def export_newest(self) -> Path:
        """Write the model folder of the newest checkpoint of a run that is not finished; train nothing.

        Raises:
            CheckpointError: there is no checkpoint yet.
        """
        newest = checkpoint_to_export(self.folder, STAGE)
        task = self._task()
        load_weights(task, newest)
        return self._export(task)

    def _task(self) -> MotionTask:
        with seeded_layers(self.config.seed):
            return MotionTask(MotionNetwork(self.config.network), self.config)

    def _stream(self, start: int) -> Prefetched:
        config, stage, device = self.config, self.config.optimiser, self.machine.device
        network, data = config.network, config.data
        encoder = DriveEncoder(network.image_size, no_latents, device, senses=self._senses())
        source = EndlessWorlds(data, network.frames, network.rate_hz, encoder, stage.batch_size, config.seed)
        share = self.processes.rank, self.processes.count
        mixture = MixtureStream([source], [1.0], stage.batch_size, config.seed, start, stage.steps, *share)
        return Prefetched(mixture, device=device)

    def _held_out(self) -> list[WindowBatch]:
        """Return windows of validation worlds, always the same ones."""
        network, data, machine = self.config.network, self.config.data, self.machine
        seeds = VALIDATION_SEEDS[: data.validation_worlds]
        sizes = (network.image_size, network.rate_hz)
        senses = replace(self._senses(), colour_spread=0.0)  # in the colours of the worlds, so that losses compare
        banks = sim_banks(seeds, data, *sizes, no_latents, machine.device, machine.progress, senses)
        source = BankSource(LatentBank.concatenate(list(banks)), data.sampling(network.frames))
        return list(MixtureStream([source], [1.0], VALIDATION_BATCH, VALIDATION_SEED, 0, VALIDATION_BATCHES))

    def _senses(self) -> DriveSenses:
        data = self.config.data
        return DriveSenses(rate_hz=self.config.network.rate_hz, sensors=data.sensors, colour_spread=data.colour_spread)

    def _export(self, task: MotionTask) -> Path:
        target = self.folder / self.config.name
        with self.processes.first_alone() as first:
            if first:
                model = LearnedMotion(task.network.cpu())
                steps = steps_done(newest_checkpoint(self.folder / STAGE)) or self.config.optimiser.steps
                model.save(target, motion_card(self.config, model, steps))
        return target


def no_latents(images: Tensor) -> Tensor:
    """Return empty latents (B, 1, 1, 1): a motion network looks at images."""
    return images.new_zeros(len(images), 1, 1, 1)


def motion_card(config: MotionTrainSettings, model: LearnedMotion, steps: int) -> str:
    """Return Markdown that says what a motion network is and what it learned from, in so many steps."""
    data, stage, settings = config.data, config.optimiser, model.settings
    cameras = "90 degrees wide, level" if data.cameras is None else "drawn for each drive"
    longest_s = settings.max_steps / settings.rate_hz
    rows = {
        "network": f"mixture density network, {parameter_count(model.network):,} parameters",
        "images": f"2 of {settings.image_size}x{settings.image_size} px, with depth where it is measured",
        "told": f"poses of {settings.frames} frames at {settings.rate_hz:g} Hz, and the camera",
        "answers": f"{settings.components} normal distributions, up to {longest_s:g} s ahead",
        "worlds": f"{', '.join(data.sets_of_worlds)}; seeds {data.first_world}-{data.first_world + data.worlds - 1}",
        "drives": f"{', '.join(data.drivers)}; {data.episode_s:g} s each",
        "cameras": cameras,
        "sensors": f"{data.sensors}; depth measured in {100 * data.measured_fraction:g} % of the drives",
        "training": f"{steps:,} steps of {stage.batch_size}, AdamW {stage.learning_rate:g}",
        "seed": str(config.seed),
    }
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
    made = (
        "A prior of motion of come_nav, trained by `come-nav train --motion`: where a robot that sees this, and moves\n"
        "so, will be. It knows how the simulator's drivers drive, and no goal; `motion_prior.network` names it."
    )
    return f"# {config.name}\n\n{made}\n\n{table}\n"
