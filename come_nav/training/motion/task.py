"""Lightning module of the motion network: minus the log density of where drives went on."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from come_nav.core.geometry.pose_mixture import LEAST_SIGMA, PoseMixture, poses_at_constant_twist
from come_nav.policies.motion.network import MotionNetwork, motion_facts, motion_views
from come_nav.training.data.windows import WindowBatch, step_generator
from come_nav.training.motion.settings import MotionTrainSettings
from come_nav.training.tasks.optimisation import adamw_with_cosine
from come_nav.world_model.images import images_from_bytes

MIRROR_STREAM = 91


class MotionTask(pl.LightningModule):
    """Trains on the goals of windows that lie ahead of the newest frame."""

    def __init__(self, network: MotionNetwork, config: MotionTrainSettings) -> None:
        super().__init__()
        self.network, self.config = network, config

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch; which windows are mirrored depends on (seed, step, process) alone."""
        generator = step_generator(self.config.seed, MIRROR_STREAM, self.global_step * 1009 + self.global_rank)
        mirrored = torch.rand(len(batch), generator=generator) < self.config.mirrored_share
        loss, _ = self.losses(batch, mirrored.to(self.device))
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: WindowBatch, batch_idx: int) -> None:
        """Log the loss and how far, m, the mean pose is from the end, beside that of a constant twist."""
        loss, errors = self.losses(batch, torch.zeros(len(batch), dtype=torch.bool, device=self.device))
        for name, value in {"loss": loss, **errors}.items():
            self.log(f"validation/{name}", value, prog_bar=name == "loss", sync_dist=True, batch_size=len(batch))

    def configure_optimizers(self) -> Any:
        """Return AdamW with warm-up and cosine decay."""
        return adamw_with_cosine(self.parameters(), self.config.optimiser)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch."""
        return batch.to(device)

    def losses(self, batch: WindowBatch, mirrored: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss over goals ahead, with windows (B,) ``mirrored``, and errors of the mean pose."""
        found, poses, twist = self.predict(batch, mirrored)
        ahead = batch.rel_frames >= 1.0
        nats = -found.log_density(poses, LEAST_SIGMA)
        errors: dict[str, Tensor] = {}
        onward = poses_at_constant_twist(twist, found.times_s)
        last = batch.rel_frames >= self.config.data.max_offset_frames // 2
        for name, mean in (("end_m", found.mean_xyyaw), ("constant_twist_end_m", onward)):
            away = (mean[..., :2] - poses[..., :2]).norm(dim=-1)
            errors[name] = _mean(away.detach(), last)
        return _mean(nats, ahead), errors

    def predict(self, batch: WindowBatch, mirrored: Tensor) -> tuple[PoseMixture, Tensor, Tensor]:
        """Return mixtures (B, G) at the times of the goals, the poses (B, G, 3) there, and the twist (B, 2)."""
        config = self.config.network
        images, depth_m, camera, T_base_camera = (
            batch.context_images,
            batch.context_depth_m,
            batch.camera,
            batch.T_base_camera,
        )
        assert images is not None and depth_m is not None
        assert camera is not None and T_base_camera is not None
        if batch.context_measured is not None:
            depth_m = torch.where(batch.context_measured > 0, depth_m, 0.0)
        views = motion_views(images_from_bytes(images), depth_m)
        views = torch.where(mirrored[:, None, None, None, None], views.flip(-1), views)
        side = torch.where(mirrored, -1.0, 1.0)[:, None, None]
        flip = torch.cat([torch.ones_like(side), side, side], dim=-1)
        camera = camera.clone()
        camera[:, 2] = torch.where(mirrored, 1.0 - camera[:, 2], camera[:, 2])
        contexts, poses = batch.context_poses_xyyaw * flip, batch.actions_xyyaw * flip
        facts, twist = motion_facts(contexts, camera, T_base_camera[:, -1], config.rate_hz)
        times_s = batch.rel_frames.clamp(min=1.0) / config.rate_hz
        return self.network(views, facts, twist, times_s), poses, twist


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of the values that are counted, NaN where none is."""
    mean: Tensor = (values * counted).sum() / counted.sum()
    return mean
