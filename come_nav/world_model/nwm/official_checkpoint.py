"""Reads checkpoints as NWM's training writes them, without running what a pickle asks for and without loading it whole.

The layout (train.py of facebook/nwm): a dict with ``model``, ``ema``, ``opt``, ``args`` (argparse.Namespace), ``epoch``
and ``train_steps``. ``ema`` holds the weights that all published figures were made with; ``model`` may carry the prefix
``_orig_mod.`` that torch.compile adds.
"""

from __future__ import annotations

import argparse
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from come_nav.core.checks import check_choice
from come_nav.core.errors import CheckpointError, ConfigError, suggest
from come_nav.core.restricted_pickle import PlainDtype, plain_scalar
from come_nav.core.weights_file import check_tensors
from come_nav.experts.cdit import CDIT_SIZES, CDiT, CDiTSettings

PREFIXES = ("_orig_mod.", "module.")
WEIGHTS = ("ema", "model")
# tensors that tell the shape of a network, and their axes
NEEDED = {
    "pos_embed": 3,
    "x_embedder.proj.weight": 4,
    "final_layer.linear.weight": 2,
    "blocks.0.mlp.fc1.weight": 2,
}
WAY_OUT = "only tensors, numbers, strings and argparse.Namespace are read from a checkpoint"


@dataclass(frozen=True)
class OfficialCheckpoint:
    """Weights of one checkpoint; tensors are mapped from the file and read when they are used.

    Attributes:
        path: the file.
        weights: "ema" or "model".
        tensors: name -> tensor, without prefixes.
        facts: what else the file tells, e.g. ``train_steps``.
    """

    path: Path
    weights: str
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def open_checkpoint(path: Path, weights: str | None = None) -> OfficialCheckpoint:
    """Open a checkpoint of the official layout; no tensor is read yet.

    Args:
        path: a zip file written by torch.save, or a bare state dict in one.
        weights: "ema" or "model"; None prefers "ema", as the official evaluation does.

    Raises:
        CheckpointError: in one line: missing, cut short, not a checkpoint, or a pickle that asks for more than data.
    """
    if weights is not None:
        check_choice("weights", weights, WEIGHTS)
    _check_archive(path)
    with _allowed():
        _refuse_code(path)
        try:
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:  # damaged archives raise about every kind there is
            raise CheckpointError(f"{path}: cannot be read as a checkpoint ({_first_line(error)})") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not the dict that NWM's training writes")
    chosen = weights or next((name for name in WEIGHTS if name in content), None)
    state = content if chosen is None else content.get(chosen)
    if state is None:
        raise CheckpointError(f"{path}: has no '{chosen}' weights; it holds {', '.join(map(str, content))}")
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        keys = ", ".join(map(str, list(content)[:6]))
        raise CheckpointError(f"{path}: holds no weights under 'ema' or 'model'; its keys are {keys}")
    facts = {name: content[name] for name in ("train_steps", "epoch") if isinstance(content.get(name), int)}
    return OfficialCheckpoint(path, chosen or "bare", {_bare(name): state[name] for name in state}, facts)


