"""What a spatial memory shows a world model: views through the model's own camera (SpatialSource protocol)."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.types import CameraIntrinsics
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.lifting import model_camera

MANY_VIEWS = 16  # from so many on it pays to merge far points first


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
