"""Fill a latent bank from bags and NWM folders, so that a model learns one's own robot and rooms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from come_nav.core.errors import DataError
from come_nav.core.protocols import Recording
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.training.bank import Encode, LatentBank, to_uint8
from come_nav.training.sim_bank import camera_fractions
from come_nav.world_model.images import crop_window

Prepare = Callable[[list[NDArray[np.uint8]]], torch.Tensor]  # RGB images -> (T, 3, S, S) in [-1, 1]


def recording_bank(
    recording: Recording,
    use: tuple[float, float],
    branches: int,
    prepare: Prepare,
    encode: Encode,
    *,
    aspect: float = 1.0,
    keep_images: bool = False,
    keep_depth: bool = False,
) -> LatentBank:
    """Encode the part ``use`` (fractions) of a recording.

    A recording shows only what was driven: its branch slots are filled with its own frames at offset 0, and sampling
    from it uses ``branch_fraction`` 0. ``aspect`` is that of the crop which ``prepare`` makes.
    """
    start, stop = (round(fraction * len(recording)) for fraction in use)
    if stop - start < 2:
        raise DataError(f"{recording.name}: only {stop - start} frames in the part {use} of it; at least 2 are needed")
    latents, images, depths = [], [], []
    for low in tqdm(range(start, stop, 32), desc=f"encode {recording.name}", unit="batch"):
        frames = [recording.frame(index) for index in range(low, min(low + 32, stop))]
        prepared = prepare([frame.rgb for frame in frames])
        latents.append(encode(prepared).half().cpu())
        if keep_images:
            images.append(to_uint8(prepared))
        if keep_depth:
            depths.append(torch.stack([model_depth(frame, prepared.shape[-1], aspect) for frame in frames]))
    joined = torch.cat(latents)
    pictures = torch.cat(images) if images else None
    count = len(joined)

    def as_branches(values: torch.Tensor) -> torch.Tensor:
        return values[:, None].expand(-1, branches, *values.shape[1:]).contiguous()

    return LatentBank(
        latents=joined,
        poses_xyyaw=torch.as_tensor(recording.poses_xyyaw[start:stop], dtype=torch.float32),
        first=torch.zeros(count, dtype=torch.int64),
        last=torch.full((count,), count - 1),
        branch_latents=as_branches(joined),
        branch_actions_xyyaw=torch.zeros(count, branches, 3),
        branch_rel_frames=torch.zeros(count, branches, dtype=torch.int64),
        images=pictures,
        branch_images=None if pictures is None else as_branches(pictures),
        depth_m=torch.cat(depths) if depths else None,
        cameras=model_camera(recording.intrinsics, aspect)[None],
        camera_index=torch.zeros(count, dtype=torch.int64),
    )


def model_camera(intrinsics: CameraIntrinsics | None, aspect: float) -> torch.Tensor:
    """Return fx, fy, cx, cy (4,) of the model's crop as fractions of its width and height; NaN where unknown."""
    if intrinsics is None:
        return torch.full((4,), torch.nan)
    top, left, rows, columns = crop_window(intrinsics.height, intrinsics.width, aspect)
    return camera_fractions(intrinsics.cropped(left, top, columns, rows))


def model_depth(frame: Frame, image_size: int, aspect: float) -> torch.Tensor:
    """Return z-depth (S, S) float16 of the model's crop, by the nearest pixel; NaN where missing or 0."""
    if frame.depth_m is None:
        return torch.full((image_size, image_size), torch.nan, dtype=torch.float16)
    height, width = frame.depth_m.shape
    top, left, rows, columns = crop_window(height, width, aspect)
    row = top + ((np.arange(image_size) + 0.5) * rows / image_size).astype(int)
    column = left + ((np.arange(image_size) + 0.5) * columns / image_size).astype(int)
    depth = torch.from_numpy(frame.depth_m[np.ix_(row, column)].astype(np.float32))
    return torch.where(depth > 0, depth, torch.nan).half()
