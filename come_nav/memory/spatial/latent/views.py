"""What a spatial memory of latents shows a world model (LatentSpatialSource and SpatialSource protocols)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from come_nav.core.geometry.point_rendering import fill_unseen
from come_nav.core.types import CameraIntrinsics
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.lifting import model_camera


class RememberedLatents:
    """Reads a spatial memory of latents out into the latent grid: nothing is rendered at pixels, nothing encoded.

    Args:
        memory: looked at anew in every call, so that what was seen meanwhile counts.
        camera: of the robot's images; the model sees their largest centred window of ``aspect``.
        T_base_camera: (4, 4) pose of the optical frame in base_link, for views that name none.
        decode: latents (S, C, h, w) to images (S, 3, H, W), for those who ask for :meth:`views`.
        latent_size: rows and columns of the latent grid.
        aspect: width over height of that window.
    """

    def __init__(
        self,
        memory: SpatialMemory,
        camera: CameraIntrinsics,
        T_base_camera: NDArray[Any],
        decode: Callable[[Tensor], Tensor],
        latent_size: int,
        aspect: float = 1.0,
    ) -> None:
        self.memory, self.camera, self.T_base_camera, self.aspect = memory, camera, T_base_camera, aspect
        self.latent_size, self._decode = latent_size, decode

    def showing(self, memory: SpatialMemory) -> RememberedLatents:
        """Return what shows another memory to the same camera."""
        own = self.camera, self.T_base_camera, self._decode, self.latent_size, self.aspect
        return RememberedLatents(memory, *own)

    def latent_views(
        self, poses_odom_xyyaw: Tensor, latent_size: int, T_base_camera: Tensor | None = None, cell_m: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return latents (S, C, h, w), known (S, h, w) and inverse depth (S, h, w) 1/m; see LatentSpatialSource."""
        view = self.memory.render(
            poses_odom_xyyaw,
            model_camera(self.camera, latent_size, self.aspect),
            self.T_base_camera if T_base_camera is None else T_base_camera,
            blend=self.memory.config.latent.readout == "blend",
            cell_m=cell_m,
            device=poses_odom_xyyaw.device,
        )
        return view.image, view.visible, torch.nan_to_num(1.0 / view.depth_m)

    def views(
        self, poses_odom_xyyaw: Tensor, image_size: int, T_base_camera: Tensor | None = None, cell_m: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the read-out decoded: image (S, 3, H, W), known (S, H, W) and inverse depth (S, H, W) 1/m.

        For those who need pixels (relocalisation, images for people). Holes are filled smoothly before they are
        decoded; what is known of a latent cell is known of all its pixels.
        """
        latents, known, inverse_depth = self.latent_views(poses_odom_xyyaw, self.latent_size, T_base_camera, cell_m)
        images = self._decode(fill_unseen(latents, known)).to(latents)
        size = (image_size, image_size)
        if images.shape[-1] != image_size:
            images = interpolate(images, size=size, mode="area")
        whole = interpolate(torch.stack([known.to(inverse_depth), inverse_depth], 1), size=size, mode="nearest")
        return images, whole[:, 0] > 0.5, whole[:, 1]
