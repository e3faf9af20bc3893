"""Reads triangle meshes with their colours through Open3D (glTF and OBJ with all their materials)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.sim.meshes.texels import Texels, texel_density

CLEAR_BELOW = 0.35  # opacity of what is looked through, as glass is
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
        per_unit: (F,) texels per unit of length on the triangles.
    """

    corners: NDArray[np.float32]
    textures: tuple[NDArray[np.float32], ...]
    texture_of: NDArray[np.int32]
    uvs: NDArray[np.float32]
    per_unit: NDArray[np.float32]

    @cached_property
    def texels(self) -> Texels:
        """The textures, ready to be looked up."""
        return Texels(self.textures)

    def at(
        self, triangle: NDArray[Any], barycentric: NDArray[np.float32], footprint: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return colours (P, 3) at barycentric (P, 2) of triangles (P,): interpolated corners times texels.

        ``footprint`` (P,) is how far apart neighbouring pixels look, in units of length: it chooses the mip level.
        """
        weights = corner_weights(barycentric)
        colours: NDArray[np.float32] = (self.corners[triangle] * weights).sum(1)
        place = (self.uvs[triangle] * weights).sum(1)
        level = np.log2(np.maximum(footprint * self.per_unit[triangle], 1.0))
        return colours * self.texels.sample(self.texture_of[triangle], place, level)


def corner_weights(barycentric: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the shares (P, 3, 1) of a triangle's corners in points at barycentric coordinates (P, 2)."""
    u, v = barycentric[:, :1], barycentric[:, 1:]
    weights: NDArray[np.float32] = np.stack([1.0 - u - v, u, v], axis=1)
    return weights


@dataclass(frozen=True)
class MeshFile:
    """Content of a mesh file.

    Attributes:
        vertices: (V, 3) in the file's axes.
        triangles: (F, 3).
        colours: of the triangles, or None.
        normals: (V, 3) of unit length where the file has any, zero elsewhere.
    """

    vertices: NDArray[np.float64]
    triangles: NDArray[np.int32]
    colours: MeshColours | None
    normals: NDArray[np.float32]


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
    parts = [(mesh, material) for mesh, material in parts if len(mesh.triangles) and not _is_clear(material)]
    if not parts:
        raise DataError(f"{path}: holds no triangles, or is damaged; export it again as a triangle mesh")
    content = _join(parts)
    if not np.isfinite(content.vertices).all():
        raise DataError(f"{path}: holds vertices that are NaN or infinite; export it again")
    return content


def _join(parts: list[tuple[Any, Any]]) -> MeshFile:
    """Put the meshes of a file into one list of triangles with one list of textures."""
    offset = 0
    vertices, normals, triangles, corners, texture_of, uvs = [], [], [], [], [], []
    textures: list[NDArray[np.float32]] = []
    coloured = False
    for mesh, material in parts:
        faces = np.asarray(mesh.triangles, dtype=np.int32)
        vertices.append(np.asarray(mesh.vertices, dtype=np.float64))
        has_normals = mesh.has_vertex_normals()
        normals.append(np.asarray(mesh.vertex_normals if has_normals else np.zeros_like(vertices[-1]), np.float32))
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
    points, faces = np.concatenate(vertices), np.concatenate(triangles)
    place, image_of = np.concatenate(uvs), np.concatenate(texture_of)
    sizes = np.array([*([image.shape[1], image.shape[0]] for image in textures), [0, 0]])  # -1 finds the last
    per_unit = texel_density(points[faces], place, sizes[image_of])
    colours = MeshColours(np.concatenate(corners), tuple(textures), image_of, place, per_unit)
    return MeshFile(points, faces, colours if coloured else None, np.concatenate(normals))


def _is_clear(material: Any) -> bool:
    """Whether a material is glass or the like; depth cameras look through it, too."""
    return material is not None and float(np.asarray(material.base_color)[3]) < CLEAR_BELOW


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
