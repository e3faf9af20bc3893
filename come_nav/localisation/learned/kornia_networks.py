"""Networks of kornia with the weights in a file of the user's own: nothing is downloaded.

``disk`` (Tyszkiewicz et al. 2020, Apache-2.0) and ``aliked`` (Zhao et al. 2023, BSD-3-Clause) find features.
kornia's constructors make them with random weights; only its ``from_pretrained`` would look for a network.

Cost on one core at 320 x 240: DISK 650 ms, ALIKED-n16 230 ms.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import CheckpointError, MissingDependencyError

if TYPE_CHECKING:
    import torch

COLOUR_NETWORKS = {
    "disk": "DISK, depth-save.pth of https://github.com/cvlab-epfl/disk",
    "aliked": "ALIKED, e.g. aliked-n16.pth of https://github.com/Shiaoming/ALIKED",
}
# made by the constructors, and absent in published files
DERIVED = ("dkd.hw_grid", "confidence_thresholds")


def kornia_network(kind: str, path: Path, count: int) -> Callable[[NDArray[np.float32]], Sequence[Any]]:
    """Return what finds features in an image (1, 3, H, W) float32 in [0, 1].

    Args:
        kind: "disk" or "aliked".
        path: of its weights.
        count: most features.

    Raises:
        CheckpointError: for a file that holds other weights.
        MissingDependencyError: without kornia.
    """
    import torch

    library = kornia_features(f"features of kind {kind}")
    tensors = published_tensors(path, f"those of {COLOUR_NETWORKS[kind]}")
    if kind == "disk":
        network = library.DISK()
        words: dict[str, Any] = {"n": count, "pad_if_not_divisible": True}
    else:
        network, words = _aliked(library, tensors, count), {}
    fill(network, tensors, path)

    def find(image: NDArray[np.float32]) -> Sequence[Any]:
        with torch.inference_mode():
            (found,) = network(torch.from_numpy(image), **words)
        scores = found.detection_scores if kind == "disk" else found.keypoint_scores
        return tuple(own.float().numpy() for own in (found.keypoints, scores, found.descriptors))

    return find


def kornia_features(purpose: str) -> Any:
    """Return the module ``kornia.feature``; raise MissingDependencyError in one line without it."""
    try:
        return importlib.import_module("kornia.feature")
    except ImportError as error:
        raise MissingDependencyError("kornia", "learned", purpose) from error


def published_tensors(path: Path, wanted: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a file as networks are published: safetensors, or a state dict saved by torch.

    Args:
        path: read without running code in it.
        wanted: what the file should hold, for what errors say.

    Raises:
        CheckpointError: for another file.
    """
    import torch

    from come_nav.core.weights_file import read_weights

    if path.suffix == ".safetensors":
        return read_weights(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives raise about every kind there is
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise CheckpointError(f"{path}: cannot be read as weights ({reason}); it must hold {wanted}") from error
    for key in ("extractor", "state_dict", "model"):  # DISK's own file; what training frameworks write
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(v, torch.Tensor) for v in content.values())
    ):
        raise CheckpointError(f"{path}: holds a {type(content).__name__} that is no state dict; it must hold {wanted}")
    return {str(name): tensor for name, tensor in content.items()}


def fill(network: torch.nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copy tensors into a network and make it ready; raise CheckpointError naming the first that does not fit."""
    from come_nav.core.weights_file import check_tensors

    expected = network.state_dict()
    given = {**{name: expected[name] for name in DERIVED if name in expected}, **tensors}
    check_tensors(path, expected, given, f" for {type(network).__name__}")
    for name in expected:
        if not given[name].isfinite().all():
            raise CheckpointError(f"{path}: tensor '{name}' holds NaN or infinite values; copy the file again")
    network.load_state_dict({name: given[name] for name in expected})  # published files hold what only training used
    network.eval().requires_grad_(False)


def _aliked(library: Any, tensors: Mapping[str, torch.Tensor], count: int) -> Any:
    """Return the ALIKED of the size that tensors have; shapes that no size has are found by :func:`fill`."""
    if not hasattr(library, "ALIKED"):
        raise MissingDependencyError(
            "kornia>=0.9", "learned", "features of kind aliked", otherwise="with Python 3.11 or newer, or take disk"
        )
    first, head = tensors.get("block1.conv1.weight"), tensors.get("desc_head.agg_weights")
    size = "t16" if first is not None and len(first) == 8 else "n16"
    if size == "n16" and head is not None and len(head) == 32:
        size = "n32"
    return library.ALIKED(f"aliked-{size}", max_num_keypoints=count, detection_threshold=0.0)
