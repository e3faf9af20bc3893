"""Modelled furniture of built-in worlds, painted into what the ray-caster shows of their walls and boxes.

Open3D casts the rays; light, textures and depth follow the rules of :mod:`come_nav.sim.raycaster`, so that a model
stands in a room like the boxes beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.sim.building.modelled import PlacedModel
from come_nav.sim.building.surfaces import AMBIENT, DIFFUSE, FALLOFF_PER_M2
from come_nav.sim.meshes.furniture_mesh import FurnitureMesh
from come_nav.sim.meshes.mesh_files import MeshColours, corner_weights
from come_nav.sim.sensors.mounting import MountedCamera
from come_nav.sim.worlds import World

FRAMES_PER_CAST = 16
KEPT_SCENES = 24
SHADOW_CELL_M, SHADOW_MARGIN_M = 0.05, 0.6
SHADOW, SHADOW_REACH_M, ON_FLOOR_M = 0.5, 0.12, 0.02


class FurnishedScene:
    """The models of one world: one scene of rays, and one table of triangles that models of a kind share."""

    def __init__(self, models: Sequence[PlacedModel]) -> None:
        import open3d as o3d  # slow to import, and only furnished worlds need it

        self._o3d = o3d
        self._scene = o3d.t.geometry.RaycastingScene(nthreads=torch.get_num_threads())
        meshes: dict[int, FurnitureMesh] = {id(model.mesh): model.mesh for model in models}
        counts = np.array([len(mesh.triangles) for mesh in meshes.values()])
        first_of = dict(zip(meshes, np.cumsum(counts) - counts, strict=True))
        self._colours = _joined([mesh.colours for mesh in meshes.values()])
        self._normals = np.concatenate([mesh.normals[mesh.triangles] for mesh in meshes.values()])
        self._first, yaws, lamps, tints = [], [], [], []
        for model in models:
            vertices = _turned(model.mesh.vertices, model.yaw) + np.array([model.x, model.y, model.z], np.float32)
            tensor = o3d.core.Tensor.from_numpy
            self._scene.add_triangles(tensor(vertices), tensor(model.mesh.triangles))
            self._first.append(first_of[id(model.mesh)])
            assert model.lights is not None, "models are placed in the light of a room"
            yaws.append(model.yaw)
            lamps.append(np.column_stack([model.lights.positions_xyz, model.lights.brightness]))
            tints.append(model.lights.colour)
        self._first_triangle, self._yaws = np.array(self._first), np.array(yaws, np.float32)
        self._shadow, self._shadow_origin = _floor_shadow(models)
        self._lamps, self._tints = np.array(lamps, np.float32), np.array(tints, np.float32)  # (M, 2, 4), (M, 3)

    def nearer(
        self, origins: NDArray[np.float32], directions: NDArray[np.float32], depth_m: NDArray[np.float32], focal: float
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
        """Return which of P rays hit a model nearer than ``depth_m`` (P,), and depth (Q,) and colours (Q, 3) there.

        Directions (P, 3) are as long as one metre of depth; ``focal`` is in pixels.
        """
        rays = np.concatenate([origins, directions], axis=1)
        hits = self._scene.cast_rays(self._o3d.core.Tensor.from_numpy(rays))
        depth = hits["t_hit"].numpy()
        seen: NDArray[np.bool_] = depth < depth_m
        names = ("geometry_ids", "primitive_ids", "primitive_uvs", "primitive_normals")
        model, triangle, place, normal = (hits[name].numpy()[seen] for name in names)
        triangle = triangle.astype(np.int64) + self._first_triangle[model]
        normal = self._smooth(model, triangle, place, normal)
        direction = directions[seen]
        length = np.linalg.norm(direction, axis=1)
        facing = (normal * direction).sum(1) / length
        normal = np.where(facing[:, None] > 0.0, -normal, normal)
        footprint = depth[seen] / focal / np.sqrt(np.clip(np.abs(facing), 0.05, 1.0))
        colours = self._colours.at(triangle, place, footprint)
        points = origins[seen] + direction * depth[seen][:, None]
        lit: NDArray[np.float32] = colours * self._tints[model] * self._light(model, points, normal)[:, None]
        return seen, depth[seen], np.minimum(lit, 1.0)

    def shadow(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how bright the floor is at points (P, 3), 1 = as without furniture; 1 for what is above the floor."""
        from scipy import ndimage

        bright = np.ones(len(points), np.float32)
        low = np.abs(points[:, 2]) < ON_FLOOR_M
        place = (points[low, :2] - self._shadow_origin) / SHADOW_CELL_M - 0.5
        bright[low] = ndimage.map_coordinates(self._shadow, place.T, order=1, mode="nearest")
        return bright

    def _smooth(
        self,
        model: NDArray[Any],
        triangle: NDArray[Any],
        place: NDArray[np.float32],
        flat: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return normals (P, 3) between those of the corners, where the model has any."""
        normal = (self._normals[triangle] * corner_weights(place)).sum(1)
        cosine, sine = np.cos(self._yaws[model]), np.sin(self._yaws[model])
        turned = [cosine * normal[:, 0] - sine * normal[:, 1], sine * normal[:, 0] + cosine * normal[:, 1]]
        smooth = np.stack([*turned, normal[:, 2]], axis=1)
        length = np.linalg.norm(smooth, axis=1, keepdims=True)
        side = np.sign((smooth * flat).sum(1, keepdims=True))  # of the surface, as the ray met it
        found: NDArray[np.float32] = np.where(length > 0.1, smooth * side / np.maximum(length, 1e-6), flat)
        return found

    def _light(
        self, model: NDArray[Any], points: NDArray[np.float32], normal: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the brightness (P,): ambient plus Lambert's law for both lamps of the model's room."""
        total = np.full(len(points), AMBIENT, np.float32)
        for lamp in np.moveaxis(self._lamps[model], 1, 0):
            towards = lamp[:, :3] - points
            squared = (towards * towards).sum(1) + 0.05
            height = np.maximum((towards * normal).sum(1), 0.0) * lamp[:, 3]
            total += DIFFUSE * height / np.sqrt(squared) / (1.0 + FALLOFF_PER_M2 * squared)
        return total


class FurnishedScenes:
    """The models of some worlds: each world's scene is made when it is first looked at, and some are kept.

    A scene takes about 0.2 GB and half a second to make, so that hundreds of worlds do not fit into memory.
    """

    def __init__(self, worlds: Sequence[World]) -> None:
        models = self._models = [world.models for world in worlds]
        # without self in it, so that scenes go as soon as nothing refers to them
        self._scene = lru_cache(KEPT_SCENES)(lambda number: FurnishedScene(models[number]))

    def __bool__(self) -> bool:
        """Whether any of the worlds has models."""
        return any(self._models)

    def of(self, number: int) -> FurnishedScene | None:
        """Return the scene of world ``number``; None where it has no models."""
        return self._scene(number) if self._models[number] else None


class FurnitureView:
    """The furniture of some worlds, seen by one camera."""

    def __init__(self, scenes: FurnishedScenes, camera: MountedCamera) -> None:
        self._scenes, self._height_m, self._focal = scenes, camera.height_m, camera.intrinsics.fx
        rays_base = camera.rays_optical @ camera.T_base_camera[:3, :3].T
        self._rays: NDArray[np.float64] = rays_base.reshape(-1, 3)

    def paint(
        self, images: torch.Tensor, depth_m: torch.Tensor, poses_world_xyyaw: torch.Tensor, world: torch.Tensor
    ) -> None:
        """Paint it into images (B, 3, H, W) in [-1, 1] and z-depth (B, H, W), in place."""
        poses, worlds = poses_world_xyyaw.double().cpu().numpy(), world.cpu().numpy()
        for number in np.unique(worlds):
            scene, mine = self._scenes.of(int(number)), np.nonzero(worlds == number)[0]
            for start in range(0, len(mine) if scene is not None else 0, FRAMES_PER_CAST):
                assert scene is not None
                self._paint(scene, images, depth_m, poses, mine[start : start + FRAMES_PER_CAST])

    def _paint(
        self,
        scene: FurnishedScene,
        images: torch.Tensor,
        depth_m: torch.Tensor,
        poses: NDArray[np.float64],
        frames: NDArray[np.int64],
    ) -> None:
        count = len(self._rays)
        directions = np.concatenate([_turned(self._rays, yaw) for yaw in poses[frames, 2]]).astype(np.float32)
        places = np.column_stack([poses[frames, :2], np.full(len(frames), self._height_m)])
        origins = np.repeat(places, count, axis=0).astype(np.float32)
        known = depth_m[frames].reshape(-1).cpu().numpy()
        seen, depth, colours = scene.nearer(origins, directions, known, self._focal)
        if not seen.any():
            return
        self._paint_floor(scene, images, origins + directions * known[:, None], frames)
        known[seen] = depth
        depth_m[frames] = torch.from_numpy(known).to(depth_m).view(len(frames), *depth_m.shape[1:])
        painted = images[frames].permute(0, 2, 3, 1).reshape(-1, 3)
        shown = torch.from_numpy(np.nonzero(seen)[0]).to(images.device)
        painted[shown] = torch.from_numpy(colours).to(images) * 2.0 - 1.0
        images[frames] = painted.view(len(frames), *images.shape[2:], 3).permute(0, 3, 1, 2)

    def _paint_floor(
        self, scene: FurnishedScene, images: torch.Tensor, points: NDArray[np.float32], frames: NDArray[np.int64]
    ) -> None:
        """Darken the floor below and beside furniture: little of a room's light gets there."""
        bright = torch.from_numpy(scene.shadow(points)).to(images).view(len(frames), 1, *images.shape[2:])
        images[frames] = (images[frames] + 1.0) * bright - 1.0


def _floor_shadow(models: Sequence[PlacedModel]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the brightness (X, Y) of the floor in cells, rising with the distance to furniture, and its origin."""
    from scipy import ndimage

    rectangles = np.concatenate([np.empty((0, 5)), *(model.footprints for model in models if model.z == 0.0)])
    reach = np.hypot(rectangles[:, 2], rectangles[:, 3])[:, None]
    low = (rectangles[:, :2] - reach).min(0, initial=0.0) - SHADOW_MARGIN_M
    high = (rectangles[:, :2] + reach).max(0, initial=0.0) + SHADOW_MARGIN_M
    covered = np.zeros(np.ceil((high - low) / SHADOW_CELL_M).astype(int), dtype=bool)
    x, y = (origin + (np.arange(count) + 0.5) * SHADOW_CELL_M for origin, count in zip(low, covered.shape, strict=True))
    for centre_x, centre_y, half_x, half_y, yaw in rectangles:
        dx, dy, cosine, sine = x[:, None] - centre_x, y[None] - centre_y, np.cos(yaw), np.sin(yaw)
        covered |= (np.abs(cosine * dx + sine * dy) <= half_x) & (np.abs(cosine * dy - sine * dx) <= half_y)
    distance = np.asarray(ndimage.distance_transform_edt(~covered), np.float64) * SHADOW_CELL_M
    return (1.0 - SHADOW * np.exp(-distance / SHADOW_REACH_M)).astype(np.float32), low


def _turned(points: NDArray[Any], yaw: float) -> NDArray[Any]:
    """Return points or directions (N, 3) turned about z."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    x, y = cosine * points[:, 0] - sine * points[:, 1], sine * points[:, 0] + cosine * points[:, 1]
    return np.stack([x, y, points[:, 2]], axis=1).astype(points.dtype)


def _joined(colours: Sequence[MeshColours]) -> MeshColours:
    """Return the colours of several meshes, one after the other."""
    firsts = np.cumsum([0, *(len(part.textures) for part in colours)])
    textures = tuple(image for part in colours for image in part.textures)
    texture_of = [
        np.where(part.texture_of < 0, -1, part.texture_of + first) for part, first in zip(colours, firsts, strict=False)
    ]
    return MeshColours(
        np.concatenate([part.corners for part in colours]),
        textures,
        np.concatenate(texture_of).astype(np.int32),
        np.concatenate([part.uvs for part in colours]),
        np.concatenate([part.per_unit for part in colours]),
    )
