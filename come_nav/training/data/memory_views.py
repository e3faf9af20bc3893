"""What a spatial memory shows at every goal of a drive, made once with the drive: the robot has been there before.

The first part of an episode fills a :class:`SpatialMemory` by odometry that drifts; the rest is the drive that windows
are drawn from. Views are kept as bytes (see :meth:`come_nav.world_model.reprojection.RenderedView.packed`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from come_nav.core.geometry import se2, se3
from come_nav.core.types import Frame
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.latent.features import LatentFeatures
from come_nav.memory.spatial.latent.views import RememberedLatents
from come_nav.memory.spatial.remembered_views import RememberedViews
from come_nav.memory.spatial.settings import SpatialSettings
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.chain import to_uint8
from come_nav.sim.sensors.mounting import MountedCamera
from come_nav.training.data.sensing import DriveSenses, known_depth, yaw_rates
from come_nav.training.data.windows import Encode
from come_nav.world_model.images import images_from_bytes
from come_nav.world_model.reprojection import ESTIMATED_TRUST, RenderedView
from come_nav.world_model.views import read_out, with_facts

FRAMES_PER_CALL, VIEWS_PER_CALL = 64, 32


@dataclass(frozen=True)
class PastDrive:
    """The time before a drive: true poses and what odometry believed, both (M, 3); depth camera or not; seed."""

    poses_world_xyyaw: torch.Tensor
    odometry_xyyaw: torch.Tensor
    measured: bool = True
    seed: int = 0


def fill_memory(
    renderer: Raycaster,
    past: PastDrive,
    device: str,
    senses: DriveSenses | None = None,
    memory: SpatialMemory | None = None,
) -> SpatialMemory:
    """Return the memory of frames with the depth that the robot knew, at poses where odometry believed it.

    ``memory`` is what is filled: one of colours by default.
    """
    memory, camera = SpatialMemory() if memory is None else memory, renderer.intrinsics
    extrinsics = renderer.camera.T_base_camera
    poses = se3.transform_from_xyyaw(past.odometry_xyyaw.double().numpy())
    rate_hz = senses.rate_hz if senses else 1.0
    sensors = (senses or DriveSenses()).sensors_of(camera, past.seed, before=True)
    start = 0
    for chunk in past.poses_world_xyyaw.split(FRAMES_PER_CALL):
        images, depth = renderer.render(chunk.to(device))
        if senses is not None:
            images, depth = sensors.frames(images, depth, yaw_rates(chunk, rate_hz))
            if not past.measured:
                depth, _ = known_depth(images, depth, False, renderer.camera, senses)
        rgb_frames, depth_m = to_uint8(images), depth.cpu().numpy()
        for offset, (rgb, metres) in enumerate(zip(rgb_frames, depth_m, strict=True)):
            index = start + offset
            memory.observe(Frame(index / rate_hz, rgb, metres, camera, extrinsics), poses[index])
        start += len(chunk)
    return memory


def remembered_views(
    memory: SpatialMemory,
    camera: MountedCamera,
    poses_odom_xyyaw: torch.Tensor,
    now_s: torch.Tensor | None = None,
    measured: bool = True,
    device: str = "cpu",
) -> torch.Tensor:
    """Return bytes (S, 5, H, W) of what the memory shows from odometry poses (S, 3), rendered on ``device``.

    With the times ``now_s`` (S,) of the views, the bytes (S, 7, H, W) tell the age of what is shown as well, and the
    trust in its depth. They are on the CPU.
    """
    source = RememberedViews(memory, camera.intrinsics, camera.T_base_camera)
    trust = 1.0 if measured else ESTIMATED_TRUST
    parts = []
    for rows in torch.arange(len(poses_odom_xyyaw)).split(VIEWS_PER_CALL):
        poses = poses_odom_xyyaw[rows].float()
        view = RenderedView(*(own.cpu() for own in source.views(poses.to(device), camera.intrinsics.width)))
        if now_s is not None:
            age_s = source.ages_s(poses, view.inverse_depth, now_s=now_s[rows])
            view = replace(view, facts=torch.stack([age_s, torch.full_like(age_s, trust)], 1))
        parts.append(view.packed())
    return torch.cat(parts)


def memory_of_latents(encode: Encode, channels: int, device: str) -> SpatialMemory:
    """Return an empty memory of the latents (C, h, w) that ``encode`` makes of images on ``device``."""

    def latents_of(frame: Frame) -> torch.Tensor:
        pixels = torch.from_numpy(frame.rgb).to(device).permute(2, 0, 1)[None]
        return encode(images_from_bytes(pixels))[0].float().cpu()

    return SpatialMemory(SpatialSettings("latent"), LatentFeatures(latents_of, channels))


def remembered_latents(
    memory: SpatialMemory, camera: MountedCamera, poses_odom_xyyaw: torch.Tensor, latent_size: int, device: str = "cpu"
) -> torch.Tensor:
    """Return what a memory of latents shows from odometry poses (S, 3), as plans read it: (S, C + 4, h, w) float16.

    It is rendered on ``device``, and returned on the CPU.
    """
    source = RememberedLatents(memory, camera.intrinsics, camera.T_base_camera, _undecoded, latent_size)
    parts = poses_odom_xyyaw.float().to(device).split(VIEWS_PER_CALL)
    return torch.cat([with_facts(read_out(source, part, latent_size)).half() for part in parts]).cpu()


def _undecoded(latents: torch.Tensor) -> torch.Tensor:
    return latents  # nobody asks for pixels


def branch_poses(odometry_xyyaw: torch.Tensor, actions_xyyaw: torch.Tensor) -> torch.Tensor:
    """Return where odometry would believe the branches (F, Q, 3) of frames at (F, 3)."""
    poses: torch.Tensor = se2.compose(odometry_xyyaw[:, None].to(actions_xyyaw), actions_xyyaw)
    return poses
