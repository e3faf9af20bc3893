"""Fill a latent bank by driving through built-in worlds and rendering on the training device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from tqdm import tqdm

from come_nav.core.geometry import se2
from come_nav.core.geometry.point_rendering import camera_fractions
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.episodes import simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.mounting import MountedCamera
from come_nav.sim.sensors.odometry import OdometrySettings
from come_nav.sim.world_sets import world_set
from come_nav.sim.worlds import World, WorldSettings, generate_world
from come_nav.training.config import DataSettings
from come_nav.training.data.bank import Encode, LatentBank, step_generator
from come_nav.training.data.memory_views import (
    PastDrive,
    fill_memory,
    memory_of_latents,
    remembered_latents,
    remembered_views,
)
from come_nav.training.data.memory_views import branch_poses as branch_poses_odom
from come_nav.training.data.sensing import DriveSenses, known_depth, renderer_of, yaw_rates
from come_nav.world_model.images import bytes_from_images, images_from_bytes

# Branches are the views of random drives from a frame: up to 4 s ahead, over the robot's whole range of twists.
BRANCH_MAX_FRAMES = 16
BRANCH_SPEED_MPS = (-0.1, 0.6)
BRANCH_YAW_RATE_RADPS = (-1.2, 1.2)
BRANCH_CLEARANCE_M = 0.2
BRANCH_TRIES = 8
LEAST_MEMORY = 0.3  # share of data.memory_s that the shortest memory holds
VIEWS_PER_CALL = 256


def training_camera(image_size: int) -> CameraIntrinsics:
    """Return the built-in camera: square, 90 degrees wide."""
    return CameraIntrinsics.from_field_of_view(image_size, image_size, math.pi / 2)


@dataclass(frozen=True)
class Drive:
    """One drive through a built-in world, ready to be rendered.

    Attributes:
        world: where it goes.
        poses_world_xyyaw: (F, 3) of the frames.
        branch_poses_xyyaw: (F, Q, 3) of the branches, in the world.
        branch_frames: (F, Q) their times in frames.
        before_world_xyyaw: (M, 3) poses of the time before, which a spatial memory holds; M may be 0.
        odometry_xyyaw: (M + F, 3) where odometry believed the robot all the time.
        camera: that it was driven with; None = the built-in one.
        measured: whether it had a depth camera.
        seed: of the drive's sensors.
        memory: bytes (F + F Q, 7, S, S) of what the memory shows at frames and branches, where that was made already.
    """

    world: World
    poses_world_xyyaw: torch.Tensor
    branch_poses_xyyaw: torch.Tensor
    branch_frames: torch.Tensor
    before_world_xyyaw: torch.Tensor
    odometry_xyyaw: torch.Tensor
    camera: MountedCamera | None = None
    measured: bool = True
    seed: int = 0
    memory: torch.Tensor | None = None


def taken_in_turn(drivers: Sequence[str], sets_of_worlds: Sequence[str], number: int) -> tuple[str, WorldSettings]:
    """Return driver and look of the world of drive ``number``: every driver in one set, then in the next one."""
    look = sets_of_worlds[number // len(drivers) % len(sets_of_worlds)]
    return drivers[number % len(drivers)], world_set(look)


def make_drive(world_seed: int, number: int, config: DataSettings, rate_hz: float, seed: int | None = None) -> Drive:
    """Return the drive ``number`` (it chooses driver and set of worlds) through a world.

    ``seed`` is that of the drive: the world's if None. It renders nothing and needs no device, so that it can run in
    another process; it takes some 0.3 s a minute.
    """
    seed = world_seed if seed is None else seed
    driver, look = taken_in_turn(config.drivers, config.sets_of_worlds, number)
    world = generate_world(world_seed, look)
    drift, length = torch.rand(2, generator=step_generator(seed, 60, 0)).tolist()
    before = int(config.memory_s * (LEAST_MEMORY + (1.0 - LEAST_MEMORY) * length) * rate_hz)
    noise = OdometrySettings.from_percent(drift * config.memory_drift_percent) if before else None
    episode = simulate_episode(world, driver, config.episode_s + before / rate_hz, rate_hz, seed, noise)
    everywhere = torch.as_tensor(episode.poses_world_xyyaw, dtype=torch.float32)
    odometry = torch.as_tensor(episode.odometry_xyyaw, dtype=torch.float32)
    poses = everywhere[before:]
    generator = step_generator(seed, 0, 0)
    world = replace(world)  # without what was computed on the way: it may go to another process
    branches = draw_branches(world, poses, config.branches, rate_hz, generator, config.turn_branches)
    drawn = step_generator(seed, 61, 0)
    measured = bool(torch.rand((), generator=drawn) < config.measured_fraction)
    camera = None if config.cameras is None else config.cameras.draw(config.camera_px, drawn)
    return Drive(world, poses, *branches, everywhere[:before], odometry, camera, measured, seed)


def drive_frames(config: DataSettings, rate_hz: float) -> int:
    """Return the number of frames of every drive."""
    return int(config.episode_s * rate_hz + 1e-9) + 1


def sim_banks(
    seeds: Sequence[int],
    config: DataSettings,
    image_size: int,
    rate_hz: float,
    encode: Encode,
    device: str,
    progress: bool = True,
    senses: DriveSenses | None = None,
) -> Iterator[LatentBank]:
    """Drive once through every world of ``seeds`` and yield the encoded frames and branches of each drive."""
    camera = training_camera(image_size)
    for number, seed in enumerate(tqdm(seeds, desc="render and encode worlds", unit="world", disable=not progress)):
        drive = make_drive(seed, number, config, rate_hz)
        yield encode_drive(drive, camera, config, encode, device, "cpu", senses)


def sim_bank(
    seeds: Sequence[int], config: DataSettings, image_size: int, rate_hz: float, encode: Encode, device: str
) -> LatentBank:
    """Return the drives of :func:`sim_banks` as one bank in memory."""
    return LatentBank.concatenate(list(sim_banks(seeds, config, image_size, rate_hz, encode, device)))


def draw_branches(
    world: World,
    poses_world_xyyaw: torch.Tensor,
    branches: int,
    rate_hz: float,
    generator: torch.Generator,
    turn_share: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return collision-free branch poses (F, Q, 3) in the world and their times (F, Q) in frames.

    Each is the end of an arc of random twist and length from its frame; an arc that ends in an obstacle is drawn
    again, and after ``BRANCH_TRIES`` replaced by a turn on the spot. ``turn_share`` of them turn on the spot anyway.
    """
    shape = (len(poses_world_xyyaw), branches)
    result = torch.zeros(*shape, 3)
    frames = torch.zeros(shape, dtype=torch.int64)
    open_slots = torch.ones(shape, dtype=torch.bool)
    turns = torch.rand(shape, generator=generator) < turn_share
    for attempt in range(BRANCH_TRIES + 1):
        v, w, count = _draw_twists(shape, generator)
        v = torch.zeros_like(v) if attempt == BRANCH_TRIES else v.masked_fill(turns, 0.0)
        local = se2.integrate_twist(v, w, count / rate_hz)
        poses = se2.compose(poses_world_xyyaw[:, None], local)
        free = world.free(poses[..., :2].reshape(-1, 2), BRANCH_CLEARANCE_M).reshape(shape)
        accept = open_slots & (free | turns | torch.tensor(attempt == BRANCH_TRIES))
        result = torch.where(accept[..., None], poses, result)
        frames = torch.where(accept, count, frames)
        open_slots &= ~accept
    return result, frames


