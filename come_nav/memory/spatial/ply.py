"""Point clouds as PLY files, for Open3D, CloudCompare, MeshLab or RViz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError, StorageError
from come_nav.core.files import atomic_path
from come_nav.memory.spatial.cloud import SpatialMemory


def write_ply(path: Path, points_xyz: NDArray[Any], colours: NDArray[Any]) -> None:
    """Write points (N, 3) in metres with colours (N, 3) in [-1, 1] as binary PLY, atomically.

    Raises:
        StorageError: if the file cannot be written.
    """
    import open3d

    cloud = open3d.geometry.PointCloud()
    cloud.points = open3d.utility.Vector3dVector(np.asarray(points_xyz, np.float64))
    cloud.colors = open3d.utility.Vector3dVector(np.clip(0.5 * (np.asarray(colours, np.float64) + 1.0), 0.0, 1.0))
    with atomic_path(path) as temporary:
        named = temporary.with_name(f"{temporary.name}.ply")  # Open3D knows the format by the name's end
        try:
            if not open3d.io.write_point_cloud(named, cloud):
                raise StorageError(f"{path}: cannot be written; choose a folder you may write to, with enough space")
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)


def export_ply(memory: SpatialMemory, path: Path, min_hits: float = 0.0) -> int:
    """Write a memory's cloud as a PLY file with Open3D; return the number of points.

    Args:
        memory: of colours.
        path: file to write.
        min_hits: points seen less often than this are left out.

    Raises:
        DataError: if there is no point, or the points remember latents, which have no colour to show.
    """
    if memory.features.channels != 3:
        raise DataError(f"a cloud with {memory.features.channels} features for each point has no colours to export")
    chosen = memory.voxels.hits >= min_hits
    if not chosen.any():
        raise DataError(f"{path}: of {len(memory)} points none was seen {min_hits:g} times; ask for fewer looks")
    write_ply(path, memory.points_xyz[chosen], memory.point_features[chosen])
    return int(chosen.sum())
