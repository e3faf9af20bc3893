"""Lightning module that trains a policy: distances and actions, and NoMaD's actions by diffusion, as published."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from come_nav.policies.images import normalised
from come_nav.policies.networks.efficientnet import MBConv
from come_nav.policies.networks.gnm import GNM
from come_nav.policies.networks.nomad import NoMaD
from come_nav.policies.networks.vint import ViNT
from come_nav.policies.sampling import noise_schedule, waypoints_to_steps
from come_nav.training.data.windows import step_generator
from come_nav.training.policies.samples import PolicyBatch
from come_nav.training.policies.settings import PolicyTrainSettings
from come_nav.training.run_parts import seeded_layers
from come_nav.training.tasks.optimisation import adamw_with_cosine

NOISE_STREAM, LAYER_STREAM, VALIDATION_STREAM = 71, 72, 73
SMALL = 1e-2  # added to the share of samples that a mean is over
SPACINGS_SCALE = 10.0  # that count as 1 where paths and poses are told straight
DISTANCE_SCALE = 1e-2  # squared frames against squared spacings (gnm, vint)


class PolicyTask(pl.LightningModule):
    """The losses of the authors' training code.

    GNM and ViNT: ``alpha / 100 * squared error of the distance + (1 - alpha) * squared error of the waypoints``, the
    latter over samples whose goal teaches actions. NoMaD: ``alpha * squared error of the distance``, over samples whose
    goal is not masked, ``+ (1 - alpha) * squared error of the noise``.
    """

    def __init__(self, network: GNM | ViNT | NoMaD, config: PolicyTrainSettings) -> None:
        super().__init__()
        # the layout in which convolutions of a few channels are fast, with the same numbers (PyTorch's memory formats)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs do not know it
        self.network, self.config = network, config
        self.heads: nn.ModuleDict | None = None
        if isinstance(network, NoMaD) and config.regression_weight > 0.0:
            width, waypoints = network.settings.encoding_size, network.settings.waypoints
            self.heads = nn.ModuleDict({"path": nn.Linear(width, 2 * waypoints), "goal_pose": nn.Linear(width, 4)})
        if not config.dropout:
            keep_all(network)

    def training_step(self, batch: PolicyBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch; dropout and noise depend on (seed, step, process) alone."""
        step = self.global_step * 1009 + self.global_rank
        with seeded_layers(step_generator(self.config.seed, LAYER_STREAM, step).initial_seed(), self.device):
            losses = self.losses(batch, step_generator(self.config.seed, NOISE_STREAM, step))
        for name, value in losses.items():
            self.log(f"train/{name}", value, prog_bar=name == "loss")
        return losses["loss"]

    def validation_step(self, batch: PolicyBatch, batch_idx: int) -> None:
        """Log the same losses with noise that is the same every time."""
        losses = self.losses(batch, step_generator(1, VALIDATION_STREAM, batch_idx))
        for name, value in losses.items():
            self.log(f"validation/{name}", value, prog_bar=name == "loss", sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Return AdamW with warm-up and cosine decay."""
        return adamw_with_cosine(self.parameters(), self.config.optimiser)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch."""
        return batch.to(device)

    def losses(self, batch: PolicyBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss and its parts."""
        images = normalised(batch.images.unflatten(1, (-1, 3))).flatten(1, 2)
        images, goals = (
            part.contiguous(memory_format=torch.channels_last) for part in (images, normalised(batch.goals))
        )
        share, teaches = len(goals) // len(images), batch.teaches.float()
        wanted = batch.waypoints.repeat_interleave(share, dim=0)
        alpha = self.config.alpha
        if isinstance(self.network, NoMaD):
            masked = torch.rand(len(goals), generator=generator) < self.config.goal_mask_prob
            shown = (~masked).float().to(goals.device)
            condition = self.network.vision_encoder(images, goals, masked.to(goals.device))
            error = functional.mse_loss(self.network.dist_pred_net(condition)[:, 0], batch.distance, reduction="none")
            distance = mean_over(error, shown)
            action = mean_over(self._noise_error(wanted, condition, generator), teaches)
            losses = {"loss": alpha * distance + (1.0 - alpha) * action, "distance": distance, "noise": action}
            if self.heads is not None:
                told = self.heads["path"](condition).view_as(wanted)
                off = functional.mse_loss(told, wanted / SPACINGS_SCALE, reduction="none").mean(dim=(1, 2))
                losses["path"] = mean_over(off, teaches)
                losses["goal_pose"] = goal_pose_error(self.heads["goal_pose"](condition), batch.goal_poses, shown)
                losses["loss"] = losses["loss"] + self.config.regression_weight * (losses["path"] + losses["goal_pose"])
            return losses
        predicted, waypoints = self.network(images.repeat_interleave(share, dim=0), goals)
        distance = functional.mse_loss(predicted[:, 0], batch.distance)
        error = functional.mse_loss(waypoints, wanted, reduction="none").mean(dim=(1, 2))
        action = mean_over(error, teaches)
        loss = alpha * DISTANCE_SCALE * distance + (1.0 - alpha) * action
        return {"loss": loss, "distance": distance, "action": action}

    def _noise_error(self, waypoints: Tensor, condition: Tensor, generator: torch.Generator) -> Tensor:
        """Return the squared error of the predicted noise (B,), the mean of some drawn diffusion steps."""
        assert isinstance(self.network, NoMaD)
        count, draws = self.network.settings.diffusion_steps, self.config.noise_draws
        steps = waypoints_to_steps(waypoints).repeat_interleave(draws, dim=0)
        noise = torch.randn(steps.shape, generator=generator).to(steps)
        level = torch.randint(count, (len(steps),), generator=generator).to(steps.device)
        # diffusers asks for an IntTensor, a class that no tensor is an instance of for mypy; it takes any integers
        noisy = noise_schedule(count).add_noise(steps, noise, level)  # type: ignore[arg-type]
        predicted = self.network.noise_pred_net(noisy, level, condition.repeat_interleave(draws, dim=0))
        error = functional.mse_loss(predicted, noise, reduction="none").unflatten(0, (-1, draws))
        mean: Tensor = error.mean(dim=(1, 2, 3))
        return mean


def goal_pose_error(told: Tensor, goal_poses: Tensor, shown: Tensor) -> Tensor:
    """Return the mean squared error of x / 10, y / 10, cos and sin (B, 4) of goals' poses (B, 3) that are known."""
    known = torch.isfinite(goal_poses).all(dim=1)
    poses = torch.where(known[:, None], goal_poses, 0.0)
    wanted = torch.cat([poses[:, :2] / SPACINGS_SCALE, torch.cos(poses[:, 2:]), torch.sin(poses[:, 2:])], dim=1)
    return mean_over(functional.mse_loss(told, wanted, reduction="none").mean(dim=1), shown * known)


def keep_all(network: nn.Module) -> None:
    """Make a network drop nothing in training: neither activations nor blocks."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
        elif isinstance(module, MBConv):
            module.drop = 0.0


def mean_over(values: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of values (B,) over the samples that are ``counted`` (B,), 0 where none is."""
    return (values * counted).mean() / (counted.mean() + SMALL)
