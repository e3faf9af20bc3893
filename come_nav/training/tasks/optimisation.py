"""The optimiser and learning-rate schedule that both stages share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from come_nav.training.config import OptimiserSettings


def adamw_with_cosine(parameters: Iterable[torch.nn.Parameter], config: OptimiserSettings) -> dict[str, Any]:
    """Return Lightning's optimiser dictionary: AdamW, linear warm-up, then cosine decay or none."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        trainable, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, config.beta2)
    )

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        if config.decay == "constant":
            return 1.0
        progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
