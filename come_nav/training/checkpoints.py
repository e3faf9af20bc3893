"""Checkpoints of one stage: written atomically, rotated, never of broken weights, and read back to go on."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from come_nav.core.errors import CheckpointError, ComeNavError
from come_nav.core.files import atomic_path

LAST, BEST = "last.ckpt", "best"
NUMBERED = re.compile(r"step-(\d+)\.ckpt")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside and renames, so that a kill or a full disk leaves the old checkpoint; refuses broken weights."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write ``checkpoint``.

        Raises:
            StorageError: no space or no permission; what ``path`` held before is unchanged.
            ComeNavError: a weight is NaN or infinite.
        """
        broken = next(_names_of_broken(checkpoint.get("state_dict", {})), None)
        if broken is not None:
            raise ComeNavError(
                f"training loss is no longer finite: '{broken}' holds NaN or infinite values at step "
                f"{checkpoint.get('global_step', 0)}; the last good checkpoint is kept, lower the learning rate or "
                "clip_norm and go on from it"
            )
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as handle:
            _save(checkpoint, handle)


class CheckpointRotation(Checkpoint):
    """Saves the full state every so many steps and when training stops, and keeps the newest few.

    ``last.ckpt`` is always the newest, and of the numbered ones ``keep`` stay; ``best.ckpt`` is another callback's and
    never touched. Numbered files and ``last.ckpt`` share their bytes on disk (hard links) where the disk can.
    """

    def __init__(self, folder: Path, every: int, keep: int) -> None:
        self.folder, self.every, self.keep = folder, every, keep
        self._saved_step = -1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save at every interval."""
        if trainer.global_step % self.every == 0:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the end of a run or slice, before averaged weights replace the trained ones."""
        self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Save now, unless this step was saved already."""
        step = trainer.global_step
        if step == self._saved_step:
            return
        numbered = self.folder / f"step-{step:07d}.ckpt"
        trainer.save_checkpoint(numbered)
        self._saved_step = step
        if trainer.is_global_zero:
            _link(numbered, self.folder / LAST)
            for old in numbered_checkpoints(self.folder)[self.keep :]:
                old.unlink(missing_ok=True)
        trainer.strategy.barrier("last")  # no process reads the one before


def numbered_checkpoints(folder: Path) -> list[Path]:
    """Return the numbered checkpoints of a stage, newest first."""
    found = [path for path in folder.glob("step-*.ckpt") if NUMBERED.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(NUMBERED.fullmatch(path.name)[1]), reverse=True)  # type: ignore[index]


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint that a stage goes on from: the last, else the newest numbered one, else None."""
    if (folder / LAST).exists():
        return folder / LAST
    return next(iter(numbered_checkpoints(folder)), None)


def checkpoint_to_export(folder: Path, stage: str) -> Path:
    """Return the checkpoint of a run's stage that can be exported; raise CheckpointError where there is none yet."""
    newest = newest_checkpoint(folder / stage)
    if newest is None:
        raise CheckpointError(f"{folder}: the {stage} has no checkpoint yet; train on before you export")
    return newest


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint of this package with its tensors on the CPU, mapped from the file.

    Raises:
        CheckpointError: the file is damaged; says what to delete to go on.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        int(state["global_step"])
    except Exception as error:  # zip, pickle and key errors of a damaged file
        others = [other for other in numbered_checkpoints(path.parent) if other != path]
        way_out = f"go on from {others[0].name}" if others else "restart this stage"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: cannot be resumed from ({reason}); delete it to {way_out}") from error
    return state


def steps_done(path: Path | None) -> int:
    """Return the optimiser steps in a checkpoint, 0 where there is none."""
    return 0 if path is None else int(read_checkpoint(path)["global_step"])


def load_weights(task: pl.LightningModule, path: Path) -> None:
    """Load the weights of a finished stage into ``task``: the averaged ones, where there was averaging."""
    try:
        task.load_state_dict(read_checkpoint(path)["state_dict"])
    except RuntimeError as error:
        raise CheckpointError(f"{path}: is of another network ({str(error).splitlines()[0]})") from error


class _Writer:
    """A file that remembers its OSError: torch.save hides it behind a RuntimeError of its own."""

    def __init__(self, handle: BinaryIO) -> None:
        self.handle, self.error = handle, None

    error: OSError | None

    def write(self, data: Any) -> int:
        try:
            return self.handle.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.handle.flush()


def _save(checkpoint: dict[str, Any], handle: BinaryIO) -> None:
    writer = _Writer(handle)
    try:
        torch.save(checkpoint, writer)  # type: ignore[arg-type]
    except RuntimeError:
        if writer.error is not None:
            raise writer.error from None
        raise


def _link(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, atomically; copy where the disk knows no hard links."""
    with atomic_path(target) as temporary:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def _names_of_broken(tensors: dict[str, Any]) -> Iterator[str]:
    return (name for name, value in tensors.items() if value.is_floating_point() and not torch.isfinite(value).all())
