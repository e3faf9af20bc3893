"""Features that a network finds: a TorchScript file of the user's own (SuperPoint, DISK, ALIKED, XFeat, ...).

The file takes a grey image (1, 1, H, W) float32 in [0, 1] and returns three tensors, with or without a leading batch of
one: keypoints (N, 2) in pixel numbers u and v (the first pixel's centre is 0, 0), scores (N,), and descriptors (N, D).
``torch.jit.script`` or ``torch.jit.trace`` of a wrapper around any such network makes one.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import CheckpointError

if TYPE_CHECKING:
    import torch

ZERO = 128  # what a component of zero is stored as
CONTRACT = "it must return keypoints (N, 2), scores (N,) and descriptors (N, D) of a grey image (1, 1, H, W)"


def learned_kind(file: str) -> str:
    """Return the kind of the features that a file finds: those of another file cannot be matched with them."""
    return f"learned {_loaded(file)[1]}"


def found_by_network(file: str, grey: NDArray[np.uint8], count: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return keypoints (N, 2) in pixel numbers and descriptors (N, D) uint8, those of the highest scores first.

    Args:
        file: TorchScript.
        grey: (H, W).
        count: most features.

    Raises:
        CheckpointError: for a file that is no TorchScript, or returns something else.
    """
    import torch

    network, _ = _loaded(file)
    image = torch.from_numpy(grey.astype(np.float32) / 255.0)[None, None]
    try:
        with torch.inference_mode():
            found = tuple(network(image))
    except Exception as error:  # whatever a user's network raises
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise CheckpointError(f"{file}: the network fails on an image: {reason[0]}; {CONTRACT}") from error
    if len(found) != 3 or not all(isinstance(own, torch.Tensor) for own in found):
        raise CheckpointError(f"{file}: the network returns {len(found)} values; {CONTRACT}")
    keypoints, scores, descriptors = (_unbatched(own, rank) for own, rank in zip(found, (2, 1, 2), strict=True))
    shapes = [tuple(own.shape) for own in (keypoints, scores, descriptors)]
    fits = all(len(own) == len(keypoints) for own in (scores, descriptors))
    if keypoints.ndim != 2 or keypoints.shape[1] != 2 or scores.ndim != 1 or descriptors.ndim != 2 or not fits:
        raise CheckpointError(f"{file}: the network returns shapes {shapes}; {CONTRACT}")
    sound = keypoints.isfinite().all(1) & scores.isfinite() & descriptors.isfinite().all(1)
    order = torch.where(sound, scores, -torch.inf).argsort(descending=True, stable=True)[: min(count, int(sound.sum()))]
    return keypoints[order].float().numpy(), _compact(descriptors[order].float().numpy())


def unit_vectors(descriptors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return stored descriptors as unit vectors (N, D)."""
    vectors = descriptors.astype(np.float32) - ZERO
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return np.asarray(vectors / np.maximum(lengths, 1.0), np.float32)


def _compact(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return vectors (N, D) in bytes; their lengths are lost."""
    largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True, initial=0.0), 1e-12)
    return np.asarray(np.round(vectors / largest * (ZERO - 1)) + ZERO, np.uint8)


def _unbatched(value: torch.Tensor, rank: int) -> torch.Tensor:
    return value[0].cpu() if value.ndim == rank + 1 and len(value) == 1 else value.cpu()


@lru_cache(maxsize=2)
def _loaded(file: str) -> tuple[Any, str]:
    """Return a network and what tells it from others."""
    import torch

    path = Path(file).expanduser()
    if not path.is_file():
        raise CheckpointError(f"{file}: no such file; localisation.visual.features.file must be a TorchScript file")
    try:
        network = torch.jit.load(str(path), map_location="cpu").eval()
    except Exception as error:  # RuntimeError, zipfile's and pickle's own
        raise CheckpointError(
            f"{file}: no TorchScript file; save one with torch.jit.script(network).save(FILE)"
        ) from error
    return network, hashlib.sha256(path.read_bytes()).hexdigest()[:12]
