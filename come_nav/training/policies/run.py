"""A policy's training run: frames, one stage, export. It resumes where it stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from come_nav.core.errors import ConfigError
from come_nav.core.files import writable_folder
from come_nav.policies.model import LearnedPolicy, make_network, parameter_count
from come_nav.policies.settings import PolicySettings
from come_nav.sim.splits import VALIDATION_SEEDS
from come_nav.training.checkpoints import checkpoint_to_export, load_weights
from come_nav.training.data.prefetch import Prefetched
from come_nav.training.fitting import Stage
from come_nav.training.machine import Machine
from come_nav.training.policies.frames import FrameBank, kept, recording_frames, world_frames
from come_nav.training.policies.samples import PolicySamples
from come_nav.training.policies.settings import PolicyTrainSettings
from come_nav.training.policies.task import PolicyTask
from come_nav.training.run_parts import pin_config, pin_init, seeded_layers

STAGE = "policy"
VALIDATION_CONTEXTS, VALIDATION_SEED = 256, 1
HELD_OUT = 0.1  # of recordings, to validate on, where nothing else is learned from


class PolicyRun:
    """A folder that one run lives in: config, frames, checkpoints, logs and the exported model."""

    def __init__(
        self, config: PolicyTrainSettings, folder: Path, machine: Machine, init: LearnedPolicy | None = None
    ) -> None:
        """Take what is trained and where; weights begin as those of ``init``, drawn where None.

        Raises:
            ConfigError: ``init`` is of another shape, or the folder holds another run.
        """
        check_same_shape(config.policy, init)
        self._init = init
        self.config, self.folder, self.machine = config, writable_folder(folder), machine
        self.processes = machine.launch()
        with self.processes.first_alone():
            pin_config(config, self.folder)
            pin_init([] if init is None else [init.network], self.folder)

    def finish(self) -> Path | None:
        """Train what is not done yet; return the exported model folder, or None when time ran out first."""
        with self.processes.first_alone():
            banks = self._training_banks()
            held_out = self._held_out_banks(banks)
        task, stage = self._task(), self.config.optimiser
        trained = Stage(STAGE, stage, self.folder, self.machine).fit(
            task,
            lambda start: Prefetched(self._samples(banks, range(start, stage.steps))),
            self._validation(held_out),
        )
        return None if trained is None else self._export(trained, banks)

    def export_newest(self) -> Path:
        """Write the model folder of the newest checkpoint of a run that is not finished; train nothing.

        Raises:
            CheckpointError: there is no checkpoint yet.
        """
        newest = checkpoint_to_export(self.folder, STAGE)
        task = self._task()
        load_weights(task, newest)
        return self._export(task, self._training_banks())

    def _task(self) -> PolicyTask:
        with seeded_layers(self.config.seed):
            network = make_network(self.config.policy)
            if self._init is not None:
                network.load_state_dict(self._init.network.state_dict())
            return PolicyTask(network, self.config)

    def _training_banks(self) -> list[FrameBank]:
        config = self.config
        data = config.data
        banks = [self._recording(number, data.recording_use, "train") for number in range(len(data.recordings))]
        if data.worlds:
            seeds = range(data.first_world, data.first_world + data.worlds)
            banks.insert(0, self._worlds("worlds", seeds))
        return banks

    def _held_out_banks(self, banks: list[FrameBank]) -> list[FrameBank]:
        """Return validation worlds, or the ends of the recordings where nothing else is learned from.

        ``banks`` are those that are learned from; validation worlds count in the same spacing.
        """
        data = self.config.data
        if data.worlds:
            spacing_m = float(banks[0].spacing_m[0])
            seeds = VALIDATION_SEEDS[: data.validation_worlds]
            return [self._worlds("validation", seeds).with_spacing(spacing_m)]
        spacings = [float(bank.spacing_m[0]) for bank in banks]  # the unit that is learned
        ends = (self._recording(number, data.recording_use, "validation", own) for number, own in enumerate(spacings))
        return [bank.with_spacing(own) for bank, own in zip(ends, spacings, strict=True)]  # one kept from before too

    def _worlds(self, name: str, seeds: range) -> FrameBank:
        config, machine = self.config, self.machine
        bank = kept(
            self.folder / "frames" / f"{name}.safetensors",
            lambda: world_frames(seeds, config.data, config.policy, machine.device, machine.progress),
        )
        return bank if config.spacing_m is None else bank.with_spacing(config.spacing_m)

    def _recording(self, number: int, use: tuple[float, float], part: str, spacing_m: float | None = None) -> FrameBank:
        data, policy = self.config.data, self.config.policy
        low, high = use
        split = high if data.worlds else high - HELD_OUT * (high - low)
        own = (low, split) if part == "train" else (split, high)
        spacing = data.recording_spacing_m[number] if data.recording_spacing_m else spacing_m
        path = data.recordings[number]
        return kept(
            self.folder / "frames" / f"recording{number}_{part}.safetensors",
            lambda: recording_frames(path, own, data, policy, spacing, self.machine.progress),
        )

    def _weights(self, banks: list[FrameBank]) -> list[float]:
        data = self.config.data
        sizes = [float(len(bank)) for bank in banks]
        if not data.worlds or not data.recordings or len(banks) != 1 + len(data.recordings):
            return sizes
        share = data.recording_fraction / sum(sizes[1:])
        return [1.0 - data.recording_fraction, *(share * size for size in sizes[1:])]

    def _samples(self, banks: list[FrameBank], steps: range) -> PolicySamples:
        config, processes = self.config, self.processes
        share = processes.rank, processes.count
        size, negatives = config.optimiser.batch_size, config.negatives
        goals = config.goals_per_context
        return PolicySamples(
            banks, self._weights(banks), config.policy, size, config.seed, steps, negatives, share, goals
        )

    def _validation(self, banks: list[FrameBank]) -> PolicySamples:
        config = self.config
        size, weights = min(64, config.optimiser.batch_size), self._weights(banks)
        steps = range(-(-VALIDATION_CONTEXTS // size))
        return PolicySamples(banks, weights, config.policy, size, VALIDATION_SEED, steps, config.negatives)

    def _export(self, task: PolicyTask, banks: list[FrameBank]) -> Path:
        config = self.config
        sizes = [len(bank) for bank in banks]
        measured = sum(float(bank.spacing_m[0]) * size for bank, size in zip(banks, sizes, strict=True)) / sum(sizes)
        spacing = float(banks[0].spacing_m[0]) if config.data.worlds else measured
        network = task.network.cpu().eval()
        network.settings = replace(config.policy, spacing_m=round(spacing, 6))
        target = self.folder / config.name
        with self.processes.first_alone() as first:
            if first:
                policy = LearnedPolicy(network, config.name)
                begun = "nothing" if self._init is None else self._init.name
                policy.save(target, policy_card(config, policy, sum(sizes), begun), torch.float16)
        return target


def check_same_shape(settings: PolicySettings, init: LearnedPolicy | None) -> None:
    """Raise ConfigError naming what differs between the network to train and the one that it is to begin as."""
    if init is None:
        return
    for name, wanted in vars(settings).items():
        found = getattr(init.settings, name)
        if name not in ("spacing_m", "max_distance", "rate_hz") and found != wanted:
            raise ConfigError(f"policy.{name} must be {found} as in --init '{init.name}', got {wanted}")


def policy_card(config: PolicyTrainSettings, policy: LearnedPolicy, frames: int, started_from: str = "nothing") -> str:
    """Return Markdown that says what a policy is and what it learned from."""
    data, stage, settings = config.data, config.optimiser, policy.settings
    worlds = f"seeds {data.first_world}-{data.first_world + data.worlds - 1}, {data.episode_s:g} s each"
    rows = {
        "network": f"{settings.kind}, {parameter_count(policy.network):,} parameters",
        "images": f"{settings.frames} of {settings.image_width}x{settings.image_height} px at {settings.rate_hz:g} Hz",
        "waypoints": f"{settings.waypoints}, a spacing is {settings.spacing_m:g} m",
        "built-in worlds": worlds if data.worlds else "none",
        "recordings": ", ".join(data.recordings) or "none",
        "frames": f"{frames:,}",
        "training": f"{stage.steps:,} steps of {stage.batch_size}, AdamW {stage.learning_rate:g}",
        "started from": started_from,
        "seed": str(config.seed),
    }
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
    made = f"A policy of come_nav, trained by `come-nav train --policy {settings.kind}`."
    return f"# {config.name}\n\n{made}\n\n{table}\n"
