"""Features that a network finds, of a file of the user's own: TorchScript or ONNX, or weights for one of kornia's.

``learned``: a network (SuperPoint, DISK, ALIKED, XFeat, ...) that takes a grey image (1, 1, H, W) float32 in [0, 1], of
any size, and returns three tensors, with or without a leading batch of one: keypoints (N, 2) in pixel numbers u and v
(the first pixel's centre is 0, 0), scores (N,), and descriptors (N, D). ``torch.jit.script`` or ``torch.jit.trace`` of
a wrapper around any such network makes TorchScript, ``torch.onnx.export`` a file ``*.onnx`` (``onnx_file.py``).
``disk``, ``aliked``: published weights (``kornia_networks.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import CheckpointError, ComeNavError
from come_nav.localisation.learned.kornia_networks import COLOUR_NETWORKS, kornia_network
from come_nav.localisation.learned.onnx_file import onnx_network

ZERO = 128  # what a component of zero is stored as
CONTRACT = "it must return keypoints (N, 2), scores (N,) and descriptors (N, D) of a grey image (1, 1, H, W)"


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that is loaded.

    Attributes:
        kind: of its features; those of another network or file cannot be matched with them.
        find: takes an image (1, C, H, W) float32 in [0, 1], returns what the network does.
    """

    kind: str
    find: Callable[[NDArray[np.float32]], Sequence[Any]]


def takes_colour(kind: str) -> bool:
    """Tell whether the networks of a kind of features look at colours, not at a grey image."""
    return kind in COLOUR_NETWORKS


@lru_cache(maxsize=2)
def feature_network(kind: str, file: str, count: int) -> FeatureNetwork:
    """Load a network; the same one is loaded once.

    Args:
        kind: "learned", or "disk" or "aliked" of kornia.
        file: see above.
        count: most features that will be asked for.

    Raises:
        CheckpointError: for a file that is missing or something else.
        MissingDependencyError: where the library that runs it is absent.
    """
    from come_nav.core.weights_file import file_sha256

    path = Path(file).expanduser()
    if not path.is_file():
        raise CheckpointError(f"{file}: no such file; localisation.visual.features.file must be {_wanted(kind)}")
    if takes_colour(kind):
        find = kornia_network(kind, path, count)
    else:
        find = onnx_network(path) if path.suffix.lower() == ".onnx" else _torch_script(path)
    return FeatureNetwork(f"{kind} {file_sha256(path)[:12]}", find)


def found_by_network(
    network: FeatureNetwork, image: NDArray[np.uint8], count: int, file: str
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return keypoints (N, 2) in pixel numbers and descriptors (N, D) uint8, those of the highest scores first.

    Args:
        network: loaded.
        image: (H, W) grey, or (H, W, 3).
        count: most features.
        file: of the network, for what errors say.

    Raises:
        CheckpointError: where the network fails, or returns something else.
    """
    planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    try:
        found = [np.asarray(own) for own in network.find(np.ascontiguousarray(planes[None], np.float32) / 255.0)]
    except ComeNavError:
        raise
    except Exception as error:  # whatever a user's network raises
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise CheckpointError(f"{file}: the network fails on an image: {reason[0]}; {CONTRACT}") from error
    if len(found) != 3:
        raise CheckpointError(f"{file}: the network returns {len(found)} values; {CONTRACT}")
    keypoints, scores, descriptors = (_unbatched(own, rank) for own, rank in zip(found, (2, 1, 2), strict=True))
    shapes = [own.shape for own in (keypoints, scores, descriptors)]
    fits = all(len(own) == len(keypoints) for own in (scores, descriptors) if own.ndim)
    if keypoints.ndim != 2 or keypoints.shape[1] != 2 or scores.ndim != 1 or descriptors.ndim != 2 or not fits:
        raise CheckpointError(f"{file}: the network returns shapes {shapes}; {CONTRACT}")
    sound = np.isfinite(keypoints).all(1) & np.isfinite(scores) & np.isfinite(descriptors).all(1)
    rows = np.flatnonzero(sound)
    order = rows[np.argsort(-scores[rows], kind="stable")[:count]]
    return keypoints[order].astype(np.float32), _compact(descriptors[order].astype(np.float32))


def unit_vectors(descriptors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return stored descriptors as unit vectors (N, D)."""
    vectors = descriptors.astype(np.float32) - ZERO
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return np.asarray(vectors / np.maximum(lengths, 1.0), np.float32)


def _compact(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return vectors (N, D) in bytes; their lengths are lost."""
    largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True, initial=0.0), 1e-12)
    return np.asarray(np.round(vectors / largest * (ZERO - 1)) + ZERO, np.uint8)


def _unbatched(value: NDArray[Any], rank: int) -> NDArray[Any]:
    return value[0] if value.ndim == rank + 1 and len(value) == 1 else value


def _wanted(kind: str) -> str:
    if takes_colour(kind):
        return f"the weights of {COLOUR_NETWORKS[kind]}"
    return "a TorchScript or ONNX file of a network that finds features"


def _torch_script(path: Path) -> Callable[[NDArray[np.float32]], Sequence[Any]]:
    """Return what runs a TorchScript file."""
    import torch

    try:
        network = torch.jit.load(str(path), map_location="cpu").eval()
    except Exception as error:  # RuntimeError, zipfile's and pickle's own
        raise CheckpointError(
            f"{path}: no TorchScript file; save one with torch.jit.script(network).save(FILE), or name an ONNX file "
            "*.onnx"
        ) from error

    def find(image: NDArray[np.float32]) -> Sequence[Any]:
        with torch.inference_mode():
            return tuple(own.float().numpy() for own in network(torch.from_numpy(image)))

    return find
