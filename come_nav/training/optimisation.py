"""The optimiser and learning-rate schedule that both stages share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from come_nav.training.config import OptimiserConfig


def adamw_with_cosine(parameters: Iterable[torch.nn.Parameter], config: OptimiserConfig) -> dict[str, Any]:
    """Return Lightning's optimiser dictionary: AdamW, linear warm-up, cosine decay to zero at the last step."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        trainable, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
    )

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
