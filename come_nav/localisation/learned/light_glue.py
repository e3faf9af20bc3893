"""Matches by LightGlue (Lindenberger et al. 2023, Apache-2.0), a network that looks at all features of two images.

It is kornia's, with the weights in a file of the user's own; they belong to one kind of features
(``disk_lightglue.pth`` to DISK, ``aliked_lightglue.pth`` to ALIKED). Nothing is downloaded.

Cost on one core, 600 features in each image: 600 ms for two that hardly match, less where they do.
"""

from __future__ import annotations

import contextlib
import io
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import CheckpointError
from come_nav.localisation.learned.kornia_networks import fill, kornia_features, published_tensors

if TYPE_CHECKING:
    import torch

WANTED = "LightGlue's weights for the features in use, e.g. disk_lightglue.pth of https://github.com/cvg/LightGlue"


@lru_cache(maxsize=2)
def light_glue(file: str) -> Any:
    """Load the network of a file, its size as the tensors have it.

    Raises:
        CheckpointError: for a file that is missing or holds other weights, or those that need more than features have.
        MissingDependencyError: without kornia.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise CheckpointError(f"{file}: no such file; localisation.visual.matching.file must hold {WANTED}")
    library = kornia_features("the matcher lightglue")
    tensors = {_modern(name): tensor for name, tensor in published_tensors(path, WANTED).items()}
    with contextlib.redirect_stdout(io.StringIO()):  # older kornia prints that it loaded a network
        network = library.LightGlue(None, **_size(tensors, path))
    fill(network, tensors, path)
    return network


def light_glue_matches(
    file: str,
    keypoints: tuple[NDArray[np.float32], NDArray[np.float32]],
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]],
    sizes: tuple[tuple[int, int], tuple[int, int]],
) -> NDArray[np.int64]:
    """Return matches (M, 2) of two images, rows of the first and of the second, the surest first.

    Args:
        file: of the weights.
        keypoints: (N, 2) and (L, 2) in pixels, inside the images.
        vectors: (N, D) and (L, D) of unit length, N and L >= 1.
        sizes: width and height of each.

    Raises:
        CheckpointError: for weights that belong to descriptors of another length.
    """
    import torch

    network = light_glue(file)
    wanted, length = network.conf.input_dim, vectors[0].shape[1]
    if wanted != length:
        raise CheckpointError(
            f"{file}: belongs to descriptors of {wanted} numbers, these features have {length}; "
            "localisation.visual.matching.file must hold LightGlue's weights for the features in use"
        )
    images = [_image(*own) for own in zip(keypoints, vectors, sizes, strict=True)]
    with torch.inference_mode():
        found = network({"image0": images[0], "image1": images[1]})
    pairs, scores = found["matches"][0].numpy(), found["scores"][0].float().numpy()
    return np.asarray(pairs[np.argsort(-scores, kind="stable")], np.int64).reshape(-1, 2)


def _image(
    keypoints: NDArray[np.float32], vectors: NDArray[np.float32], size: tuple[int, int]
) -> dict[str, torch.Tensor]:
    import torch

    inside = keypoints.clip(0.0, np.array(size, np.float32))
    return {
        "keypoints": torch.from_numpy(inside)[None],
        "descriptors": torch.from_numpy(np.ascontiguousarray(vectors))[None],
        "image_size": torch.tensor([size]),
    }


def _modern(name: str) -> str:
    """Return a tensor's name as kornia has it: the first files say self_attn.0, not transformers.0.self_attn."""
    return re.sub(r"^(self_attn|cross_attn)\.(\d+)\.", r"transformers.\2.\1.", name)


def _size(tensors: dict[str, torch.Tensor], path: Path) -> dict[str, int]:
    """Return the words of LightGlue's constructor that the shapes of its tensors tell."""
    positions, first = tensors.get("posenc.Wr.weight"), tensors.get("transformers.0.self_attn.Wqkv.weight")
    if positions is None or first is None or positions.ndim != 2 or first.ndim != 2:
        raise CheckpointError(f"{path}: these are no weights of LightGlue; the file must hold {WANTED}")
    if positions.shape[1] != 2:
        raise CheckpointError(
            f"{path}: these weights look at sizes and directions of features, which are not kept; the file must hold "
            f"{WANTED}"
        )
    width, projected = int(first.shape[1]), tensors.get("input_proj.weight")
    return {
        "descriptor_dim": width,
        "input_dim": width if projected is None else int(projected.shape[-1]),
        "num_heads": max(1, width // (2 * len(positions))),
        "n_layers": len({name.split(".")[1] for name in tensors if name.startswith("transformers.")}),
    }
