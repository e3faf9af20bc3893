"""Places read from meshes (.ply, .obj, .glb, .stl, .off) and rendered by Open3D's ray casting."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.checks import check_choice, check_shape
from come_nav.core.errors import ConfigError
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.meshes.mesh_files import MeshColours, read_mesh
from come_nav.sim.spaces import GRID_M

FLOOR_TOLERANCE_M = 0.06
ROBOT_HEIGHT_M = 1.0
RAYS_PER_CHUNK = 2**20


@dataclass(frozen=True)
class MeshWorld:
    """A mesh with its floor at z = 0 (``DriveSpace``).

    Attributes:
        path: file it came from.
        vertices: (V, 3) float32 metres, z up.
        triangles: (F, 3) int32.
        colours: of the triangles, or None for shaded grey.
        seed: -1; meshes have none.
    """

    path: Path
    vertices: NDArray[np.float32]
    triangles: NDArray[np.int32]
    colours: MeshColours | None = field(default=None, repr=False)
    seed: int = -1
    solid: None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What a recording made here says about the place."""
        return {"mesh": self.path.name}

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) of the mesh."""
        low, high = self.vertices[:, :2].min(0), self.vertices[:, :2].max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    @property
    def rooms(self) -> torch.Tensor:
        """One room (1, 4): the bounds."""
        return torch.tensor([self.bounds])

    def room_of(self, points_xy: torch.Tensor) -> torch.Tensor:
        """Return 0 (...) for every point (..., 2)."""
        return torch.zeros(points_xy.shape[:-1], dtype=torch.long)

    def polygons(self) -> list[tuple[NDArray[np.float64], tuple[float, float, float]]]:
        """Obstacle cells of the grid as squares."""
        cells = np.argwhere(self.distance_grid <= 0)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        return [((cell + corners) * GRID_M + self.bounds[:2], (0.45, 0.45, 0.48)) for cell in cells]

    @cached_property
    def scene(self) -> Any:
        """Open3D's ray-casting scene of the triangles."""
        o3d = _open3d()
        scene = o3d.t.geometry.RaycastingScene()
        scene.add_triangles(o3d.core.Tensor(self.vertices), o3d.core.Tensor(self.triangles.astype(np.uint32)))
        return scene

    @cached_property
    def distance_grid(self) -> NDArray[np.float32]:
        """Distance (X, Y) of 5 cm cells to the nearest cell where a look down from 1 m does not meet the floor."""
        from scipy import ndimage

        x0, y0, x1, y1 = self.bounds
        x = x0 + (np.arange(math.ceil((x1 - x0) / GRID_M)) + 0.5) * GRID_M
        y = y0 + (np.arange(math.ceil((y1 - y0) / GRID_M)) + 0.5) * GRID_M
        rays = np.zeros((len(x), len(y), 6), dtype=np.float32)
        rays[..., 0], rays[..., 1] = x[:, None], y[None, :]
        rays[..., 2], rays[..., 5] = ROBOT_HEIGHT_M, -1.0
        floor = np.abs(self.cast(rays)["t_hit"] - ROBOT_HEIGHT_M) < FLOOR_TOLERANCE_M
        floor &= ~self._walls(x, y)  # thin walls hide from a look straight down
        padded = np.pad(floor, 1, constant_values=False)
        distance = np.asarray(ndimage.distance_transform_edt(padded), np.float64)[1:-1, 1:-1] * GRID_M
        return np.maximum(distance - 0.5 * GRID_M * (distance > 0), 0.0).astype(np.float32)

    def _walls(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
        """Cells (X, Y) crossed by a surface at one of three heights: walls of no thickness show only from the side."""
        found = np.zeros((len(x), len(y)), dtype=bool)
        for height in (0.12, 0.35, 0.7):
            for axis, forward in ((0, 1.0), (0, -1.0), (1, 1.0), (1, -1.0)):
                rays = np.zeros((len(x), len(y), 6), dtype=np.float32)
                rays[..., 0], rays[..., 1], rays[..., 2] = x[:, None], y[None, :], height
                rays[..., 3 + axis] = forward
                found |= self.cast(rays)["t_hit"] <= 0.5 * GRID_M
        return found

    def free(self, points_xy: torch.Tensor, radius_m: float) -> torch.Tensor:
        """Whether discs at points (..., 2) touch nothing, as bool (...), from the 5 cm grid."""
        grid = torch.from_numpy(self.distance_grid)
        x0, y0, _, _ = self.bounds
        column = ((points_xy[..., 0] - x0) / GRID_M).floor().long()
        row = ((points_xy[..., 1] - y0) / GRID_M).floor().long()
        inside = (column >= 0) & (row >= 0) & (column < grid.shape[0]) & (row < grid.shape[1])
        nearest = grid[column.clamp(0, grid.shape[0] - 1), row.clamp(0, grid.shape[1] - 1)]
        return inside & (nearest > radius_m)

    def cast(self, rays: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Return hit distance, triangle, barycentric coordinates and normal of rays (..., 6)."""
        hits = self.scene.cast_rays(_open3d().core.Tensor(rays))
        return {name: hits[name].numpy() for name in ("t_hit", "primitive_ids", "primitive_uvs", "primitive_normals")}


class MeshRaycaster:
    """Renders a mesh from the robot's camera: the same interface as the built-in :class:`Raycaster`, on the CPU."""

    def __init__(
        self, world: MeshWorld, intrinsics: CameraIntrinsics, camera_height_m: float = 0.5, pitch_rad: float = 0.0
    ) -> None:
        self.worlds = [world]
        self.intrinsics = intrinsics
        self.camera_height_m, self.pitch_rad = camera_height_m, pitch_rad
        u = (np.arange(intrinsics.width) + 0.5 - intrinsics.cx) / intrinsics.fx
        v = (intrinsics.cy - np.arange(intrinsics.height) - 0.5) / intrinsics.fy
        self._right, up = np.meshgrid(u, v)
        cosine, sine = math.cos(pitch_rad), math.sin(pitch_rad)
        self._forward, self._up = cosine - up * sine, sine + up * cosine

    def with_camera(self, intrinsics: CameraIntrinsics) -> MeshRaycaster:
        """Return a renderer of the same mesh with another camera in the same place."""
        return MeshRaycaster(self.worlds[0], intrinsics, self.camera_height_m, self.pitch_rad)

    def render(
        self, poses_world_xyyaw: torch.Tensor, world_index: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (B, 3, H, W) in [-1, 1] and z-depth (B, H, W) in metres; 0 where nothing is hit.

        Raises:
            ConfigError: when ``world_index`` names another world than 0.
        """
        check_shape("poses_world_xyyaw", poses_world_xyyaw, "B 3")
        if world_index is not None and bool((world_index != 0).any()):
            raise ConfigError("world_index must be 0: a mesh ray-caster holds one world")
        poses = poses_world_xyyaw.detach().cpu().double().numpy()
        chunk = max(1, RAYS_PER_CHUNK // self._right.size)
        parts = [self._render_chunk(poses[start : start + chunk]) for start in range(0, len(poses), chunk)]
        images, depths = zip(*parts, strict=True) if parts else ([np.empty((0, *self._right.shape, 3))], [np.empty(0)])
        image = torch.from_numpy(np.concatenate(images)).permute(0, 3, 1, 2).float() * 2.0 - 1.0
        return image.contiguous(), torch.from_numpy(np.concatenate(depths)).float().reshape(-1, *self._right.shape)

    def _render_chunk(self, poses: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        cosine, sine = (function(poses[:, 2])[:, None, None] for function in (np.cos, np.sin))
        rays = np.empty((len(poses), *self._right.shape, 6), dtype=np.float32)
        rays[..., :2] = poses[:, None, None, :2]
        rays[..., 2] = self.camera_height_m
        rays[..., 3] = self._forward * cosine + self._right * sine
        rays[..., 4] = self._forward * sine - self._right * cosine
        rays[..., 5] = self._up  # one metre of depth per unit of the parameter
        world = self.worlds[0]
        hits = world.cast(rays)
        seen = np.isfinite(hits["t_hit"])
        direction = rays[..., 3:] / np.linalg.norm(rays[..., 3:], axis=-1, keepdims=True)
        facing = np.abs((hits["primitive_normals"] * direction).sum(-1, keepdims=True))
        colours = np.full((*seen.shape, 3), 0.75, dtype=np.float32)
        shade = 0.35 + 0.65 * facing
        if world.colours is not None:
            footprint = hits["t_hit"][seen] / self.intrinsics.fx / np.sqrt(np.maximum(facing[seen][:, 0], 0.05))
            colours[seen] = world.colours.at(hits["primitive_ids"][seen], hits["primitive_uvs"][seen], footprint)
            shade = 0.8 + 0.2 * facing  # scans carry their light with them
        colours = np.where(seen[..., None], colours * shade, 0.0).astype(np.float32)
        return colours, np.where(seen, hits["t_hit"], 0.0).astype(np.float32)


def load_mesh_world(path: Path | str, up_axis: str | None = None, floor_height_m: float | None = None) -> MeshWorld:
    """Read a mesh and put its floor at z = 0.

    Args:
        path: .ply, .obj, .glb, .gltf, .stl or .off; units are metres.
        up_axis: "z" or "y"; when None, y for glTF (its standard says so) and z for the others.
        floor_height_m: height of the floor along the up axis; the lowest vertex when None.

    Raises:
        DataError: for a missing or unreadable file, another kind of file, or one without triangles.
        ConfigError: for another up axis.
    """
    path = Path(path)
    axis = up_axis if up_axis is not None else ("y" if path.suffix.lower() in (".glb", ".gltf") else "z")
    check_choice("up_axis", axis, ("z", "y"))
    content = read_mesh(path)
    vertices = content.vertices
    if axis == "y":
        vertices = np.stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]], axis=1)
    vertices = vertices - [0.0, 0.0, vertices[:, 2].min() if floor_height_m is None else floor_height_m]
    return MeshWorld(path, vertices.astype(np.float32), content.triangles, content.colours)


def _open3d() -> Any:
    import open3d  # slow to import, and only meshes need it

    return open3d
