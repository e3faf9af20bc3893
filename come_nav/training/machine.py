"""Where a run trains: devices, processes and strategy, all by Lightning; one process goes first where files are made."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric

from come_nav.core.errors import ConfigError

SHARDED = ("fsdp", "fsdp_cpu_offload")


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
        amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
        return "bf16-mixed" if self.device == "cuda" or amx else "32-true"

    def lightning_strategy(self) -> Any:
        """Return Lightning's strategy; "fsdp" shards the transformer block by block and saves whole checkpoints."""
        if not self.sharded:
            return self.strategy
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
        except (ValueError, RuntimeError) as error:  # Lightning's own checks of devices, strategies and launchers
            raise ConfigError(
                f"--accelerator {self.accelerator}, --devices {self.devices}, --num-nodes {self.num_nodes}, "
                f"--strategy {self.strategy}: {' '.join(str(error).split())}"
            ) from error
        fabric.launch()
        return Processes(fabric)


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
