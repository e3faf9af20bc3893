"""What a spatial memory shows at every goal of a drive, made once with the drive: the robot has been there before.

The first part of an episode fills a :class:`SpatialMemory` by odometry that drifts; the rest is the drive that windows
are drawn from. Views are kept as bytes (see :meth:`come_nav.world_model.reprojection.RenderedView.packed`).
"""

from __future__ import annotations

import torch

from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.remembered_views import RememberedViews
from come_nav.sim.episodes import camera_in_base
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.chain import to_uint8
from come_nav.world_model.reprojection import RenderedView

FRAMES_PER_CALL, VIEWS_PER_CALL = 64, 32


def fill_memory(
    raycaster: Raycaster, poses_world_xyyaw: torch.Tensor, odometry_xyyaw: torch.Tensor, device: str
) -> SpatialMemory:
    """Return the memory of frames with true depth at world poses (M, 3) that odometry (M, 3) believes elsewhere."""
    memory, camera = SpatialMemory(), raycaster.intrinsics
    extrinsics = camera_in_base(raycaster.camera_height_m)
    poses = se3.transform_from_xyyaw(odometry_xyyaw.double().numpy())
    start = 0
    for chunk in poses_world_xyyaw.split(FRAMES_PER_CALL):
        images, depth = raycaster.render(chunk.to(device))
        rgb_frames, depth_m = to_uint8(images), depth.cpu().numpy()
        for offset, (rgb, metres) in enumerate(zip(rgb_frames, depth_m, strict=True)):
            index = start + offset
            memory.observe(Frame(float(index), rgb, metres, camera, extrinsics), poses[index])
        start += len(chunk)
    return memory


def remembered_views(
    memory: SpatialMemory, camera: CameraIntrinsics, camera_height_m: float, poses_odom_xyyaw: torch.Tensor
) -> torch.Tensor:
    """Return bytes (S, 5, H, W) of what the memory shows from odometry poses (S, 3)."""
    source = RememberedViews(memory, camera, camera_in_base(camera_height_m))
    parts = poses_odom_xyyaw.float().split(VIEWS_PER_CALL)
    return torch.cat([RenderedView(*source.views(part, camera.width)).packed() for part in parts])


def branch_poses(odometry_xyyaw: torch.Tensor, actions_xyyaw: torch.Tensor) -> torch.Tensor:
    """Return where odometry would believe the branches (F, Q, 3) of frames at (F, 3)."""
    poses: torch.Tensor = se2.compose(odometry_xyyaw[:, None].to(actions_xyyaw), actions_xyyaw)
    return poses
