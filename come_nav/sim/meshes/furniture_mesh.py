"""Models of furniture, read once and brought into the frame and size that they stand with on a floor.

The frame is the one of :mod:`come_nav.sim.building.furniture`: x along the width, the front looks to +y, z up; the
origin is on the floor, below the middle. Catalogues give models with y up and the front to +z.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.sim.meshes.mesh_files import MeshColours, read_mesh
from come_nav.sim.meshes.texels import texel_density

CELL_M = 0.05  # of footprints
STANDS_BELOW_M = 1.0  # what is higher does not stop a robot
TO_LOCAL = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
KEPT_MESHES = 512


@dataclass(frozen=True, eq=False)
class FurnitureMesh:
    """A model in its own frame, metres.

    Attributes:
        vertices: (V, 3) float32.
        triangles: (F, 3) uint32.
        normals: (V, 3) float32 of unit length where the file has any, zero elsewhere.
        colours: of the triangles.
    """

    vertices: NDArray[np.float32]
    triangles: NDArray[np.uint32]
    normals: NDArray[np.float32]
    colours: MeshColours

    @cached_property
    def footprint(self) -> NDArray[np.float64]:
        """Rectangles (M, 4) x0, y0, x1, y1 that cover what stands below 1 m, in cells of 5 cm."""
        import cv2

        corners = self.vertices[self.triangles]
        low = corners[corners[..., 2].min(1) < STANDS_BELOW_M][..., :2]
        origin = low.min((0, 1)) - CELL_M
        cells = np.ceil((low.max((0, 1)) - origin) / CELL_M).astype(int) + 1
        mask: NDArray[np.uint8] = np.zeros((cells[1], cells[0]), np.uint8)
        place = (low - origin) / CELL_M
        column, row = np.moveaxis(np.floor(place).astype(int), -1, 0)
        mask[row, column] = 1
        wide = np.ptp(place, axis=1).max(1) > 1.0  # smaller ones are where their corners are
        shift = 4  # bits of a fraction of a cell
        for triangle in np.round((place[wide] - 0.5) * (1 << shift)).astype(np.int32):
            cv2.fillConvexPoly(mask, triangle, 1, shift=shift)
        rectangles = np.array(_rectangles(mask > 0), dtype=np.float64) * CELL_M + np.tile(origin, 2)
        ends = (np.tile(low.min((0, 1)), 2), np.tile(low.max((0, 1)), 2))
        return np.asarray(np.clip(rectangles, *ends), np.float64)

    @cached_property
    def colour(self) -> tuple[float, float, float]:
        """Mean colour, for maps."""
        middle = np.full((len(self.triangles), 2), 1.0 / 3.0, np.float32)
        every = np.arange(len(self.triangles))
        red, green, blue = self.colours.at(every, middle, np.full(len(every), 0.1, np.float32)).mean(0).tolist()
        return red, green, blue

    def height_at(self, points_xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the height (N,) of what is seen from above at points (N, 2); 0 where nothing is."""
        rays = np.zeros((len(points_xy), 6), np.float32)
        rays[:, :2], rays[:, 2], rays[:, 5] = points_xy, self.vertices[:, 2].max() + 1.0, -1.0
        hits = self._scene.cast_rays(_open3d().core.Tensor(rays))["t_hit"].numpy()
        return np.where(np.isfinite(hits), rays[:, 2] - hits, 0.0).astype(np.float64)

    @cached_property
    def _scene(self) -> Any:
        o3d = _open3d()
        scene = o3d.t.geometry.RaycastingScene()
        scene.add_triangles(o3d.core.Tensor(self.vertices), o3d.core.Tensor(self.triangles))
        return scene


@lru_cache(maxsize=KEPT_MESHES)
def furniture_mesh(path: Path, size_m: tuple[float, float, float], rotation: tuple[float, ...] = ()) -> FurnitureMesh:
    """Read a model.

    Args:
        path: OBJ file.
        size_m: width, depth and height that it is brought to, m.
        rotation: 9 numbers, row by row, that turn the file's axes into x right, y up, z to the front; none = they are.

    Raises:
        DataError: for a file that cannot be read, or a model without extent.
    """
    content = read_mesh(path)
    turn = np.array(rotation, dtype=np.float64).reshape(3, 3) if rotation else np.eye(3)
    to_local = TO_LOCAL @ turn
    points = content.vertices @ to_local.T
    met = np.zeros(len(points), dtype=bool)
    met[content.triangles] = True
    used = points[met]
    low, high = used.min(0), used.max(0)
    if not (np.isfinite(points).all() and (high - low).max() > 0.0):
        raise DataError(f"{path}: holds no extent; collect the pack again with come-nav assets collect")
    scale = np.asarray(size_m) / np.maximum(high - low, 1e-9)
    anchor = np.array([0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1]), low[2]])
    vertices = ((points - anchor) * scale).astype(np.float32)
    normals = (content.normals @ to_local.T) / scale  # normals are scaled the other way round
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    colours = content.colours or _plain(len(content.triangles))
    sizes = np.array([*([image.shape[1], image.shape[0]] for image in colours.textures), [0, 0]])
    density = texel_density(vertices[content.triangles], colours.uvs, sizes[colours.texture_of])
    return FurnitureMesh(
        vertices,
        content.triangles.astype(np.uint32),
        (normals / np.maximum(length, 1e-9)).astype(np.float32),
        MeshColours(colours.corners, colours.textures, colours.texture_of, colours.uvs, density),
    )


def _plain(triangles: int) -> MeshColours:
    """Return the grey of a model without materials."""
    return MeshColours(
        np.full((triangles, 3, 3), 0.7, np.float32),
        (),
        np.full(triangles, -1, np.int32),
        np.zeros((triangles, 3, 2), np.float32),
        np.zeros(triangles, np.float32),
    )


def _rectangles(mask: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """Cover the set cells of a mask (Y, X) with rectangles x0, y0, x1, y1: runs of rows that go on for many rows."""
    left = mask.copy()
    found = []
    while left.any():
        y0, x0 = (int(value) for value in np.argwhere(left)[0])
        x1 = x0 + 1
        while x1 < left.shape[1] and left[y0, x1]:
            x1 += 1
        y1 = y0 + 1
        while y1 < left.shape[0] and left[y1, x0:x1].all():
            y1 += 1
        left[y0:y1, x0:x1] = False
        found.append((x0, y0, x1, y1))
    return found


def _open3d() -> Any:
    import open3d  # slow to import, and only meshes need it

    return open3d
