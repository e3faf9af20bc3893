"""The files of one memory version: how they are written, described, checked and read again."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import MemoryStoreError
from come_nav.core.files import one_writer

if TYPE_CHECKING:
    import torch

CLOUD, KEYFRAMES, ADAPTER = "cloud", "keyframes", "adapter"
DESCRIPTION = "version.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Version:
    """A version on disk, as its description tells.

    Attributes:
        number: of the version.
        folder: where it lies.
        about: free facts.
        files: name -> (size in bytes, SHA-256).
    """

    number: int
    folder: Path
    about: dict[str, Any]
    files: dict[str, tuple[int, str]]

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(size for size, _ in self.files.values())


def writing(store: Path, timeout_s: float) -> AbstractContextManager[None]:
    """Hold the only writer's lock of a store; MemoryStoreError where another writer holds it all the time."""
    refused = f"{store}: another process has been writing for {timeout_s:g} s; wait for it or end it"
    return one_writer(store / ".lock", MemoryStoreError(refused), timeout_s)


def adapter_file(name: str) -> str:
    """Return the file name of an adapter; raise MemoryStoreError for a name that is no file name."""
    if not NAME.fullmatch(name):
        raise MemoryStoreError(f"adapter name '{name}' must be letters, digits, '_', '-' or '.', at most 100")
    return f"{ADAPTER}-{name}.safetensors"


def encode(
    cloud: Mapping[str, NDArray[Any]] | None,
    keyframes: Mapping[str, NDArray[Any]] | None,
    adapters: Mapping[str, Mapping[str, torch.Tensor] | None],
) -> dict[str, bytes]:
    """Return the contents of the files, by name."""
    files: dict[str, bytes] = {}
    for part, arrays in ((CLOUD, cloud), (KEYFRAMES, keyframes)):
        if arrays is not None:
            files[f"{part}.npz"] = archive_of(arrays, part)
    for name, tensors in adapters.items():
        file_name = adapter_file(name)
        if tensors is not None:
            from safetensors.torch import save

            files[file_name] = save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
    return files


def archive_of(arrays: Mapping[str, NDArray[Any]], part: str) -> bytes:
    """Return the content of a file of arrays; raise MemoryStoreError for those of Python objects."""
    buffer = io.BytesIO()
    plain: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
    objects = [name for name, value in plain.items() if value.dtype.hasobject]
    if objects:
        raise MemoryStoreError(f"array '{objects[0]}' of the {part} holds Python objects; store numbers")
    np.savez(buffer, **plain)
    return buffer.getvalue()


def write_version(
    folder: Path,
    number: int,
    new: Mapping[str, bytes],
    carried: Mapping[str, Path],
    before: Version | None,
    about: Mapping[str, Any],
) -> Version:
    """Write a version into a new folder, everything synchronised to the disk.

    Carried files are linked rather than copied where the file system can: nobody changes a file of a version.

    Raises:
        OSError: no space, no permission.
        MemoryStoreError: ``about`` holds what JSON cannot.
    """
    folder.mkdir()
    files: dict[str, tuple[int, str]] = {}
    for name, content in new.items():
        _write(folder / name, content)
        files[name] = (len(content), hashlib.sha256(content).hexdigest())
    for name, source in carried.items():
        if before is None:
            raise ValueError("files are carried over from a version")
        try:
            os.link(source, folder / name)
        except OSError:
            shutil.copyfile(source, folder / name)
            synchronise(folder / name)
        files[name] = before.files[name]
    facts = {
        "version": number,
        "about": dict(about),
        "files": {name: {"bytes": size, "sha256": digest} for name, (size, digest) in sorted(files.items())},
    }
    try:
        text = json.dumps(facts, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MemoryStoreError(f"the facts about a memory must be plain finite JSON values ({error})") from error
    _write(folder / DESCRIPTION, text.encode())
    synchronise(folder)
    return Version(number, folder, dict(about), files)


def read_version(folder: Path, number: int) -> Version | str:
    """Return the version described in ``folder``, or why it is none; sizes are checked, contents are not."""
    try:
        document = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        files = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in document["files"].items()}
        about = dict(document["about"])
        stated = int(document["version"])
    except FileNotFoundError:
        return f"{DESCRIPTION} is missing" if folder.is_dir() else "there is no such version"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{DESCRIPTION} is damaged ({type(error).__name__})"
    if stated != number:
        return f"{DESCRIPTION} describes version {stated}"
    for name, (size, _) in files.items():
        if not NAME.fullmatch(name):
            return f"{DESCRIPTION} names a file outside the version: '{name}'"
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return Version(number, folder, about, files)


def check(version: Version) -> None:
    """Compare all files with their checksums; raise MemoryStoreError for the first that differs."""
    for name in version.files:
        read_file(version, name)


def read_file(version: Version, name: str) -> bytes:
    """Return a file's checked content."""
    size, digest = version.files[name]
    try:
        content = (version.folder / name).read_bytes()
    except OSError as error:
        raise MemoryStoreError(f"{name} cannot be read ({error.strerror})") from error
    if len(content) != size or hashlib.sha256(content).hexdigest() != digest:
        raise MemoryStoreError(f"{name} differs from what was written (SHA-256)")
    return content


def decode(version: Version, parts: Sequence[str], adapters: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the parts "cloud", "keyframes" and "adapters" of a version, as far as asked for and there.

    ``adapters`` names those to read; None reads all of them.

    Raises:
        MemoryStoreError: a file is missing, damaged, or not of its format.
    """
    found: dict[str, Any] = {}
    for name in version.files:
        part, _, rest = name.partition("-") if name.startswith(f"{ADAPTER}-") else (name.removesuffix(".npz"), "", "")
        adapter = rest.removesuffix(".safetensors")
        if part not in parts or (part == ADAPTER and adapters is not None and adapter not in adapters):
            continue
        content = read_file(version, name)
        if part == ADAPTER:
            found.setdefault("adapters", {})[adapter] = _tensors(name, content)
        elif part in (CLOUD, KEYFRAMES):
            found[part] = arrays_of(name, content)
    return found


def synchronise(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())


def arrays_of(name: str, content: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of :func:`archive_of`; raise MemoryStoreError, naming the file, where it is none."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise MemoryStoreError(f"{name} is no archive of plain arrays ({type(error).__name__})") from error


def _tensors(name: str, content: bytes) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError as error:
        raise MemoryStoreError(f"{name} is no safetensors file ({error})") from error
