"""Callbacks of every stage: averaging, progress on stderr, orderly stops, a stop at a loss that is not finite."""

from __future__ import annotations

import math
import signal
import sys
import threading
from contextlib import redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, Timer, TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from pytorch_lightning.callbacks.weight_averaging import WeightAveraging
from torch import Tensor

from come_nav.core.errors import ComeNavError
from come_nav.training.checkpoints import BEST, CheckpointRotation
from come_nav.training.config import OptimiserSettings
from come_nav.training.machine import Machine


class StderrProgressBar(TQDMProgressBar):
    """Lightning's progress bar on stderr: stdout is for results."""

    def init_train_tqdm(self) -> Tqdm:
        """Return the training bar."""
        with redirect_stdout(sys.stderr):  # a bar writes to the stream that it was made with
            return super().init_train_tqdm()

    def init_validation_tqdm(self) -> Tqdm:
        """Return the validation bar."""
        with redirect_stdout(sys.stderr):  # a bar writes to the stream that it was made with
            return super().init_validation_tqdm()


class StopOnSignal(Callback):
    """Ctrl-C and SIGTERM end training after the current step, with its state saved; a second one ends it at once.

    Several processes agree on it at the next logging step: none waits for another that has left.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the two signals; only a main thread may."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._ask)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop when asked to."""
        if trainer.world_size == 1:
            trainer.should_stop = trainer.should_stop or self.asked
        elif trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            trainer.should_stop = trainer.strategy.reduce_boolean_decision(trainer.should_stop or self.asked, all=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back, before Lightning gives back its own."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self.on_train_end(trainer, pl_module)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


class SliceTimer(Timer):
    """Lightning's time limit, counted anew in every slice of a run: what earlier slices took is not restored."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing to restore."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start from zero."""


class StopOnNonFiniteLoss(Callback):
    """End the run with one clear line when the loss is NaN or infinite; checkpoints stay as they were."""

    def on_train_batch_end(  # the check waits for the device only every log interval
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the loss of all processes at every logging step."""
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        finite = not isinstance(loss, torch.Tensor) or math.isfinite(float(loss.detach()))
        if not trainer.strategy.reduce_boolean_decision(finite, all=True):
            value = "not finite in another process" if finite else float(loss.detach())
            raise ComeNavError(
                f"training loss is {value} at step {trainer.global_step}: the last good checkpoint is "
                "kept; lower the learning rate or clip_norm and run the same command to go on from it"
            )


class ClipShardedGradients(Callback):
    """Clip the norm of gradients that are spread over processes (FSDP): Lightning's own clipping sees one part only."""

    def __init__(self, clip_norm: float) -> None:
        self.clip_norm = clip_norm

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Clip by the norm over all processes."""
        trainer.strategy.model.clip_grad_norm_(self.clip_norm)  # type: ignore[operator, union-attr]


class AverageWeights(WeightAveraging):
    """Exponentially averaged weights; after n steps the decay is (1 + n) / (10 + n) at most, so that they begin short.

    Otherwise those of a slice of some hundred steps would be mostly the untrained ones.
    """

    def __init__(self, decay: float) -> None:
        def averaged(average: Tensor, now: Tensor, count: Tensor) -> Tensor:
            if not now.is_floating_point():  # a counter
                return now
            steps = float(count)
            return average.lerp(now, 1.0 - min(decay, (1.0 + steps) / (10.0 + steps)))

        super().__init__(avg_fn=averaged)

    @property
    def state_key(self) -> str:
        """Lightning's name for it, under which checkpoints of before keep it."""
        return "EMAWeightAveraging"


def training_callbacks(
    folder: Path,
    config: OptimiserSettings,
    monitor: tuple[str, str],
    machine: Machine,
    images: Callback | None = None,
) -> list[Callback]:
    """Return the callbacks of one stage, which keeps its checkpoints in ``folder``.

    Args:
        folder: of the stage.
        config: intervals and averaging.
        monitor: name of the metric that tells the best checkpoint, and "min" or "max".
        machine: sharded weights are neither averaged nor drawn: no process holds them whole.
        images: draws samples at every validation.
    """
    name, mode = monitor
    whole = [AverageWeights(config.ema_decay), *([images] if images else [])]
    return [
        *([ClipShardedGradients(config.clip_norm)] if machine.sharded else whole),
        StopOnNonFiniteLoss(),
        StopOnSignal(),
        ModelCheckpoint(folder, filename=BEST, monitor=name, mode=mode, save_top_k=1, enable_version_counter=False),
        CheckpointRotation(folder, config.save_every, config.keep_checkpoints),
        *([StderrProgressBar(refresh_rate=10)] if machine.progress else []),
        *([SliceTimer(duration=machine.left)] if machine.left is not None else []),
    ]
