"""Where a run trains: devices, processes, strategy, all by Lightning; one process goes first where files are made."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from come_nav.core.device.precision import multiplies_bfloat16
from come_nav.core.errors import ConfigError
from come_nav.training.checkpoints import AtomicCheckpointIO
from come_nav.training.config import OptimiserSettings

_log = logging.getLogger(__name__)

LEAST_S = 1e-3
SHARDED = ("fsdp", "fsdp_cpu_offload")


@dataclass(frozen=True)
class Machine:
    """Where a run trains; the names are Lightning's.

    Attributes:
        accelerator, devices, num_nodes, strategy, precision: as for ``pytorch_lightning.Trainer``.
        max_minutes: stop and save after this time; the same command goes on from there. None = until done.
        progress: show progress bars.
        began_s: when the time began, on ``time.monotonic``; all stages share it.
    """

    accelerator: str = "auto"
    devices: int | str = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    max_minutes: float | None = None
    progress: bool = True
    began_s: float = field(default_factory=time.monotonic, compare=False)

    @property
    def left(self) -> timedelta | None:
        """Time until the run is to stop; None where it has no limit. When it is over, a stage takes one step yet."""
        if self.max_minutes is None:
            return None
        return timedelta(seconds=max(LEAST_S, self.began_s + 60.0 * self.max_minutes - time.monotonic()))

    @property
    def device(self) -> str:
        """Torch device on which data are rendered and encoded; of several GPUs, the one of this process."""
        use_cuda = self.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        return "cuda" if use_cuda else "cpu"

    @property
    def sharded(self) -> bool:
        """Whether each process holds only a part of the weights."""
        return self.strategy in SHARDED

    def lightning_precision(self) -> Any:
        """Resolve "auto": bf16 where the hardware multiplies it fast, float32 elsewhere."""
        if self.precision != "auto":
            return self.precision
        return "bf16-mixed" if multiplies_bfloat16(self.device) else "32-true"

    def lightning_strategy(self) -> Any:
        """Return Lightning's strategy; "fsdp" shards the transformer block by block and saves whole checkpoints.

        Several processes look for weights that a step leaves out: a batch without older frames or depth has some.
        """
        if not self.sharded:
            several = torch.distributed.is_available() and torch.distributed.is_initialized()
            return "ddp_find_unused_parameters_true" if several and self.strategy in ("auto", "ddp") else self.strategy
        from pytorch_lightning.strategies import FSDPStrategy

        from come_nav.experts.layers import CDiTBlock

        return FSDPStrategy(
            auto_wrap_policy={CDiTBlock},
            state_dict_type="full",
            cpu_offload=self.strategy == "fsdp_cpu_offload",
        )

    def launch(self) -> Processes:
        """Start the other processes, or join them where torchrun or SLURM did; return once all can talk.

        Raises:
            ConfigError: the devices or nodes asked for are not those that there are.
        """
        for name in ("lightning_fabric", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            fabric = Fabric(
                accelerator=self.accelerator,
                devices=self.devices,
                num_nodes=self.num_nodes,
                strategy="ddp" if self.sharded else self.strategy,
            )
            fabric.launch()
        except (
            ValueError,
            RuntimeError,
            ImportError,
            MisconfigurationException,
        ) as error:  # Lightning's own checks of devices, strategies and launchers
            raise ConfigError(
                f"--accelerator {self.accelerator}, --devices {self.devices}, --num-nodes {self.num_nodes}, "
                f"--strategy {self.strategy}: {' '.join(str(error).split())}"
            ) from error
        return Processes(fabric)


def started_processes() -> tuple[int, int]:
    """Return the processes per node, and the nodes, that torchrun or srun started; 1, 1 where neither did.

    Lightning starts the other processes of ``--devices`` with WORLD_SIZE but without torchrun's LOCAL_WORLD_SIZE, and a
    batch script without srun is one process, whatever its job may use.
    """
    there = os.environ
    if "LOCAL_WORLD_SIZE" in there:
        local = int(there["LOCAL_WORLD_SIZE"])
        return local, int(there["WORLD_SIZE"]) // local
    if SLURMEnvironment.detect() and "SLURM_STEP_NUM_TASKS" in there:
        nodes = int(there.get("SLURM_STEP_NUM_NODES", "1"))
        return int(there["SLURM_STEP_NUM_TASKS"]) // nodes, nodes
    return 1, 1


class Processes:
    """The processes of one run; a single one in the simplest case."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric

    @property
    def rank(self) -> int:
        """Number of this process among all."""
        return int(self._fabric.global_rank)

    @property
    def count(self) -> int:
        """Number of all processes."""
        return int(self._fabric.world_size)

    @contextmanager
    def first_alone(self) -> Iterator[bool]:
        """Run the block in process 0, and only when it is done in the others; yield whether this is process 0.

        However long it takes: the wait has no time limit. The block makes files in process 0; the others find them.
        """
        with self._fabric.rank_zero_first():
            yield self.rank == 0


def make_trainer(
    machine: Machine, stage: OptimiserSettings, folder: Path, name: str, callbacks: list[Callback], start: int
) -> pl.Trainer:
    """Return Lightning's trainer of one stage of the run in ``folder``, which goes on at step ``start``."""
    plugins: list[Any] = [AtomicCheckpointIO()]
    # SLURM's own requeueing keeps checkpoints of which this package knows nothing; in a job, torchrun goes first
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))
    return pl.Trainer(
        accelerator=machine.accelerator,
        devices=machine.devices,
        num_nodes=machine.num_nodes,
        strategy=machine.lightning_strategy(),
        precision=machine.lightning_precision(),
        plugins=plugins,
        max_steps=stage.steps,
        gradient_clip_val=None if machine.sharded else stage.clip_norm,
        log_every_n_steps=stage.log_every,
        val_check_interval=stage.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the streams share the batch out themselves
        default_root_dir=folder / name,
        logger=_loggers(folder, name, start),
        callbacks=callbacks,
        enable_model_summary=False,
        enable_progress_bar=machine.progress,
    )


def _loggers(folder: Path, name: str, start: int) -> list[Logger]:
    """Return the CSV log, a file for every slice, and TensorBoard's, one curve over all slices."""
    loggers: list[Logger] = [CSVLogger(folder / "logs", name=name)]
    try:
        import tensorboard  # noqa: F401  Lightning imports it only when the first line is written
    except ImportError:
        _log.warning("no TensorBoard logs: install them with  pip install 'come_nav[train]'")
    else:  # steps from `start` on are taken anew, so what a killed slice logged of them goes
        loggers.append(TensorBoardLogger(folder / "tensorboard", name=name, version="", purge_step=start or None))
    return loggers
