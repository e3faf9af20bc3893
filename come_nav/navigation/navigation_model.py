"""What navigation asks of a world model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.protocols import Imaginer, WorldModel
from come_nav.core.types import Context, Frame
from come_nav.world_model.model import DiffusionWorldModel


class NavigationModel(WorldModel, Protocol):
    """A world model that also prepares camera images and binds a context for the planner."""

    def images_from_rgb(self, frames: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Return (T, 3, S, S) in [-1, 1] of camera images of any size."""
        ...

    def context_from_frames(
        self,
        frames: Sequence[Frame],
        poses_xyyaw: NDArray[np.float64],
        frame_offsets: Sequence[float],
        *,
        latents: torch.Tensor | None = None,
        older: Sequence[tuple[Frame, NDArray[np.float64]]] = (),
        older_offsets: Sequence[float] | None = None,
        absolute_pose_xyyaw: NDArray[np.float64] | None = None,
    ) -> Context:
        """Return the context of frames, oldest first, seen from poses (T, 3) in odom; ``latents`` are theirs.

        Memories of the episode need ``older`` frames with their poses (one protocol frame apart, unless their times
        ``older_offsets`` in protocol frames are told), and the newest frame's pose in odom.
        """
        ...

    def imaginer(
        self, context: Context, rel_frames: float, mode: Literal["jump", "rollout"] = "jump", *, decode: bool = False
    ) -> Imaginer:
        """Return an imaginer of candidates that end ``rel_frames`` protocol frames after the context."""
        ...


def looks_at_depth(model: NavigationModel) -> bool:
    """Return whether the model has use for the depth of context frames: it renders views, from measured depth."""
    return isinstance(model, DiffusionWorldModel) and model.depth is not None and model.inference.measured_depth


def taking_experts(model: NavigationModel) -> DiffusionWorldModel | None:
    """Return the model as one that takes the experts of memories, or None where it names none (ExpertModel)."""
    return cast(DiffusionWorldModel, model) if getattr(model, "supported_experts", None) else None
