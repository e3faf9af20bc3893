"""Fill a latent bank from bags and NWM folders, so that a model learns one's own robot and rooms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from come_nav.core.errors import DataError
from come_nav.core.protocols import Recording
from come_nav.training.bank import Encode, LatentBank

Prepare = Callable[[list[NDArray[np.uint8]]], torch.Tensor]  # RGB images -> (T, 3, S, S) in [-1, 1]


def recording_bank(
    recording: Recording, use: tuple[float, float], branches: int, prepare: Prepare, encode: Encode
) -> LatentBank:
    """Encode the part ``use`` (fractions) of a recording.

    A recording shows only what was driven: its branch slots are filled with its own frames at offset 0, and sampling
    from it uses ``branch_fraction`` 0.
    """
    start, stop = (round(fraction * len(recording)) for fraction in use)
    if stop - start < 2:
        raise DataError(f"{recording.name}: only {stop - start} frames in the part {use} of it; at least 2 are needed")
    chunks = []
    for low in tqdm(range(start, stop, 32), desc=f"encode {recording.name}", unit="batch"):
        images = [recording.frame(index).rgb for index in range(low, min(low + 32, stop))]
        chunks.append(encode(prepare(images)).half().cpu())
    latents = torch.cat(chunks)
    count = len(latents)
    return LatentBank(
        latents=latents,
        poses_xyyaw=torch.as_tensor(recording.poses_xyyaw[start:stop], dtype=torch.float32),
        first=torch.zeros(count, dtype=torch.int64),
        last=torch.full((count,), count - 1),
        branch_latents=latents[:, None].expand(-1, branches, -1, -1, -1).contiguous(),
        branch_actions_xyyaw=torch.zeros(count, branches, 3),
        branch_rel_frames=torch.zeros(count, branches, dtype=torch.int64),
    )
