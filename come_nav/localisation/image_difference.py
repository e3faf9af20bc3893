"""How much images differ, and how much what is remembered from a pose differs from an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from come_nav.core.checks import check_shape
from come_nav.core.errors import ConfigError
from come_nav.core.geometry.point_rendering import fill_unseen
from come_nav.core.protocols import CoarseSpatialSource

BATCH = 64


def latent_difference(latents: Tensor, other: Tensor) -> Tensor:
    """Return 1 - cosine (S,) between latents (S, C, h, w) and one (C, h, w)."""
    return 1.0 - torch.nn.functional.cosine_similarity(latents.flatten(1), other.flatten()[None], dim=1)


class ImageDifference:
    """How much remembered views differ from one image: 1 - the cosine of their latents, more where little is known.

    A rough difference compares small images of a coarse cloud. It costs little, and it falls towards the right pose
    from farther away, because small images change less with the pose.

    Args:
        views: what the memory shows.
        encode: from images (B, 3, S, S) in [-1, 1] to latents (B, C, h, w).
        image: (3, S, S) in [-1, 1].
        unknown_weight: added for a view of which nothing is known; a part counts by its share.
        rough_px: width and height of what is compared, at most S, a divisor of it; 0 = S.
        rough_m: edge of the cells in which points are merged first, m; 0 = as they are.
    """

    def __init__(
        self,
        views: CoarseSpatialSource,
        encode: Callable[[Tensor], Tensor],
        image: Tensor,
        unknown_weight: float,
        rough_px: int = 0,
        rough_m: float = 0.0,
    ) -> None:
        self._views, self._encode, self._unknown_weight = views, encode, unknown_weight
        self._full_px = check_shape("image", image, "3 S S")["S"]
        self._px, self._cell_m = rough_px or self._full_px, rough_m
        if self._full_px % self._px:
            raise ConfigError(f"rough images of {self._px} px: must divide the model's {self._full_px} px")
        self._latents = self._latents_of(interpolate(image[None], (self._px, self._px), mode="area"))[0]

    def __call__(self, poses_odom_xyyaw: Tensor) -> Tensor:
        """Return the differences (S,) of the views at poses (S, 3)."""
        return torch.cat([self._of(part) for part in poses_odom_xyyaw.split(BATCH)])

    def _of(self, poses_odom_xyyaw: Tensor) -> Tensor:
        image, known, _ = self._views.views(poses_odom_xyyaw, self._px, cell_m=self._cell_m)
        known = known.bool()
        latents = self._latents_of(fill_unseen(image, known)).to(self._latents)
        unknown = 1.0 - known.float().mean(dim=(1, 2)).to(latents)
        return latent_difference(latents, self._latents) + self._unknown_weight * unknown

    def _latents_of(self, images: Tensor) -> Tensor:
        full = (self._full_px, self._full_px)
        large = interpolate(images, full, mode="bilinear", align_corners=False) if self._px < self._full_px else images
        return self._encode(large).float()
