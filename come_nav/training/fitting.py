"""One stage of a training run: from its newest checkpoint on, to its last step or until time is over."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
from torch.utils.data import DataLoader, IterableDataset

from come_nav.core.errors import StorageError
from come_nav.core.files import one_writer
from come_nav.training.callbacks import training_callbacks
from come_nav.training.checkpoints import load_weights, newest_checkpoint, steps_done
from come_nav.training.config import OptimiserSettings
from come_nav.training.machine import Machine, make_trainer
from come_nav.training.samples import SampleImages

TaskT = TypeVar("TaskT", bound=pl.LightningModule)
LEAST_LOSS = ("validation/loss", "min")
BUSY = "another training is writing it; wait, choose another --out, or say how many processes there are (--devices)"


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: its checkpoints lie in ``folder / name``.
        settings: of the optimiser.
        folder: of the run.
        machine: where it trains.
    """

    name: str
    settings: OptimiserSettings
    folder: Path
    machine: Machine

    def fit(
        self,
        task: TaskT,
        stream: Callable[[int], IterableDataset[Any]],
        validation: Any,
        monitor: tuple[str, str] = LEAST_LOSS,
        samples: SampleImages | None = None,
    ) -> TaskT | None:
        """Train from the newest checkpoint on; return the task with averaged weights, None when time ran out.

        Args:
            task: with the weights to begin with.
            stream: returns the batches from a step on.
            validation: batches.
            monitor: name of the metric that tells the best checkpoint, and "min" or "max".
            samples: draws images at every validation.
        """
        folder, machine, settings = self.folder / self.name, self.machine, self.settings
        newest = newest_checkpoint(folder)
        start = steps_done(newest)
        trained = task
        if start < settings.steps:
            trained = copy.deepcopy(task) if machine.sharded else task  # FSDP takes the module apart
            callbacks = training_callbacks(folder, settings, monitor, machine, samples)
            trainer = make_trainer(machine, settings, self.folder, self.name, callbacks, start)
            with self._alone() if trainer.is_global_zero else nullcontext():
                trainer.fit(
                    task,
                    DataLoader(stream(start), batch_size=None),
                    DataLoader(validation, batch_size=None),
                    ckpt_path=newest,
                    weights_only=True if start else None,
                )
            if trainer.global_step < settings.steps:
                return None
            newest = newest_checkpoint(folder)
        assert newest is not None
        load_weights(trained, newest)
        return trained

    def _alone(self) -> AbstractContextManager[None]:
        return one_writer(self.folder / ".lock", StorageError(f"{self.folder}: {BUSY}"))