def random_free_poses(world: World, count: int, generator: torch.Generator, clearance_m: float = 0.2) -> torch.Tensor:
    """Return ``count`` poses (count, 3), uniform over the world's free floor and all headings."""
    low, high = torch.as_tensor(world.bounds, dtype=torch.float32).reshape(2, 2)
    found: list[torch.Tensor] = []
    total = 0
    while total < count:
        points = low + (high - low) * torch.rand(4 * count, 2, generator=generator)
        free = points[world.free(points, clearance_m)]
        found.append(free)
        total += len(free)
    yaw = (torch.rand(count, 1, generator=generator) * 2 - 1) * math.pi
    return torch.cat([torch.cat(found)[:count], yaw], dim=1)


def _draw_twists(shape: tuple[int, int], generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    low_v, high_v = BRANCH_SPEED_MPS
    low_w, high_w = BRANCH_YAW_RATE_RADPS
    v = low_v + (high_v - low_v) * torch.rand(shape, generator=generator)
    w = low_w + (high_w - low_w) * torch.rand(shape, generator=generator)
    return v, w, torch.randint(1, BRANCH_MAX_FRAMES + 1, shape, generator=generator)


def encode_drive(
    drive: Drive,
    camera: CameraIntrinsics,
    config: DataSettings,
    encode: Encode,
    device: str,
    keep_on: str,
    senses: DriveSenses | None = None,
) -> LatentBank:
    """Render and encode a drive on ``device``; return its bank with latents and images on device ``keep_on``.

    ``camera`` is the built-in one, for drives without their own; ``senses`` say what a robot makes of what it sees.
    """
    mounted = drive.camera or MountedCamera(camera)
    renderer = renderer_of(drive.world, mounted, device)
    poses, branch_poses = drive.poses_world_xyyaw, drive.branch_poses_xyyaw
    count, branches = drive.branch_frames.shape
    rate_hz = senses.rate_hz if senses else 1.0
    sensors = (senses or DriveSenses()).sensors_of(mounted.intrinsics, drive.seed)
    parent = torch.arange(count).repeat_interleave(branches)
    parts: list[tuple[torch.Tensor, torch.Tensor | None]] = [(chunk, None) for chunk in poses.split(VIEWS_PER_CALL)]
    if branches:
        beside = branch_poses.reshape(-1, 3).split(VIEWS_PER_CALL)
        parts += list(zip(beside, parent.split(VIEWS_PER_CALL), strict=True))
    latents: list[torch.Tensor] = []
    images: list[torch.Tensor] = []
    depths: list[torch.Tensor] = []
    for chunk, frame in parts:
        ideal = renderer.render(chunk.to(device))
        if frame is None:
            rendered, depth = sensors.frames(*ideal, yaw_rates(chunk, rate_hz))
        else:
            rendered, depth = sensors.beside(*ideal, frame)
        latents.append(encode(rendered).half().to(keep_on))
        if config.keep_images:
            images.append(bytes_from_images(rendered).to(keep_on))
        if config.keep_depth and frame is None:
            depths.append(depth.half().to(keep_on))
    frames, branch_latents = _split(torch.cat(latents), count, branches)
    own_images, branch_images = _split(torch.cat(images), count, branches) if images else (None, None)
    actions = se2.relative(poses[:, None], branch_poses) if branches else branch_poses
    memory = branch_memory = latent_memory = branch_latent_memory = None
    if config.memory_features == "latent" and len(drive.before_world_xyyaw):
        shown = _latent_memory(drive, renderer, actions, frames.shape[1:], encode, device, senses)
        latent_memory, branch_latent_memory = _split(shown.to(keep_on), count, branches)
    else:
        memory, branch_memory = _memory(drive, renderer, actions, device, keep_on, senses)
    bank = LatentBank(
        latents=frames,
        poses_xyyaw=poses,
        first=torch.zeros(count, dtype=torch.int64),
        last=torch.full((count,), count - 1),
        branch_latents=branch_latents,
        branch_actions_xyyaw=actions,
        branch_rel_frames=drive.branch_frames,
        images=own_images,
        branch_images=branch_images,
        depth_m=torch.cat(depths)[:count] if depths else None,
        cameras=camera_fractions(camera),
        camera_index=torch.zeros(count, dtype=torch.int64),
        memory=memory,
        branch_memory=branch_memory,
        latent_memory=latent_memory,
        branch_latent_memory=branch_latent_memory,
    )
    return bank if senses is None else _with_senses(bank, drive, mounted, senses, device, keep_on)


def _with_senses(
    bank: LatentBank, drive: Drive, camera: MountedCamera, senses: DriveSenses, device: str, keep_on: str
) -> LatentBank:
    """Return the bank with the drive's own camera, and depth as the robot knows it."""
    count = len(bank)
    bank = replace(
        bank,
        cameras=None,
        camera_index=None,
        frame_cameras=camera_fractions(camera.intrinsics).expand(count, -1).contiguous(),
        T_base_camera=torch.from_numpy(camera.T_base_camera).float().expand(count, -1, -1).contiguous(),
    )
    if bank.images is None or bank.depth_m is None:
        return bank
    images = images_from_bytes(bank.images.to(device))
    depth_m, measured = known_depth(images, bank.depth_m.float().to(device), drive.measured, camera, senses)
    return replace(
        bank, depth_m=depth_m.half().to(keep_on), measured=measured.to(keep_on, torch.uint8), branch_images=None
    )


def _memory(
    drive: Drive,
    renderer: Raycaster,
    actions_xyyaw: torch.Tensor,
    device: str,
    keep_on: str,
    senses: DriveSenses | None,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return what a memory of the time before shows at the frames and at the branches, where there was such a time."""
    if not len(drive.before_world_xyyaw):
        return None, None
    views = drive.memory
    if views is None:
        views = memory_bytes(drive, renderer, actions_xyyaw, device, senses)
    return _split(views.to(keep_on), *drive.branch_frames.shape)


def memory_bytes(
    drive: Drive, renderer: Raycaster, actions_xyyaw: torch.Tensor, device: str, senses: DriveSenses | None
) -> torch.Tensor:
    """Return bytes (F + F Q, 5 or 7, S, S) of what the memory of the time before shows at frames and branches."""
    before, (count, branches) = len(drive.before_world_xyyaw), drive.branch_frames.shape
    memory = fill_memory(renderer, _past_of(drive), device, senses)
    poses = _wanted_poses(drive, actions_xyyaw)
    now = torch.arange(before, before + count, dtype=torch.float64)
    now_s = torch.cat([now, now.repeat_interleave(branches)]) / (senses.rate_hz if senses else 1.0)
    facts = senses is not None and senses.facts
    return remembered_views(memory, renderer.camera, poses, now_s if facts else None, drive.measured, device)


def _past_of(drive: Drive) -> PastDrive:
    before = drive.before_world_xyyaw
    return PastDrive(before, drive.odometry_xyyaw[: len(before)], drive.measured, drive.seed)


def _wanted_poses(drive: Drive, actions_xyyaw: torch.Tensor) -> torch.Tensor:
    """Return where odometry believes the frames and their branches, (F + F Q, 3)."""
    poses = drive.odometry_xyyaw[len(drive.before_world_xyyaw) :]
    return torch.cat([poses, branch_poses_odom(poses, actions_xyyaw).reshape(-1, 3)])


def _latent_memory(
    drive: Drive,
    renderer: Raycaster,
    actions_xyyaw: torch.Tensor,
    latent_shape: Sequence[int],
    encode: Encode,
    device: str,
    senses: DriveSenses | None,
) -> torch.Tensor:
    """Return (F + F Q, C + 4, h, w) of what a memory of latents of the time before shows at frames and branches."""
    memory = memory_of_latents(encode, latent_shape[0], device)
    fill_memory(renderer, _past_of(drive), device, senses, memory)
    return remembered_latents(memory, renderer.camera, _wanted_poses(drive, actions_xyyaw), latent_shape[-1], device)


def with_memory_made(drive: Drive, camera: CameraIntrinsics, senses: DriveSenses) -> Drive:
    """Return the drive with what its memory shows: the slow part of encoding it, which needs no device."""
    if not len(drive.before_world_xyyaw):
        return drive
    renderer = renderer_of(drive.world, drive.camera or MountedCamera(camera), "cpu")
    actions = se2.relative(drive.poses_world_xyyaw[:, None], drive.branch_poses_xyyaw)
    return replace(drive, world=replace(drive.world), memory=memory_bytes(drive, renderer, actions, "cpu", senses))


def _split(values: torch.Tensor, count: int, branches: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return values of the frames (F, ...) and of their branches (F, Q, ...)."""
    return values[:count], values[count:].reshape(count, branches, *values.shape[1:])
