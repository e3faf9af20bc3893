"""The weights file of a model folder: tensors read, compared with a model's and checked, in one clear line each."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from come_nav.core.errors import CheckpointError, ConfigError, suggest
from come_nav.core.files import atomic_path, atomic_write_text
from come_nav.core.settings import from_mapping, read_yaml, to_mapping

WEIGHTS_NAME, CONFIG_NAME, CARD_NAME = "model.safetensors", "config.yaml", "card.md"
ConfigT = TypeVar("ConfigT")


def write_model_folder(
    folder: Path,
    tensors: dict[str, Tensor],
    model_format: str,
    settings_of: Callable[[str], Any],
    card: str | None,
) -> None:
    """Write weights, then the config that holds their sha256, then the card; each file atomically.

    A config that holds the checksum of its weights makes sure that no mixture of two saves loads.

    Args:
        folder: made if need be; files in it are replaced one by one.
        tensors: on the CPU, contiguous.
        model_format: goes into the weights file.
        settings_of: returns the settings record of the config, given the sha256 of the weights.
        card: text of the card; a present one stays where None.

    Raises:
        StorageError: when the folder cannot be written.
    """
    import yaml
    from safetensors.torch import save_file

    weights = folder / WEIGHTS_NAME
    with atomic_path(weights) as temporary:
        save_file(tensors, temporary, {"format": model_format})
    content = to_mapping(settings_of(file_sha256(weights)))
    atomic_write_text(folder / CONFIG_NAME, yaml.safe_dump(content, sort_keys=False))
    if card is not None:
        atomic_write_text(folder / CARD_NAME, card)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; raise CheckpointError in one line where it is missing or broken."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError(f"{path}: file is missing; copy the model again")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {_damage(path, error)}; copy the model again") from error
    return tensors


def checked_weights(folder: Path, sha256: str | None) -> dict[str, Tensor]:
    """Return the tensors of a model folder whose config tells their ``sha256``, if it does.

    Raises:
        CheckpointError: in one line where the file is missing, broken or of another save.
    """
    tensors = read_weights(folder / WEIGHTS_NAME)
    if sha256 is not None:
        check_sha256(folder / WEIGHTS_NAME, sha256)
    return tensors


def check_tensors(path: Path, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str = "") -> None:
    """Raise CheckpointError naming the first tensor of ``expected`` that ``tensors`` lack or have in another shape.

    ``what`` says what the expected shapes are those of.
    """
    for name, tensor in expected.items():
        if name not in tensors:
            raise CheckpointError(f"{path}: tensor '{name}' is missing{suggest(name, tensors) if tensors else ''}")
        if tensors[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: tensor '{name}' must have shape {tuple(tensor.shape)}{what}, got {tuple(tensors[name].shape)}"
            )


def load_tensors(modules: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy ``tensors`` into ``modules``; raise CheckpointError naming the first tensor that does not fit."""
    expected = modules.state_dict()
    check_tensors(path, expected, tensors, f" for {path.parent.name}/{CONFIG_NAME}")
    for name in expected:
        if not torch.isfinite(tensors[name]).all():
            raise CheckpointError(
                f"{path}: tensor '{name}' holds NaN or infinite values; copy or train the model again"
            )
    surplus = sorted(set(tensors) - set(expected))
    if surplus:
        raise CheckpointError(f"{path}: tensor '{surplus[0]}' is not part of the model that {CONFIG_NAME} describes")
    modules.load_state_dict(tensors)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Raise CheckpointError when the file's sha256 is another one."""
    found = file_sha256(path)
    if found != expected:
        raise CheckpointError(
            f"{path}: sha256 is {found[:12]}..., {CONFIG_NAME} expects {expected[:12]}...: the two files are not of "
            "one save; copy both again"
        )


def count_parameters(path: Path) -> int:
    """Return the number of values in a safetensors file from its header alone."""
    return sum(torch.Size(entry["shape"]).numel() for entry in _header(path).values() if "shape" in entry)


def _header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            header: dict[str, Any] = json.loads(handle.read(min(length, 2**27)))
    except (OSError, ValueError, RecursionError, struct.error) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file; copy the model again") from error
    header = {name: entry for name, entry in header.items() if name != "__metadata__"} if _is_group(header) else {}
    if not header or not all(_is_group(entry) and _is_span(entry.get("data_offsets")) for entry in header.values()):
        raise CheckpointError(f"{path}: not a whole safetensors file; copy the model again")
    return header


def _is_group(value: Any) -> bool:
    return isinstance(value, dict)


def _is_span(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(end, int) for end in value)


def _damage(path: Path, error: Exception) -> str:
    """Say what is wrong with a weights file that the library refused."""
    size = path.stat().st_size
    try:
        header = _header(path)
    except CheckpointError:
        return f"not a safetensors file, or cut short after {size} bytes"
    with path.open("rb") as handle:
        start = 8 + struct.unpack("<Q", handle.read(8))[0]
    whole = start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size < whole:
        return f"cut short: {size} of {whole} bytes"
    return f"not a valid safetensors file ({str(error).splitlines()[0]})"


def check_format(found: str, expected: str) -> None:
    """Raise ConfigError where a model folder's layout is of another version."""
    if found != expected:
        raise ConfigError(f"format must be '{expected}', got '{found}'; update come_nav or the model")


def stored_tensors(module: torch.nn.Module, storage: torch.dtype) -> dict[str, torch.Tensor]:
    """Return a module's tensors as they are written: those of floating point as ``storage``."""
    return {
        name: (tensor.to(storage) if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in module.state_dict().items()
    }


def has_format(folder: Path, format_name: str) -> bool:
    """Whether a model folder's config is of a format; False where there is no readable one."""
    try:
        return (folder / CONFIG_NAME).is_file() and read_yaml(folder / CONFIG_NAME).get("format") == format_name
    except ConfigError:
        return False


def read_folder_config(folder: Path, kind: type[ConfigT], format_name: str, what: str, get_one: str) -> ConfigT:
    """Return a model folder's config of one ``kind`` and format; ``what`` it holds and how to ``get_one`` are told.

    Raises:
        CheckpointError: where ``folder`` is none, naming what it is.
        ConfigError: for a value that breaks a rule.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise CheckpointError(f"{folder}: no model folder, it has no {CONFIG_NAME}; {get_one}")
    values = read_yaml(path)
    if values.get("format") != format_name:
        raise CheckpointError(f"{folder}: holds no {what} but '{values.get('format')}'")
    try:
        return from_mapping(kind, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
