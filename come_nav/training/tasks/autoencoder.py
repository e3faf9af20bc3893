"""Lightning module that trains the image autoencoder."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch.nn.functional import l1_loss, mse_loss

from come_nav.training.config import OptimiserSettings
from come_nav.training.data.bank import step_generator
from come_nav.training.data.sharding import row_noise, shard
from come_nav.training.tasks.optimisation import adamw_with_cosine
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder

L1_WEIGHT = 0.1  # squared error alone leaves dull edges; a larger share slows the first thousand steps


class AutoencoderTask(pl.LightningModule):
    """Squared error, a little L1 and a small KL term. Batches are images (B, 3, H, W) in [-1, 1]."""

    def __init__(
        self, autoencoder: ImageAutoencoder, optimiser: OptimiserSettings, kl_weight: float, seed: int
    ) -> None:
        super().__init__()
        self.autoencoder, self.optimiser, self.kl_weight, self.seed = autoencoder, optimiser, kl_weight, seed

    def training_step(self, images: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """Return the loss of one batch; posterior noise depends only on (seed, step, row)."""
        mean, logvar = self.autoencoder.moments(images)
        generator = step_generator(self.seed, 1_000, self.global_step)
        total = len(mean) * self.trainer.world_size
        rows = shard(total, self.trainer.global_rank, self.trainer.world_size)
        noise = row_noise(total, mean.shape[1:], generator, rows).to(images.device)
        decoded = self.autoencoder.decode_raw(mean + (0.5 * logvar).exp() * noise)
        reconstruction = mse_loss(decoded, images) + L1_WEIGHT * l1_loss(decoded, images)
        kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum(dim=(1, 2, 3)).mean()
        loss = reconstruction + self.kl_weight * kl
        psnr = 10.0 * torch.log10(4.0 / mse_loss(decoded.detach().clamp(-1, 1), images))
        self.log_dict({"train/loss": loss, "train/psnr_db": psnr}, prog_bar=True)
        return loss

    def validation_step(self, images: torch.Tensor, batch_idx: int) -> None:
        """Log the PSNR of reconstructions from the posterior mode."""
        decoded = self.autoencoder.decode(self.autoencoder.moments(images)[0])
        mse = (decoded - images).square().mean(dim=(1, 2, 3))
        self.log("validation/psnr_db", (10.0 * torch.log10(4.0 / mse)).mean(), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Return AdamW with warm-up and cosine decay."""
        return adamw_with_cosine(self.parameters(), self.optimiser)
