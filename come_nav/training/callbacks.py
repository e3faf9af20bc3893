"""Callbacks: progress on stderr, a checkpoint whenever training stops, a stop at a loss that is not finite."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, Timer, TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from pytorch_lightning.callbacks.weight_averaging import EMAWeightAveraging

from come_nav.core.errors import ComeNavError
from come_nav.training.config import OptimiserConfig

LAST = "last.ckpt"


class StderrProgressBar(TQDMProgressBar):
    """Lightning's progress bar on stderr: stdout is for results."""

    def init_train_tqdm(self) -> Tqdm:
        """Return the training bar."""
        bar = super().init_train_tqdm()
        bar.fp = sys.stderr
        return bar

    def init_validation_tqdm(self) -> Tqdm:
        """Return the validation bar."""
        bar = super().init_validation_tqdm()
        bar.fp = sys.stderr
        return bar


class SaveOnStop(Callback):
    """Save the full state when training stops early (a time limit, Ctrl-C), before averaged weights replace it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the end of a run or slice."""
        trainer.save_checkpoint(self.path)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save on Ctrl-C; after any other exception the last good checkpoint stays as it is."""
        if isinstance(exception, KeyboardInterrupt):
            trainer.save_checkpoint(self.path)


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
        """Check the loss at every logging step."""
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor) and not math.isfinite(float(loss.detach())):
            raise ComeNavError(
                f"training loss is {float(loss.detach())} at step {trainer.global_step}: the last good checkpoint is "
                "kept; lower the learning rate or clip_norm and run the same command to go on from it"
            )


def training_callbacks(
    folder: Path, config: OptimiserConfig, monitor: str, mode: str, progress: bool
) -> list[Callback]:
    """Return the callbacks of one stage, which keeps ``best.ckpt`` and ``last.ckpt`` in ``folder``."""
    return [
        EMAWeightAveraging(decay=config.ema_decay),
        ModelCheckpoint(
            folder, filename="best", monitor=monitor, mode=mode, save_top_k=1, enable_version_counter=False
        ),
        ModelCheckpoint(
            folder, filename="last", every_n_train_steps=config.save_every, save_top_k=1, enable_version_counter=False
        ),
        SaveOnStop(folder / LAST),
        StopOnNonFiniteLoss(),
        *([StderrProgressBar(refresh_rate=10)] if progress else []),
    ]
