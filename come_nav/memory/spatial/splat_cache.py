"""The cloud as tensors to render, kept until it changes."""

from __future__ import annotations

import numpy as np
import torch

from come_nav.memory.spatial.splatting import Splats, coarsened
from come_nav.memory.spatial.voxels import VoxelMap

EXTRA = 4  # what a voxel keeps beside its features: the mean normal of its surface, the mean width of the pixels, m


class SplatCache:
    """Splats of the newest cloud, whole and merged in cells."""

    def __init__(self) -> None:
        self._whole: Splats | None = None
        self._coarse: tuple[Splats, float, Splats] | None = None  # made of what, in cells of what edge

    def changed(self) -> None:
        """Say that the cloud is another one."""
        self._whole = None

    def of(self, voxels: VoxelMap, voxel_m: float, device: torch.device) -> Splats:
        """Return the cloud as tensors on ``device``."""
        if self._whole is None or not same_device(self._whole.points_xyz.device, device):
            extra = voxels.features[:, -EXTRA:]
            sizes = np.maximum(voxel_m, extra[:, -1])
            arrays = (voxels.xyz, voxels.features[:, :-EXTRA], extra[:, :3], sizes, voxels.weight)
            self._whole = Splats(*(torch.tensor(array, device=device) for array in arrays))
        return self._whole

    def coarse(self, whole: Splats, cell_m: float) -> Splats:
        """Return ``whole`` merged in cells of an edge; as it is where that is 0."""
        if cell_m <= 0.0:
            return whole
        kept = self._coarse
        if kept is None or kept[0] is not whole or kept[1] != cell_m:
            self._coarse = kept = whole, cell_m, coarsened(whole, cell_m)
        return kept[2]


def same_device(one: torch.device, other: torch.device) -> bool:
    """Say whether two names mean one device: ``cuda`` is that CUDA device which is the current one."""
    if one.type != other.type or one.type != "cuda" or (one.index is None) == (other.index is None):
        return one == other
    current = torch.cuda.current_device() if torch.cuda.is_available() else 0
    return current in (one.index, other.index)
