"""How well a place is known already: what a robot without a goal has to get away from."""

from __future__ import annotations

import torch

from come_nav.core.checks import check_range, check_shape
from come_nav.core.types import Imagination

OTHER_WAY = 0.3  # what a place counts that was seen facing the other way: something new is to be seen there
VISITED_AT_ONCE = 256


class Familiarity:
    """Costs a path the mean over its later half of ``log(1 + sum_k s(yaw - yaw_k) exp(-|p - p_k|^2 / (2 r^2)))``.

    The sum is over visited poses; s is 1 in their direction and falls as the cosine does to ``OTHER_WAY`` in the
    opposite one, so that in a dead end it is worth to turn round. The logarithm keeps a pull away from places that were
    visited many times.
    """

    name = "familiarity"
    needs_view = False

    def __init__(self, visited_xyyaw: torch.Tensor, radius_m: float = 1.5) -> None:
        """Take poses (N, 3) in the start frame, none at all for a robot that remembers nothing."""
        check_shape("Familiarity.visited_xyyaw", visited_xyyaw, "N 3")
        self._visited = visited_xyyaw.float()
        self._radius_m = check_range("Familiarity.radius_m", radius_m, 0.0, open_low=True)

    def __call__(self, imagination: Imagination) -> torch.Tensor:
        """Return costs (S,)."""
        later = imagination.poses_xyyaw[:, imagination.poses_xyyaw.shape[1] // 2 :]
        known = torch.zeros(later.shape[:2], dtype=later.dtype, device=later.device)
        for visited in self._visited.to(later).split(VISITED_AT_ONCE):
            squared = ((later[:, :, None, :2] - visited[:, :2]) ** 2).sum(dim=-1)
            turned = torch.cos(later[:, :, None, 2] - visited[:, 2])
            counts = OTHER_WAY + (1.0 - OTHER_WAY) * 0.5 * (1.0 + turned)
            known += (counts * torch.exp(-0.5 * squared / self._radius_m**2)).sum(dim=-1)
        return torch.log1p(known).mean(dim=1)