def network_settings(checkpoint: OfficialCheckpoint, size: str | None = None, heads: int | None = None) -> CDiTSettings:
    """Return the shape of the CDiT that a checkpoint's tensors belong to, every name and shape checked.

    Args:
        checkpoint: opened file.
        size: S, B, L or XL, when the caller knows what it must be.
        heads: attention heads, which no tensor tells; only needed for shapes other than the published ones.

    Raises:
        CheckpointError: another size than asked for, a tensor missing, surplus or of another shape.
    """
    path, tensors = checkpoint.path, checkpoint.tensors
    for name, axes in NEEDED.items():
        if name not in tensors:
            raise CheckpointError(f"{path}: not a CDiT, tensor '{name}' is missing{suggest(name, tensors)}")
        if tensors[name].ndim != axes or 0 in tensors[name].shape:
            shape = tuple(tensors[name].shape)
            raise CheckpointError(f"{path}: not a CDiT, tensor '{name}' must have {axes} axes, its shape is {shape}")
    frames, cells, width = tensors["pos_embed"].shape
    channels, patch = tensors["x_embedder.proj.weight"].shape[1:3]
    depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    found = next((n for n, s in CDIT_SIZES.items() if (s["depth"], s["hidden_size"]) == (depth, width)), None)
    described = f"CDiT-{found}" if found else f"CDiT with depth {depth} and width {width}"
    if size is not None and found != check_choice("size", size, tuple(CDIT_SIZES)):
        raise CheckpointError(f"{path}: is a {described}, not the CDiT-{size} that was asked for")
    if heads is None and found is None:
        known = ", ".join(CDIT_SIZES)
        raise CheckpointError(f"{path}: is a {described}, none of the published {known}; tell its heads with --heads")
    try:
        settings = CDiTSettings(
            input_size=round(cells**0.5) * patch,
            context_size=frames - 1,
            patch_size=patch,
            in_channels=channels,
            hidden_size=width,
            depth=depth,
            num_heads=heads or CDIT_SIZES[str(found)]["num_heads"],
            mlp_ratio=_mlp_ratio(tensors["blocks.0.mlp.fc1.weight"].shape[0], width),
            learn_sigma=tensors["final_layer.linear.weight"].shape[0] == 2 * channels * patch**2,
        )
    except ConfigError as error:
        raise CheckpointError(f"{path}: is a {described}, but {error}") from error
    _check_tensors(path, settings, tensors)
    return settings


def _mlp_ratio(inner: int, width: int) -> float:
    """Return a ratio that the network's int(width * ratio) turns into ``inner`` again: 116 / 25 * 25 is below 116."""
    ratio = inner / width
    return ratio if int(width * ratio) == inner else (inner + 0.5) / width


def _check_tensors(path: Path, settings: CDiTSettings, tensors: Mapping[str, Tensor]) -> None:
    with torch.device("meta"):
        expected = CDiT.from_settings(settings).state_dict()
    check_tensors(path, expected, tensors)
    surplus = sorted(set(tensors) - set(expected))
    if surplus:
        raise CheckpointError(f"{path}: tensor '{surplus[0]}' is not part of a CDiT")


def _check_archive(path: Path) -> None:
    """Tell apart what torch.load would answer with one and the same error."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give the downloaded checkpoint, e.g. cdit_xl_100000.pth.tar")
    size = path.stat().st_size
    try:
        with path.open("rb") as handle:
            start = handle.read(2)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if start != b"PK":
        kind = "a pickle or an old format" if start[:1] == b"\x80" else "no torch checkpoint"
        raise CheckpointError(f"{path}: refused, it is {kind}; checkpoints are zip files as torch.save writes them")
    try:
        whole = zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # e.g. a table of contents that says that the archive spans several disks
        whole = False
    if not whole:
        raise CheckpointError(f"{path}: cut short after {size} bytes, its table of contents is missing; download again")


def _refuse_code(path: Path) -> None:
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({_first_line(error)})") from error
    if unsafe:
        raise CheckpointError(f"{path}: refused, its pickle wants to call {sorted(unsafe)[0]}; {WAY_OUT}")


@contextmanager
def _allowed() -> Iterator[None]:
    """Allow the few classes of plain data that training scripts put beside their weights."""
    plain: list[Any] = [argparse.Namespace, pathlib.PosixPath, pathlib.PurePosixPath]
    plain.append((PlainDtype, "numpy.dtype"))  # numpy's own believes the flags that a file claims
    plain += [(plain_scalar, f"{package}.multiarray.scalar") for package in ("numpy.core", "numpy._core")]
    with torch.serialization.safe_globals(plain):
        yield


def _bare(name: object) -> str:
    text = str(name)
    while text.startswith(PREFIXES):
        text = text.partition(".")[2]
    return text


def _first_line(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 160 else f"{words[:157]}..."
