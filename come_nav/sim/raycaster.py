"""Batched RGB and depth camera for the built-in worlds, in plain torch: the same code on CPU and CUDA."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch

from come_nav.core.checks import check_shape
from come_nav.core.errors import ConfigError
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.building.atlas import LEVELS, build_atlas, sample_atlas
from come_nav.sim.building.surfaces import AMBIENT, DIFFUSE, FACES_PER_BOX, FALLOFF_PER_M2, ROW_SIZE
from come_nav.sim.building.textures import PATTERN_COUNT, TEXTURE_SIZE, make_patterns
from come_nav.sim.meshes.furniture_view import FurnishedScenes, FurnitureView
from come_nav.sim.sensors.mounting import MountedCamera
from come_nav.sim.tilted_view import HORIZON, TiltedView
from come_nav.sim.visibility import Hits, PackedBoxes, cast
from come_nav.sim.worlds import World

ROOM_CELL_M = 0.1
PIXELS_PER_CHUNK = {"cpu": 65536, "cuda": 2**22}


class Raycaster:
    """Renders what a camera on the robot sees (a ``ViewRenderer``).

    The camera stands over the origin of base_link, ``camera_height_m`` above the floor, and looks along x, turned up by
    ``pitch_rad``. A level camera is cheapest: the columns of its image are vertical. Modelled furniture is cast by
    Open3D on the CPU and painted into the boxes' view.
    """

    def __init__(
        self,
        worlds: Sequence[World],
        intrinsics: CameraIntrinsics,
        camera_height_m: float = 0.5,
        device: str | torch.device = "cpu",
        pitch_rad: float = 0.0,
        roll_rad: float = 0.0,
    ) -> None:
        """Pack ``worlds`` for rendering on ``device``.

        Raises:
            ConfigError: without worlds, or with a camera that is not between floor and ceiling.
        """
        if not worlds:
            raise ConfigError("worlds must hold at least one world, got none")
        self.worlds = list(worlds)
        self.device = torch.device(device)
        self._boxes, self._boxes_per_world = _pack_boxes(worlds, self.device)
        self._rows, self._rows_per_world = _pack_rows(worlds, self._boxes_per_world, self.device)
        self._room_grid = _pack_room_grid(worlds, self.device)
        textures = torch.cat([torch.tensor(make_patterns()), *(world.images for world in worlds)])
        self._atlas = build_atlas(textures.to(self.device))
        self._scenes = FurnishedScenes(worlds)
        self._look_through(MountedCamera(intrinsics, camera_height_m, pitch_rad, roll_rad))

    @classmethod
    def of_camera(cls, worlds: Sequence[World], camera: MountedCamera, device: str | torch.device = "cpu") -> Raycaster:
        """Return a renderer of ``worlds`` through a mounted camera."""
        return cls(worlds, camera.intrinsics, camera.height_m, device, camera.pitch_rad, camera.roll_rad)

    def with_camera(self, intrinsics: CameraIntrinsics) -> Raycaster:
        """Return a renderer of the same worlds with another camera in the same place."""
        return self.through(replace(self.camera, intrinsics=intrinsics))

    def through(self, camera: MountedCamera) -> Raycaster:
        """Return a renderer of the same worlds through another camera, mounted as it is."""
        other = copy.copy(self)
        other._look_through(camera)
        return other

    @property
    def intrinsics(self) -> CameraIntrinsics:
        """The camera."""
        return self.camera.intrinsics

    @property
    def camera_height_m(self) -> float:
        """Its height above the floor."""
        return self.camera.height_m

    @property
    def pitch_rad(self) -> float:
        """Pitch of its optical axis, positive = looks up."""
        return self.camera.pitch_rad

    def _look_through(self, camera: MountedCamera) -> None:
        lowest = min(world.ceiling_m for world in self.worlds)
        if not 0.0 < camera.height_m < lowest:
            raise ConfigError(f"camera_height_m must be in (0, {lowest:.2f}), got {camera.height_m!r}")
        self.camera, intrinsics = camera, camera.intrinsics
        self._furniture = FurnitureView(self._scenes, camera) if self._scenes else None
        level = camera.pitch_rad == 0.0 and camera.roll_rad == 0.0
        self._tilted = None if level else TiltedView(camera, self.device)
        if self._tilted is not None:
            self._slopes_right, self._slopes_up = self._tilted.slopes_right, self._tilted.slopes_up
            return
        columns = torch.arange(intrinsics.width, dtype=torch.float64) + 0.5
        rows = torch.arange(intrinsics.height, dtype=torch.float64) + 0.5
        up = (intrinsics.cy - rows) / intrinsics.fy
        up[up.abs() < HORIZON] = HORIZON  # the horizon row itself: level, but never divides by zero
        self._slopes_right = ((columns - intrinsics.cx) / intrinsics.fx).float().to(self.device)
        self._slopes_up = up.float().to(self.device)

    @torch.no_grad()
    def render(
        self, poses_world_xyyaw: torch.Tensor, world_index: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Render B views.

        Args:
            poses_world_xyyaw: (B, 3) poses of base_link in the world.
            world_index: (B,) which of the worlds; all in world 0 when None.

        Returns:
            images (B, 3, H, W) in [-1, 1] and z-depth (B, H, W) in metres.

        Raises:
            ShapeError: for arguments of other shapes.
        """
        batch = check_shape("poses_world_xyyaw", poses_world_xyyaw, "B 3")["B"]
        poses = poses_world_xyyaw.to(self.device, torch.float32)
        world = torch.zeros(batch, dtype=torch.long, device=self.device)
        if world_index is not None:
            check_shape("world_index", world_index, str(batch))
            world = world_index.to(self.device, torch.long)
        width, height, rows = self.intrinsics.width, self.intrinsics.height, len(self._slopes_up)
        most = PIXELS_PER_CHUNK["cpu" if self.device.type == "cpu" else "cuda"]
        chunk = max(1, most // (len(self._slopes_right) * rows))
        images = torch.empty(batch, 3, height, width, device=self.device)
        depth = torch.empty(batch, height, width, device=self.device)
        for start in range(0, batch, chunk):
            part = slice(start, start + chunk)
            self._render_chunk(poses[part], world[part], images[part], depth[part])
        if self._furniture is not None:
            self._furniture.paint(images, depth, poses_world_xyyaw, world)
        return images, depth

    def _render_chunk(
        self, poses: torch.Tensor, world: torch.Tensor, images: torch.Tensor, depth: torch.Tensor
    ) -> None:
        hits = cast(self._boxes, world, poses, self._slopes_right, self._slopes_up, self.camera_height_m)
        colours = self._shade(hits, poses, world)
        columns = (len(poses), len(self._slopes_right), len(self._slopes_up))
        if self._tilted is not None:
            self._tilted.resample(colours.view(len(poses), 3, *columns[1:]), hits.depth.view(columns), images, depth)
            return
        depth.copy_(hits.depth.view(columns).transpose(1, 2))
        images.copy_(colours.view(len(poses), 3, *columns[1:]).transpose(2, 3))

    def _shade(self, hits: Hits, poses: torch.Tensor, world: torch.Tensor) -> torch.Tensor:
        """Return colours (B, 3, W * H) in [-1, 1]; columns of the image are contiguous."""
        batch, width = len(poses), len(self._slopes_right)
        camera = poses[:, :2].repeat_interleave(width, 0)
        direction = hits.direction
        depth = hits.depth
        x = torch.addcmul(camera[:, :1], depth, direction[:, :1])
        y = torch.addcmul(camera[:, 1:], depth, direction[:, 1:])
        rise = depth * self._slopes_up
        world_of_column = world.repeat_interleave(width)[:, None]
        row = self._surface_rows(hits.face, x, y, world_of_column)
        (texture, ux, uy, ou, vz, ov, red, green, blue, *lights) = (
            self._rows.index_select(0, row.reshape(-1)).view(*row.shape, -1).unbind(-1)
        )
        side = vz != 0
        u = ux * x + uy * y
        level_v = ux * y - uy * x
        v = torch.where(side, vz * (rise + self.camera_height_m), level_v)
        level = self._mip_level(depth, side, ux, uy, direction)
        frame = (batch, -1)
        colours = sample_atlas(
            self._atlas,
            texture.reshape(frame),
            u.add_(ou).reshape(frame),
            v.add_(ov).reshape(frame),
            level.reshape(frame),
        )
        bright = self._light(lights, x, y, rise, world_of_column).reshape(frame)
        tint = torch.stack([channel.reshape(frame) for channel in (red, green, blue)], 1)
        return colours.mul_(tint).mul_(bright[:, None]).clamp_(max=1.0).mul_(2.0).sub_(1.0)

    def _surface_rows(
        self, face: torch.Tensor, x: torch.Tensor, y: torch.Tensor, world_of_column: torch.Tensor
    ) -> torch.Tensor:
        """Return the surface row (C, H) of every hit; floors and ceilings look up the room at (x, y)."""
        _, cells_x, cells_y = self._room_grid.shape
        cell_x = (x * (1.0 / ROOM_CELL_M)).clamp_(0, cells_x - 1).to(torch.int32)
        cell_y = (y * (1.0 / ROOM_CELL_M)).clamp_(0, cells_y - 1).to(torch.int32)
        cell = (cell_x * cells_y).add_(cell_y).add_((world_of_column * (cells_x * cells_y)).to(torch.int32))
        room_row = self._room_grid.view(-1).index_select(0, cell.view(-1)).view(face.shape)
        room_row = room_row + (self._slopes_up > 0).to(torch.int32)  # a room's ceiling row follows its floor row
        box_row = face + (world_of_column * self._rows_per_world).to(torch.int32)
        return torch.where(face < 0, room_row, box_row)

    def _mip_level(
        self, depth: torch.Tensor, side: torch.Tensor, ux: torch.Tensor, uy: torch.Tensor, direction: torch.Tensor
    ) -> torch.Tensor:
        """Return the mip level (C, H) whose texels are about as large as the pixel's footprint.

        The footprint is depth / f across the ray, stretched by 1 / (slope of the ray against the face) along it; the
        level takes the geometric mean of both, a compromise between blur and aliasing.
        """
        per_metre_squared = ux * ux + uy * uy
        along = ux * direction[:, :1] + uy * direction[:, 1:]
        length_squared = (direction * direction).sum(-1, keepdim=True)
        # side faces: squared speed against the face = |d|^2 - (speed along the face)^2
        against = length_squared - along * along / per_metre_squared
        against = torch.where(side, against, self._slopes_up * self._slopes_up).clamp_(min=0.003)
        texels = depth * depth * per_metre_squared * (TEXTURE_SIZE / self.intrinsics.fx) ** 2
        level = torch.log2(texels * torch.rsqrt(against)).mul_(0.5)
        return level.add_(0.25).round_().clamp_(0, LEVELS - 1)

    def _light(
        self,
        lights: list[torch.Tensor],
        x: torch.Tensor,
        y: torch.Tensor,
        rise: torch.Tensor,
        world_of_column: torch.Tensor,
    ) -> torch.Tensor:
        """Return the brightness (C, H): ambient plus Lambert's law for both lamps, 0.15 m below the ceiling."""
        drop = self._boxes.ceiling[world_of_column] - (0.15 + self.camera_height_m) - rise
        drop_squared = drop * drop
        total = torch.full_like(x, AMBIENT)
        for light_x, light_y, height in (lights[:3], lights[3:6]):
            dx, dy = light_x - x, light_y - y
            squared = torch.addcmul(drop_squared, dx, dx).addcmul_(dy, dy).add_(0.05)
            total.add_(height * torch.rsqrt(squared) / squared.mul_(FALLOFF_PER_M2).add_(1.0), alpha=DIFFUSE)
        return total


def _pack_boxes(worlds: Sequence[World], device: torch.device) -> tuple[PackedBoxes, int]:
    count = max(len(world.boxes) for world in worlds)
    packed = torch.zeros(len(worlds), count, 7)
    packed[:, :, 0] = 1e6  # padding: a point far away
    full = torch.zeros(len(worlds), count, dtype=torch.bool)
    for index, world in enumerate(worlds):
        packed[index, : len(world.boxes)] = world.boxes
        full[index, : len(world.boxes)] = (world.boxes[:, 5] <= 0) & (world.boxes[:, 6] >= world.ceiling_m - 1e-4)
    x, y, half_x, half_y, yaw, low, high = packed.to(device).unbind(-1)
    ceiling = torch.tensor([world.ceiling_m for world in worlds], device=device)
    boxes = PackedBoxes(
        x.contiguous(),
        y.contiguous(),
        half_x.contiguous(),
        half_y.contiguous(),
        yaw.cos(),
        yaw.sin(),
        low.contiguous(),
        high.contiguous(),
        full.to(device),
        ceiling,
    )
    return boxes, count


def _pack_rows(worlds: Sequence[World], boxes: int, device: torch.device) -> tuple[torch.Tensor, int]:
    """Return surface rows (Wn * R, 15), per world all box faces, then floor and ceiling of every room, and R."""
    rooms = max(len(world.rooms) for world in worlds)
    per_world = boxes * FACES_PER_BOX + 2 * rooms
    first_image = PATTERN_COUNT
    rows = torch.zeros(len(worlds), per_world, ROW_SIZE)
    for index, world in enumerate(worlds):
        mine = rows[index]
        mine[: len(world.boxes) * FACES_PER_BOX] = world.faces.flatten(0, 1)
        shell = torch.stack([world.floors, world.ceilings], 1).flatten(0, 1)
        mine[boxes * FACES_PER_BOX : boxes * FACES_PER_BOX + len(shell)] = shell
        image = mine[:, 0] < 0
        mine[image, 0] = first_image - 1 - mine[image, 0]
        first_image += len(world.images)
    return rows.flatten(0, 1).to(device), per_world


def _pack_room_grid(worlds: Sequence[World], device: torch.device) -> torch.Tensor:
    """Return (Wn, X, Y) int32: the row of the floor of the room at each cell; the ceiling's row follows it."""
    cells = [int(max(world.bounds[axis + 2] for world in worlds) / ROOM_CELL_M) + 1 for axis in (0, 1)]
    boxes = max(len(world.boxes) for world in worlds)
    rooms = max(len(world.rooms) for world in worlds)
    x = (torch.arange(cells[0]) + 0.5) * ROOM_CELL_M
    y = (torch.arange(cells[1]) + 0.5) * ROOM_CELL_M
    points = torch.stack(torch.meshgrid(x, y, indexing="ij"), -1)
    grids = []
    for index, world in enumerate(worlds):
        base = index * (boxes * FACES_PER_BOX + 2 * rooms) + boxes * FACES_PER_BOX
        grids.append(base + 2 * world.room_of(points).clamp(min=0))
    return torch.stack(grids).to(device, torch.int32)
