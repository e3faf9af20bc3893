"""A term of the planner's cost that an image distance from elsewhere computes, e.g. LPIPS."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from come_nav.core.checks import check_range, check_shape
from come_nav.core.errors import PlanningError
from come_nav.core.types import Imagination


class ViewDistance:
    """Distance of the imagined images to the goal's, by any function of two batches of images in [-1, 1].

    Args:
        name: of the term.
        goal_image: (3, H, W) in [-1, 1].
        distance: images (B, 3, H, W) and references of the same shape to distances (B,).
        batch: images that are compared at once.
    """

    needs_view = True

    def __init__(
        self, name: str, goal_image: Tensor, distance: Callable[[Tensor, Tensor], Tensor], batch: int = 32
    ) -> None:
        check_shape("ViewDistance.goal_image", goal_image, "3 H W")
        check_range("ViewDistance.batch", batch, 1)
        self.name = name
        self._goal = goal_image
        self._distance = distance
        self._batch = batch

    def __call__(self, imagination: Imagination) -> Tensor:
        """Return costs (S,)."""
        if imagination.images is None:
            raise PlanningError(f"the imaginer returns no images; use the latent objective instead of {self.name}")
        parts = torch.split(imagination.images, self._batch)
        goal = self._goal.to(imagination.images)[None]
        return torch.cat([self._distance(part, goal.expand_as(part)).to(part.device) for part in parts])
