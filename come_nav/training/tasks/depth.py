"""Lightning module that trains the depth estimator, in built-in worlds where depth is known."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch

from come_nav.training.config import OptimiserSettings
from come_nav.training.data.bank import step_generator
from come_nav.training.tasks.optimisation import adamw_with_cosine
from come_nav.world_model.depth import DepthEstimator

# A pixel moves by focal length x baseline x (error of inverse depth); errors of log depth count alike near and far.
INVERSE_DEPTH_WEIGHT = 0.5
DepthBatch = tuple[torch.Tensor, torch.Tensor] | tuple[torch.Tensor, torch.Tensor, torch.Tensor]
NEAREST_M, FARTHEST_M = 0.05, 50.0


class DepthTask(pl.LightningModule):
    """L1 of log depth and of inverse depth.

    Batches are images (B, 3, H, W) in [-1, 1], z-depth (B, H, W) metres and, where cameras differ, cameras (B, 4).
    """

    def __init__(self, estimator: DepthEstimator, optimiser: OptimiserSettings, seed: int) -> None:
        super().__init__()
        self.estimator, self.optimiser, self.seed = estimator, optimiser, seed

    def training_step(self, batch: DepthBatch, batch_idx: int) -> torch.Tensor:
        """Return the loss of one batch, mirrored or not as (seed, step) decides."""
        images, depth_m, camera = _parts(batch)
        if torch.rand((), generator=step_generator(self.seed, 4_000, self.global_step)) < 0.5:
            images, depth_m = images.flip(-1), depth_m.flip(-1)
            if camera is not None:  # the principal point changes sides, too
                camera = torch.cat([camera[:, :2], 1.0 - camera[:, 2:3], camera[:, 3:]], dim=1)
        loss = depth_loss(self.estimator(images, camera), depth_m)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: DepthBatch, batch_idx: int) -> None:
        """Log the loss and the mean relative error of depth."""
        images, depth_m, camera = _parts(batch)
        log_depth = self.estimator(images, camera)
        self.log("validation/loss", depth_loss(log_depth, depth_m), prog_bar=True, sync_dist=True)
        relative = (log_depth.exp() / depth_m - 1.0).abs()
        self.log("validation/relative_error", relative.mean(), prog_bar=True, sync_dist=True)
        self.log("validation/relative_error_median", relative.median(), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Return AdamW with warm-up and cosine decay."""
        return adamw_with_cosine(self.parameters(), self.optimiser)


def _parts(batch: DepthBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    images, depth_m, *camera = batch
    return images, depth_m, camera[0] if camera else None


def depth_loss(log_depth: torch.Tensor, depth_m: torch.Tensor) -> torch.Tensor:
    """Return the mean error of log depth (B, H, W) where the true z-depth (B, H, W) metres is known."""
    known = (depth_m > NEAREST_M) & (depth_m < FARTHEST_M)
    truth = torch.where(known, depth_m, torch.ones_like(depth_m))
    error = (log_depth - truth.log()).abs() + INVERSE_DEPTH_WEIGHT * ((-log_depth).exp() - 1.0 / truth).abs()
    loss: torch.Tensor = (error * known).sum() / known.sum().clamp_min(1)
    return loss
