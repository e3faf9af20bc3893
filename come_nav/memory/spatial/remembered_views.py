"""What a spatial memory shows a world model: views through the model's own camera (SpatialSource protocol)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core import compiled
from come_nav.core.geometry.point_rendering import camera_fractions, lift_depth, transform_points
from come_nav.core.types import CameraIntrinsics
from come_nav.memory.spatial.cloud import SpatialMemory, looked_at_s
from come_nav.memory.spatial.lifting import model_camera

AGE_BLOCK = 4
MANY_VIEWS = 16  # from so many on it pays to merge far points first, where no compiled loop renders them


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

    def showing(self, memory: SpatialMemory) -> RememberedViews:
        """Return what shows another memory to the same camera."""
        return RememberedViews(memory, self.camera, self.T_base_camera, self.aspect)

    def views(
        self, poses_odom_xyyaw: Tensor, image_size: int, T_base_camera: Tensor | None = None, cell_m: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return image (S, 3, H, W), known (S, H, W) and inverse depth (S, H, W) 1/m; see SpatialSource.

        Points are merged in cells of edge ``cell_m`` first; 0 = as they are.
        """
        camera = model_camera(self.camera, image_size, self.aspect)
        extrinsics = self.T_base_camera if T_base_camera is None else T_base_camera
        device = poses_odom_xyyaw.device
        thin = len(poses_odom_xyyaw) >= MANY_VIEWS and device.type == "cpu" and not compiled.available()
        view = self.memory.render(poses_odom_xyyaw, camera, extrinsics, thin=thin, cell_m=cell_m, device=device)
        return view.image, view.visible, torch.nan_to_num(1.0 / view.depth_m)

    def ages_s(
        self,
        poses_odom_xyyaw: Tensor,
        inverse_depth: Tensor,
        T_base_camera: Tensor | None = None,
        now_s: Tensor | None = None,
    ) -> Tensor:
        """Return how long ago what :meth:`views` showed was last looked at, (S, H, W) s; zero where unknown.

        Looked up once for every block of four by four pixels, at the surface that is seen in its middle.

        Args:
            poses_odom_xyyaw: (S, 3) of the views.
            inverse_depth: (S, H, W) of the views, 1/m.
            T_base_camera: (S or 1, 4, 4) of the views; the source's own by default.
            now_s: (S,) float64 stamps to count from; the newest look by default.
        """
        extrinsics = torch.as_tensor(
            self.T_base_camera if T_base_camera is None else T_base_camera, dtype=torch.float64
        )
        extrinsics = extrinsics[None] if extrinsics.ndim == 2 else extrinsics
        size = inverse_depth.shape[-1]
        camera = camera_fractions(model_camera(self.camera, size, self.aspect)).double()
        block, half = inverse_depth[:, AGE_BLOCK // 2 :: AGE_BLOCK, AGE_BLOCK // 2 :: AGE_BLOCK], 0.5 / size
        camera = camera - torch.tensor([0.0, 0.0, half, half], dtype=torch.float64)  # pixel centres, not block centres
        voxel_m = self.memory.config.voxel_m
        stamps: NDArray[np.float64] = np.full(block.numel(), np.nan)
        for beyond_m in (0.0, 0.5 * voxel_m, -0.5 * voxel_m):  # blended depth may lie a little off its voxel
            depth_m = (
                torch.where(block > 0, 1.0 / block.clamp_min(1e-6), 0.0).double().cpu() + beyond_m * (block > 0).cpu()
            )
            points = lift_depth(depth_m, camera, extrinsics.cpu())
            moved = transform_points(poses_odom_xyyaw.double().cpu(), points).reshape(-1, 3).numpy()
            stamps = np.where(np.isnan(stamps), looked_at_s(self.memory, moved), stamps)
        if now_s is None:
            newest_s = float(self.memory.voxels.stamp_s.max()) if len(self.memory) else 0.0
            now_s = torch.full((len(block),), newest_s, dtype=torch.float64)  # float32 knows today's stamps to 128 s
        looked_s = torch.from_numpy(stamps).reshape(block.shape)
        ages = torch.nan_to_num(now_s.double()[:, None, None] - looked_s).clamp_min(0.0).float()
        return ages.repeat_interleave(AGE_BLOCK, 1).repeat_interleave(AGE_BLOCK, 2).to(inverse_depth.device)
