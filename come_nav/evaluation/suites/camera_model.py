"""A stand-in where no world model takes part: images are compared as the camera took them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import PlanningError
from come_nav.world_model.images import images_from_bytes


class CameraModel:
    """Sees with the camera's own pixels and imagines nothing (NavigationModel): plans bring their own imaginer.

    Args:
        rate_hz: protocol frames per second.
    """

    context_frames, image_size = 2, 0  # two frames tell the velocity; images have any size

    def __init__(self, rate_hz: float) -> None:
        self.rate_hz = rate_hz

    def images_from_rgb(self, frames: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Return (T, 3, H, W) in [-1, 1] of camera images of one size."""
        return torch.stack([unit_image(frame) for frame in frames])

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Return the images."""
        return images

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the images."""
        return latents

    def predict(
        self, context: Any, actions_xyyaw: torch.Tensor, rel_frames: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Refuse."""
        _refuse()

    def rollout(
        self, context: Any, poses_xyyaw: torch.Tensor, generator: torch.Generator, stride: int = 1
    ) -> torch.Tensor:
        """Refuse."""
        _refuse()

    def context_from_frames(self, frames: Any, poses_xyyaw: Any, frame_offsets: Any, **past: Any) -> Any:
        """Refuse."""
        _refuse()

    def imaginer(
        self, context: Any, rel_frames: float, mode: Literal["jump", "rollout"] = "jump", *, decode: bool = False
    ) -> Any:
        """Refuse."""
        _refuse()


def unit_image(rgb: NDArray[np.uint8]) -> torch.Tensor:
    """Return colours (3, H, W) in [-1, 1] of an image (H, W, 3) at its own size."""
    return images_from_bytes(torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))))


def _refuse() -> NoReturn:
    raise PlanningError("there is no world model to imagine with; hand in an imaginer")
