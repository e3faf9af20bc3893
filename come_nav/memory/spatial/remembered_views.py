"""What a spatial memory shows a world model: views through the model's own camera (SpatialSource protocol)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from come_nav.core.checks import check_shape
from come_nav.core.errors import ConfigError
from come_nav.core.geometry.point_rendering import fill_unseen
from come_nav.core.types import CameraIntrinsics
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.lifting import model_camera

MANY_VIEWS = 16  # from so many on it pays to merge far points first
BATCH = 64


class RememberedViews:
    """Renders a spatial memory of colours as the square images that a world model takes.

    Args:
        memory: looked at anew in every call, so that what was seen meanwhile counts.
        camera: of the robot's images; the model sees their largest centred window of ``aspect``.
        T_base_camera: (4, 4) pose of the optical frame in base_link, for views that name none.
        aspect: width over height of that window.
    """

    def __init__(
        self, memory: SpatialMemory, camera: CameraIntrinsics, T_base_camera: NDArray[Any], aspect: float = 1.0
    ) -> None:
        self.memory, self.camera, self.T_base_camera, self.aspect = memory, camera, T_base_camera, aspect

    def views(
        self, poses_odom_xyyaw: Tensor, image_size: int, T_base_camera: Tensor | None = None, cell_m: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return image (S, 3, H, W), known (S, H, W) and inverse depth (S, H, W) 1/m; see SpatialSource.

        Points are merged in cells of edge ``cell_m`` first; 0 = as they are.
        """
        camera = model_camera(self.camera, image_size, self.aspect)
        thin = len(poses_odom_xyyaw) >= MANY_VIEWS
        extrinsics = self.T_base_camera if T_base_camera is None else T_base_camera
        device = poses_odom_xyyaw.device
        view = self.memory.render(poses_odom_xyyaw, camera, extrinsics, thin=thin, cell_m=cell_m, device=device)
        return view.image, view.visible, torch.nan_to_num(1.0 / view.depth_m)


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
        views: RememberedViews,
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
        return torch.cat([self._of(part) for part in poses_odom_xyyaw.float().split(BATCH)])

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
