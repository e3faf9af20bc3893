"""Lightning module that trains a denoising expert on latent windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from come_nav.core.types import Context, ContextViews
from come_nav.experts.base import BaseExpert
from come_nav.training.config import OptimiserSettings
from come_nav.training.data.bank import WindowBatch, step_generator
from come_nav.training.data.sharding import row_noise, shard
from come_nav.training.tasks.optimisation import adamw_with_cosine
from come_nav.world_model.sampling.schedule import NoiseSchedule

MIN_SNR_GAMMA = 5.0  # Hang et al., ICCV 2023 (arXiv 2303.09556), equation 8 and its default


@dataclass(frozen=True)
class LossWeighting:
    """Which noise levels count: how their squared errors weigh, and how often each is drawn (see TrainSettings)."""

    weighting: Literal["uniform", "min_snr"] = "uniform"
    noise_shift: float = 1.0


class DenoiserTask(pl.LightningModule):
    """Diffusion loss of NWM: a noise level per goal, mean squared error of the network's target (noise or velocity)."""

    def __init__(
        self,
        expert: BaseExpert,
        schedule: NoiseSchedule,
        optimiser: OptimiserSettings,
        context_dropout: float,
        seed: int,
        views: Callable[[WindowBatch, torch.Tensor | None], torch.Tensor] | None = None,
        loss_weighting: LossWeighting | None = None,
        memory_fraction: float = 0.0,
    ) -> None:
        super().__init__()
        self.memory_fraction, self.loss_weighting = memory_fraction, loss_weighting or LossWeighting()
        self.views = views
        self.expert, self.schedule = expert, schedule
        self.optimiser, self.context_dropout, self.seed = optimiser, context_dropout, seed

    def training_step(self, batch: WindowBatch, batch_idx: int) -> torch.Tensor:
        """Return the loss of one batch; noise, levels and dropout depend only on (seed, step, row)."""
        generator = step_generator(self.seed, 2_000, self.global_step)
        loss = self.diffusion_loss(
            batch,
            generator,
            self.context_dropout,
            self.trainer.global_rank,
            self.trainer.world_size,
            self.memory_fraction,
        )
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: WindowBatch, batch_idx: int) -> None:
        """Log the loss on the same windows, levels and noise every time."""
        loss = self.diffusion_loss(batch, step_generator(self.seed, 3_000, batch_idx), 0.0)
        self.log("validation/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(batch.goal_latents))
        if batch.goal_memory is not None:
            generator = step_generator(self.seed, 3_000, batch_idx)
            loss = self.diffusion_loss(batch, generator, 0.0, memory_fraction=1.0)
            self.log("validation/memory_loss", loss, sync_dist=True, batch_size=len(batch.goal_latents))

    def diffusion_loss(
        self,
        batch: WindowBatch,
        generator: torch.Generator,
        context_dropout: float,
        rank: int = 0,
        world_size: int = 1,
        memory_fraction: float = 0.0,
    ) -> torch.Tensor:
        """Return the mean squared error over goals with a random noise level each.

        ``memory_fraction`` of the goals see what the memory shows, where the batch has it. ``batch`` is the share of
        process ``rank``: it takes its rows of what is drawn for the batch of all processes.
        """
        contexts, goals = batch.goal_latents.shape[:2]
        total = contexts * world_size
        rows = shard(total, rank, world_size)
        x_0 = batch.goal_latents.flatten(0, 1)
        noise = row_noise(total, batch.goal_latents.shape[1:], generator, rows).flatten(0, 1).to(x_0.device)
        t = self._noise_levels((total, goals), generator)[rows].flatten().to(x_0.device)
        drop = (torch.rand(total, generator=generator)[rows] < context_dropout).to(x_0.device)
        x_t = self.schedule.add_noise(x_0, noise, t)
        remembered = None
        if batch.goal_memory is not None:
            remembered = (torch.rand(total, goals, generator=generator)[rows] < memory_fraction).flatten()
        context, actions, times = self.condition(batch, remembered)
        output = self.expert.network_output(x_t, t, context, actions, times, drop.repeat_interleave(goals))
        target = self.schedule.velocity(x_0, noise, t) if self.expert.prediction == "v" else noise
        error = (output - target).square().mean(dim=(1, 2, 3))
        loss: torch.Tensor = (error * self._weights(t)).mean()
        return loss

    def _noise_levels(self, shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
        """Return steps of the schedule: even, or in training the noisier the more often (arXiv 2403.03206, eq. 23)."""
        t = torch.randint(len(self.schedule), shape, generator=generator)
        shift, steps = self.loss_weighting.noise_shift, len(self.schedule)
        if not self.training or shift == 1.0:
            return t
        share = (t + 0.5) / steps
        return (shift * share / (1.0 + (shift - 1.0) * share) * steps).long()

    def _weights(self, t: torch.Tensor) -> torch.Tensor:
        """Return the weight (B,) of each sample's squared error for its noise level."""
        if self.loss_weighting.weighting == "uniform":
            return torch.ones_like(t, dtype=torch.float32)
        abar = torch.as_tensor(self.schedule.alphas_cumprod, device=t.device)[t]
        ratio = abar / (1.0 - abar)
        least = ratio.clamp(max=MIN_SNR_GAMMA)
        return (least / (ratio + 1.0 if self.expert.prediction == "v" else ratio)).float()

    def condition(
        self, batch: WindowBatch, with_memory: torch.Tensor | None = None
    ) -> tuple[Context, torch.Tensor, torch.Tensor]:
        """Return what the expert looks at for each of the B*G goals: context, actions (B*G, 3) and times (B*G,).

        Goals where ``with_memory`` (B*G,) is set see what the batch's memory shows as well.
        """
        goals = batch.goal_latents.shape[1]
        context = Context(
            batch.context_latents.repeat_interleave(goals, 0),
            batch.context_poses_xyyaw.repeat_interleave(goals, 0),
            batch.frame_offsets.repeat_interleave(goals, 0),
            views=ContextViews(None if self.views is None else self.views(batch, with_memory)),
        )
        return context, batch.actions_xyyaw.flatten(0, 1), batch.rel_frames.flatten(0, 1)

    def configure_optimizers(self) -> Any:
        """Return AdamW with warm-up and cosine decay."""
        return adamw_with_cosine(self.parameters(), self.optimiser)
