"""Lightning module that trains a denoising expert on latent windows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from come_nav.core.types import Context, ContextViews, OlderFrames
from come_nav.experts.base import BaseExpert
from come_nav.experts.lora import random_gauge
from come_nav.training.config import OptimiserSettings
from come_nav.training.data.bank import WindowBatch, step_generator
from come_nav.training.data.sharding import row_noise, shard
from come_nav.training.input_dropout import InputDropout
from come_nav.training.tasks.inputs import ToldInputs, drawn_inputs, stated_inputs
from come_nav.training.tasks.optimisation import adamw_with_cosine
from come_nav.training.tasks.views import ViewMaker
from come_nav.world_model.sampling.schedule import NoiseSchedule

MIN_SNR_GAMMA = 5.0  # Hang et al., ICCV 2023 (arXiv 2303.09556), equation 8 and its default


@dataclass(frozen=True)
class LossWeighting:
    """Which noise levels count: how their squared errors weigh, and how often each is drawn (see TrainSettings)."""

    weighting: Literal["uniform", "min_snr"] = "uniform"
    noise_shift: float = 1.0


class DenoiserTask(pl.LightningModule):
    """Diffusion loss of NWM: a noise level per goal, mean squared error of the network's target (noise or velocity)."""

    def __init__(  # noqa: PLR0913, PLR0917  what is trained, and how
        self,
        expert: BaseExpert,
        schedule: NoiseSchedule,
        optimiser: OptimiserSettings,
        context_dropout: float,
        seed: int,
        views: ViewMaker | None = None,
        loss_weighting: LossWeighting | None = None,
        memory_fraction: float = 0.0,
        input_dropout: InputDropout | None = None,
    ) -> None:
        super().__init__()
        self.input_dropout = input_dropout or InputDropout()
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
        """Log the loss on the same windows, levels and noise every time, of what each expert would be told."""
        for name, told in self._validated(batch).items():
            generator = step_generator(self.seed, 3_000, batch_idx)
            memory = 1.0 if name == "memory_loss" and told is None else 0.0
            loss = self.diffusion_loss(batch, generator, 0.0, memory_fraction=memory, told=told)
            bar = name == "loss"
            self.log(f"validation/{name}", loss, prog_bar=bar, sync_dist=True, batch_size=len(batch.goal_latents))

    def _validated(self, batch: WindowBatch) -> dict[str, ToldInputs | None]:
        """Return what is measured by name; for a network with one view, None."""
        remembered = batch.goal_memory is not None or batch.goal_latent_memory is not None
        if not self.apart:
            return {"loss": None, "memory_loss": None} if remembered else {"loss": None}
        measured: dict[str, ToldInputs | None] = {
            "loss": stated_inputs(batch),
            "null_loss": stated_inputs(batch, nothing=True),
            "longer_loss": stated_inputs(batch, views=(True, True, False)),
        }
        if remembered:
            measured["memory_loss"] = stated_inputs(batch, views=(True, False, True))
        return measured

    @property
    def apart(self) -> bool:
        """Whether the network takes the views of all sources apart, and other optional inputs."""
        settings = self.expert.model.settings
        return settings.view_groups > 0 and self.views is not None

    def diffusion_loss(
        self,
        batch: WindowBatch,
        generator: torch.Generator,
        context_dropout: float,
        rank: int = 0,
        world_size: int = 1,
        memory_fraction: float = 0.0,
        told: ToldInputs | None = None,
    ) -> torch.Tensor:
        """Return the mean squared error over goals with a random noise level each.

        ``memory_fraction`` of the goals see what the memory shows, where the batch has it; networks with views apart
        are ``told`` what that says, or what is drawn by the input dropout. ``batch`` is the share of process ``rank``:
        it takes its rows of what is drawn for the batch of all processes.
        """
        contexts, goals = batch.goal_latents.shape[:2]
        total = contexts * world_size
        rows = shard(total, rank, world_size)
        x_0 = batch.goal_latents.flatten(0, 1)
        noise = row_noise(total, batch.goal_latents.shape[1:], generator, rows).flatten(0, 1).to(x_0.device)
        t = self._noise_levels((total, goals), generator)[rows].flatten().to(x_0.device)
        nothing = torch.rand(total, generator=generator) < context_dropout
        x_t = self.schedule.add_noise(x_0, noise, t)
        if self.apart:
            if told is None:
                most = self.expert.model.settings.older_frames
                told = drawn_inputs(total, goals, most, self.input_dropout, nothing, generator).rows(rows, goals)
            gauge = _random_gauge(total, generator)[rows]
            context, actions, times = self.condition(batch, told=told, absolute_pose=gauge)
            drop = told.no_context.to(x_0.device)
        else:
            remembered = None
            if batch.goal_memory is not None:
                remembered = (torch.rand(total, goals, generator=generator)[rows] < memory_fraction).flatten()
            context, actions, times = self.condition(batch, remembered)
            drop = nothing[rows].to(x_0.device)
        drop = drop.repeat_interleave(goals)
        output = self.expert.network_output(x_t, t, context, actions, times, drop, keep_past=self.apart)
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
        self,
        batch: WindowBatch,
        with_memory: torch.Tensor | None = None,
        told: ToldInputs | None = None,
        absolute_pose: torch.Tensor | None = None,
    ) -> tuple[Context, torch.Tensor, torch.Tensor]:
        """Return what the expert looks at for each of the B*G goals: context, actions (B*G, 3) and times (B*G,).

        Goals where ``with_memory`` (B*G,) is set see what the batch's memory shows as well. Networks with views apart
        are ``told`` what that says (by default the base's inputs), and where told, an ``absolute_pose`` (B, 3).
        """
        goals, views, older = batch.goal_latents.shape[1], ContextViews(), None
        absolute = None
        if self.apart and self.views is not None:
            device = batch.goal_latents.device
            told = told or stated_inputs(batch)
            shown, latent = told.shown.to(device), None
            if batch.goal_latent_memory is not None:
                latent = batch.goal_latent_memory.flatten(0, 1) * shown[:, 2, None, None, None]
            if batch.goal_memory is None:
                shown = shown & torch.tensor([True, True, False], device=device)
            views = replace(self.views.apart(batch, shown, told.camera.to(device)), latent_memory=latent)
            older = _older_frames(batch, told)
            if absolute_pose is not None and self.expert.model.settings.pose_embedding:
                absolute = torch.where(told.absolute_pose[:, None], absolute_pose, torch.nan).to(device)
                absolute = absolute.repeat_interleave(goals, 0)
        elif self.views is not None:
            views = ContextViews(self.views(batch, with_memory))
        context = Context(
            batch.context_latents.repeat_interleave(goals, 0),
            batch.context_poses_xyyaw.repeat_interleave(goals, 0),
            batch.frame_offsets.repeat_interleave(goals, 0),
            absolute_pose_xyyaw=absolute,
            older=older,
            views=views,
        )
        return context, batch.actions_xyyaw.flatten(0, 1), batch.rel_frames.flatten(0, 1)

    def configure_optimizers(self) -> Any:
        """Return AdamW with warm-up and cosine decay."""
        return adamw_with_cosine(self.parameters(), self.optimiser)


def _older_frames(batch: WindowBatch, told: ToldInputs) -> OlderFrames | None:
    """Return the frames before each context that are told, for each of its goals."""
    if batch.older is None or told.older == 0:
        return None
    past, goals = batch.older.newest(told.older), batch.goal_latents.shape[1]
    known = past.known & told.older_told.to(past.known.device)[:, None]
    parts = (past.latents.float(), past.poses_xyyaw, past.frame_offsets, known)
    return OlderFrames(*(part.repeat_interleave(goals, 0) for part in parts))


def _random_gauge(count: int, generator: torch.Generator) -> torch.Tensor:
    """Return poses (count, 3) of newest context frames, each in a random frame of its own (see random_gauge)."""
    return random_gauge(torch.zeros(count, 3), generator)
