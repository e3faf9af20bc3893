"""Reads triangle meshes with their colours through Open3D (glTF and OBJ with all their materials)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError

WITH_MATERIALS = (".obj", ".glb", ".gltf")
WITHOUT_MATERIALS = (".ply", ".stl", ".off")
SUFFIXES = WITHOUT_MATERIALS + WITH_MATERIALS


@dataclass(frozen=True)
class MeshColours:
    """Colour of every point on the triangles.

    Attributes:
        corners: (F, 3, 3) colours in [0, 1] of the triangles' corners; they multiply the texture.
        textures: images (H, W, 3) in [0, 1].
        texture_of: (F,) index into ``textures``; -1 = none.
        uvs: (F, 3, 2) texture coordinates of the corners, v upwards.
    """

    corners: NDArray[np.float32]
    textures: tuple[NDArray[np.float32], ...]
    texture_of: NDArray[np.int32]
    uvs: NDArray[np.float32]

    def at(self, triangle: NDArray[Any], barycentric: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return colours (P, 3) at barycentric (P, 2) of triangles (P,): interpolated corners times nearest texel."""
        u, v = barycentric[:, :1], barycentric[:, 1:]
        weights = np.stack([1.0 - u - v, u, v], axis=1)
        colours: NDArray[np.float32] = (self.corners[triangle] * weights).sum(1)
        place = (self.uvs[triangle] * weights).sum(1) % 1.0
        for index, image in enumerate(self.textures):
            mine = self.texture_of[triangle] == index
            column = np.minimum((place[mine, 0] * image.shape[1]).astype(int), image.shape[1] - 1)
            row = np.minimum(((1.0 - place[mine, 1]) * image.shape[0]).astype(int), image.shape[0] - 1)
            colours[mine] *= image[row, column]
        return colours


@dataclass(frozen=True)
class MeshFile:
    """Content of a mesh file: vertices (V, 3) in the file's axes, triangles (F, 3), colours or None."""

    vertices: NDArray[np.float64]
    triangles: NDArray[np.int32]
    colours: MeshColours | None


def read_mesh(path: Path) -> MeshFile:
    """Read ``path``.

    Raises:
        DataError: for a missing or damaged file, another kind of file, or one without triangles.
    """
    import open3d as o3d  # slow to import, and only meshes need it

    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: must be a mesh ({', '.join(SUFFIXES)}), is '{suffix or 'without suffix'}'")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    reader: Any = o3d.io  # its type stubs disagree with its functions
    with o3d.utility.VerbosityContextManager(o3d.utility.VerbosityLevel.Error):
        if suffix in WITH_MATERIALS:
            model = reader.read_triangle_model(str(path))
            parts = [(part.mesh, model.materials[part.material_idx]) for part in model.meshes]
        else:
            parts = [(reader.read_triangle_mesh(str(path)), None)]
    parts = [(mesh, material) for mesh, material in parts if len(mesh.triangles)]
    if not parts:
        raise DataError(f"{path}: holds no triangles, or is damaged; export it again as a triangle mesh")
    content = _join(parts)
    if not np.isfinite(content.vertices).all():
        raise DataError(f"{path}: holds vertices that are NaN or infinite; export it again")
    return content


def _join(parts: list[tuple[Any, Any]]) -> MeshFile:
    """Put the meshes of a file into one list of triangles with one list of textures."""
    offset = 0
    vertices, triangles, corners, texture_of, uvs = [], [], [], [], []
    textures: list[NDArray[np.float32]] = []
    coloured = False
    for mesh, material in parts:
        faces = np.asarray(mesh.triangles, dtype=np.int32)
        vertices.append(np.asarray(mesh.vertices, dtype=np.float64))
        triangles.append(faces + offset)
        offset += len(vertices[-1])
        colour: NDArray[np.float32] = np.ones((len(faces), 3, 3), dtype=np.float32)
        image = None
        if mesh.has_vertex_colors():
            colour = np.asarray(mesh.vertex_colors, dtype=np.float32)[faces]
        if material is not None:
            colour = np.asarray(colour * np.asarray(material.base_color, dtype=np.float32)[:3], np.float32)
            image = _image(material) if mesh.has_triangle_uvs() else None
        coloured |= mesh.has_vertex_colors() or image is not None or bool((colour != 1.0).any())
        texture_of.append(np.full(len(faces), -1 if image is None else len(textures), dtype=np.int32))
        if image is not None:
            textures.append(image)
            uvs.append(np.asarray(mesh.triangle_uvs, dtype=np.float32).reshape(-1, 3, 2))
        else:
            uvs.append(np.zeros((len(faces), 3, 2), dtype=np.float32))
        corners.append(colour)
    colours = MeshColours(np.concatenate(corners), tuple(textures), np.concatenate(texture_of), np.concatenate(uvs))
    return MeshFile(np.concatenate(vertices), np.concatenate(triangles), colours if coloured else None)


def _image(material: Any) -> NDArray[np.float32] | None:
    """Return the material's colour texture (H, W, 3) in [0, 1], or None."""
    if material.albedo_img is None:
        return None
    pixels = np.asarray(material.albedo_img)
    if pixels.size == 0:
        return None
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    scale = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1.0
    image: NDArray[np.float32] = np.asarray(pixels[..., :3], dtype=np.float32) / np.float32(scale)
    return np.broadcast_to(image, (*image.shape[:2], 3)) if image.shape[2] == 1 else image
