"""What the planner sees of a world model: candidates in, imagined views out (Imaginer protocol)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from come_nav.core.checks import check_choice, check_range, check_shape
from come_nav.core.errors import ShapeError
from come_nav.core.types import Context, Imagination
from come_nav.world_model.codec import decode_latents, encode_images
from come_nav.world_model.parts import ModelParts
from come_nav.world_model.prediction import moved_images, predict, rollout


@dataclass(frozen=True)
class ModelImaginer:
    """A world model with a context bound in.

    Images are the decoded latents, as the composed sampler drew them; nothing is pasted into them.

    Attributes:
        model: predicts.
        context: what was seen, batch 1.
        rel_frames: time of a candidate's last pose after the context, protocol frames.
        mode: "jump" predicts the last view at once, "rollout" frame by frame.
        decode: also decode the views to images, for objectives that compare pixels.
        shared_noise: start all candidates from one noise, so that costs differ by the candidates alone.
    """

    model: ModelParts
    context: Context
    rel_frames: float
    mode: Literal["jump", "rollout"]
    decode: bool
    shared_noise: bool

    def __post_init__(self) -> None:
        check_choice("imaginer mode", self.mode, ("jump", "rollout"))
        check_range("imaginer rel_frames", self.rel_frames, 0.0, open_low=True)

    def imagine(self, poses_xyyaw: Tensor, generator: torch.Generator) -> Imagination:
        """Imagine the view at the end of each candidate (S, T, 3) of poses in the start frame.

        Raises:
            ShapeError: a rollout needs one pose for each protocol frame up to ``rel_frames``.
        """
        sizes = check_shape("candidate poses_xyyaw", poses_xyyaw, "S T 3")
        if self.mode == "jump":
            times = torch.full((sizes["S"],), self.rel_frames)
            actions = poses_xyyaw[:, -1]
            latents = predict(self.model, self.context, actions, times, generator, shared_noise=self.shared_noise)
        elif sizes["T"] != self.rel_frames:
            raise ShapeError(f"a rollout to frame {self.rel_frames:g} needs as many poses, got {sizes['T']}")
        else:
            steps = rollout(self.model, self.context, poses_xyyaw, generator, shared_noise=self.shared_noise)
            latents = steps[:, -1]
        return Imagination(poses_xyyaw, latents, decode_latents(self.model, latents) if self.decode else None)

    def rough(self, poses_xyyaw: Tensor) -> Imagination | None:
        """Return what was seen before, moved to the end of each candidate (S, T, 3) by its depth alone: no network.

        None for a model whose networks look at no such views.
        """
        if self.model.depth is None:
            return None
        images = moved_images(self.model, self.context, poses_xyyaw[:, -1])
        latents = encode_images(self.model, images)
        return Imagination(poses_xyyaw, latents, images if self.decode else None)
