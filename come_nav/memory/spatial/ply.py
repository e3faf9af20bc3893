"""Point clouds as PLY files, for Open3D, CloudCompare, MeshLab or RViz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import StorageError
from come_nav.core.files import atomic_path


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
