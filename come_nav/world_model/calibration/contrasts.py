"""What each expert would have said of a view that came true: the clean latents of its two sides, at one noise level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from come_nav.core.checks import check_shape
from come_nav.core.experts import SPATIAL
from come_nav.core.types import Context
from come_nav.experts.passes import Query, passes_of
from come_nav.world_model.composition import noises_of
from come_nav.world_model.parts import ModelParts
from come_nav.world_model.prediction import composed_experts
from come_nav.world_model.views import seen_from


@dataclass(frozen=True)
class Contrasts:
    """Clean latents as the experts predict them from noised truth.

    Attributes:
        names: of the K experts, the base first.
        clean: (B, C, h, w) the truth x_0.
        with_memory: (K, B, C, h, w) x0_k.
        without: (K, B, C, h, w) x0_k,bar.
        evidence: (B, C + 1, h, w) what the spatial memory alone shows and the share that it knows; None without one.
        passes: (K, 2) number of the network's pass that each expert's two sides are; equal numbers are one pass.
    """

    names: tuple[str, ...]
    clean: Tensor
    with_memory: Tensor
    without: Tensor
    evidence: Tensor | None = None
    passes: tuple[tuple[int, int], ...] = ()

    @property
    def free(self) -> Tensor:
        """What is expected without any memory (B, C, h, w): the base's other side."""
        return self.without[0]

    @property
    def contrasts(self) -> Tensor:
        """Return x0_k - x0_k,bar, (K, B, C, h, w)."""
        return self.with_memory - self.without


@torch.inference_mode()
def contrasts_at(
    parts: ModelParts,
    context: Context,
    actions_xyyaw: Tensor,
    rel_frames: Tensor,
    clean: Tensor,
    step: int,
    generator: torch.Generator,
) -> Contrasts:
    """Return what all experts of a model say of targets whose latents are known.

    Args:
        parts: of the model; its weights do not matter.
        context: of batch 1 or B.
        actions_xyyaw: (B, 3) target poses in the newest context frame's base.
        rel_frames: (B,) their times in protocol frames.
        clean: (B, C, h, w) their true latents.
        step: of the full schedule: how much noise the truth gets.
        generator: of that noise.
    """
    count = check_shape("clean", clean, "B C h w")["B"]
    check_shape("actions_xyyaw", actions_xyyaw, f"{count} 3")
    context = context.to(parts.device, torch.float32)
    clean, actions = clean.to(parts.device, torch.float32), actions_xyyaw.to(parts.device, torch.float32)
    noise = torch.randn(clean.shape, generator=generator, device=generator.device).to(clean)
    t = torch.full((count,), step, dtype=torch.long, device=parts.device)
    x_t = parts.schedule.add_noise(clean, noise, t)
    pairs = [passes_of(own) for own in composed_experts(parts, SPATIAL in parts.experts)]
    passes = [own for pair in pairs for own in pair]
    seen = seen_from(parts, context, actions, {own.condition.view for own in passes})
    with parts.autocast():
        noises = noises_of(passes, Query(x_t, t, seen, actions, rel_frames.to(parts.device, torch.float32)))

    def side(which: int) -> Tensor:
        channels = clean.shape[1]
        return torch.stack([parts.schedule.predict_x0(x_t, noises[pair[which]][:, :channels], t) for pair in pairs])

    numbers = {own: number for number, own in enumerate(dict.fromkeys(passes))}
    sides = tuple((numbers[eps], numbers[eps_bar]) for eps, eps_bar in pairs)
    return Contrasts(tuple(parts.experts), clean, side(0), side(1), seen.views.evidence, sides)
