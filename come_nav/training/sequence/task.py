"""Lightning module of diffusion forcing: every frame is noisy at its own level, some sequences begin clean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from come_nav.experts.sequence.expert import SequenceNetwork
from come_nav.experts.sequence.network import CLEAN
from come_nav.training.data.sharding import row_noise, shard
from come_nav.training.data.windows import step_generator
from come_nav.training.sequence.settings import SequenceTrainSettings
from come_nav.training.sequence.walks import SequenceBatch
from come_nav.training.tasks.optimisation import adamw_with_cosine
from come_nav.world_model.sampling.schedule import NoiseSchedule

NOISE_STREAM, VALIDATION_STREAM = 81, 82
VALIDATED_LEVEL = 999  # of the schedule: what a view is imagined from


@dataclass(frozen=True)
class Levels:
    """What is drawn for a batch of sequences.

    Attributes:
        t: (B, T) noise levels, CLEAN where frames are shown as they are.
        alone: whether every frame is a sequence of its own.
    """

    t: Tensor
    alone: bool


class SequenceTask(pl.LightningModule):
    """Mean squared error of the velocity of all frames that are noisy."""

    def __init__(self, network: SequenceNetwork, schedule: NoiseSchedule, config: SequenceTrainSettings) -> None:
        super().__init__()
        self.network, self.schedule, self.config = network, schedule, config

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch; noise and levels depend only on (seed, step, row)."""
        rank, count = self.trainer.global_rank, self.trainer.world_size
        total = len(batch.latents) * count
        generator = step_generator(self.config.seed, NOISE_STREAM, self.global_step)
        drawn = draw_levels(total, batch.latents.shape[1], self.config, len(self.schedule), generator)
        rows = shard(total, rank, count)
        noise = row_noise(total, batch.latents.shape[1:], generator, rows)
        levels, weights = Levels(drawn.t[rows], drawn.alone), None
        if self.config.recall_weight > 0.0 and not drawn.alone:
            remembered = shown_before(batch.views, levels.t.to(batch.views.device) == CLEAN, self.config.recall_age)
            weights = 1.0 + self.config.recall_weight * remembered.float()
        loss = self.loss(batch, levels, noise, weights)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Log the loss of the last eighth of each sequence from pure noise, with all before it clean."""
        frames = batch.latents.shape[1]
        generator = step_generator(1, VALIDATION_STREAM, batch_idx)
        noise = torch.randn(batch.latents.shape, generator=generator)
        t = torch.full(batch.latents.shape[:2], CLEAN)
        t[:, frames - max(1, frames // 8) :] = VALIDATED_LEVEL
        loss = self.loss(batch, Levels(t, False), noise)
        self.log("validation/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(batch.latents))

    def loss(self, batch: SequenceBatch, levels: Levels, noise: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the mean squared error over the noisy frames of a batch, which count by ``weights`` (B, T)."""
        x_0, noise, t = batch.latents, noise.to(batch.latents), levels.t.to(batch.latents.device)
        noisy = t != CLEAN
        flat = t.clamp(min=0).flatten()
        x_t = self.schedule.add_noise(x_0.flatten(0, 1), noise.flatten(0, 1), flat).view_as(x_0)
        x_t = torch.where(noisy[..., None, None, None], x_t, x_0)
        parts = [x_t, t, batch.poses_xyyaw, batch.actions_xyyaw]
        if levels.alone:
            parts = [part.flatten(0, 1)[:, None] for part in parts]
        shown, told, poses, actions = parts
        output = self.network.velocity(shown, told, poses, actions)[0].reshape(x_0.shape)
        target = self.schedule.velocity(x_0.flatten(0, 1), noise.flatten(0, 1), flat).view_as(x_0)
        error = (output - target).square().mean((2, 3, 4))
        if self.config.weighting == "x_0":  # x_0 = sqrt(abar) x_t - sqrt(1 - abar) v
            _, sigma = self.schedule.signal_and_sigma(flat, error.flatten())
            error = error * sigma.square().view_as(error)
        counted = noisy if weights is None else noisy * weights
        mean: Tensor = (error * counted).sum() / counted.sum()
        return mean

    def configure_optimizers(self) -> Any:
        """Return AdamW with warm-up and cosine decay."""
        return adamw_with_cosine(self.parameters(), self.config.optimiser)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch."""
        return batch.to(device)


def shown_before(views: Tensor, clean: Tensor, age: int) -> Tensor:
    """Return which frames (B, T) have a view that was shown clean before, last more than ``age`` frames ago.

    Args:
        views: (B, T) numbers of the views; equal numbers are of one pose.
        clean: (B, T) which frames are shown as they are.
        age: in frames.
    """
    frames = torch.arange(views.shape[1], device=views.device)
    since = frames[:, None] - frames
    same = (views[:, :, None] == views[:, None, :]) & clean[:, None, :]
    recent = same & (since > 0) & (since <= age)
    remembered: Tensor = (same & (since > age)).any(2) & ~recent.any(2)
    return remembered


def draw_levels(
    count: int, frames: int, config: SequenceTrainSettings, steps: int, generator: torch.Generator
) -> Levels:
    """Draw the noise levels of ``count`` sequences of ``frames`` frames.

    A share of the sequences has a clean prefix, of a length that is even over (frames / 2, frames); in the others each
    frame is clean by itself with the probability ``clean_share``.
    """
    share = torch.rand(count, frames, generator=generator)
    shifted = config.noise_shift * share / (1.0 + (config.noise_shift - 1.0) * share)
    t = (shifted * steps).long().clamp(max=steps - 1)
    least = frames // 2 + 1
    length = torch.randint(least, max(least + 1, frames), (count,), generator=generator)
    prefixed = torch.rand(count, generator=generator) < config.prefix_share
    clean = prefixed[:, None] & (torch.arange(frames) < length.clamp(max=frames - 1)[:, None])
    alone = bool(torch.rand((), generator=generator) < config.context_dropout)
    if config.clean_share > 0.0:
        clean |= ~prefixed[:, None] & (torch.rand(count, frames, generator=generator) < config.clean_share)
    return Levels(t if alone else torch.where(clean, CLEAN, t), alone)
