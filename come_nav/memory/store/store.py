"""Memories on disk: numbered versions that are written whole or not at all, and shared between processes.

    store/
      manifest.json            the versions that count, newest last; written last, atomically
      v000007/version.json     what the version is made of: size and SHA-256 of each file, where it comes from
      v000007/cloud.npz        spatial memory          (arrays of SpatialMemory.state)
      v000007/keyframes.npz    key frames              (arrays of Keyframes.state)
      v000007/adapter-NAME.safetensors                 weights that the robot learnt

A version is written into a hidden folder, synchronised to the disk and renamed; only then the manifest names it. A kill
or a full disk at any moment therefore leaves the versions from before, and readers, who take no lock, see whole ones
only. Writers take turns by a lock on the folder, which the system releases when a writer dies.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.errors import MemoryStoreError, StorageError
from come_nav.core.files import atomic_write_text, storage_error
from come_nav.memory.store import files as store_files
from come_nav.memory.store.files import ADAPTER, CLOUD, KEYFRAMES, Version

if TYPE_CHECKING:
    import torch

Arrays = Mapping[str, NDArray[Any]]
MANIFEST = "manifest.json"
FORMAT = "come_nav memory 1"
READ_ATTEMPTS = 3  # a slow reader may see its version pruned; there is then a newer one


@dataclass(frozen=True)
class StoreSettings:
    """Bounds of a store.

    Attributes:
        keep_versions: newest versions that are kept, >= 1.
        max_bytes: older versions go earlier when all together are larger than this; one version must fit, > 0.
        lock_timeout_s: how long a writer waits for another one, s, >= 0.
    """

    keep_versions: int = 3
    max_bytes: int = 2_000_000_000
    lock_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        check_range("store.keep_versions", self.keep_versions, 1)
        check_range("store.max_bytes", self.max_bytes, 1)
        check_range("store.lock_timeout_s", self.lock_timeout_s, 0.0)


@dataclass(frozen=True)
class StoredMemory:
    """One version, read and checked.

    Attributes:
        version: its number.
        about: free facts: the recording it comes from, time of its last frame, settings.
        cloud: for ``SpatialMemory.from_state``, or None.
        keyframes: for ``Keyframes.load_state``, or None.
        adapters: name -> tensors.
    """

    version: int
    about: dict[str, Any]
    cloud: dict[str, NDArray[Any]] | None = None
    keyframes: dict[str, NDArray[Any]] | None = None
    adapters: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class VersionReport:
    """What verifying a version found: ``diagnosis`` is None for a sound one. ``counts``: the manifest names it."""

    version: int
    counts: bool
    size_bytes: int
    files: tuple[str, ...]
    about: dict[str, Any]
    diagnosis: str | None


class MemoryStore:
    """A folder of memory versions; see the module."""

    def __init__(self, path: Path | str, config: StoreSettings | None = None) -> None:
        """Name the folder; it is made by the first :meth:`save`."""
        self.path = Path(path)
        self.config = config or StoreSettings()

    def save(
        self,
        *,
        cloud: Arrays | None = None,
        keyframes: Arrays | None = None,
        adapters: Mapping[str, Mapping[str, torch.Tensor] | None] | None = None,
        about: Mapping[str, Any] | None = None,
        carry: bool = True,
    ) -> int:
        """Write a new version and return its number.

        Args:
            cloud: arrays of ``SpatialMemory.state``.
            keyframes: arrays of ``Keyframes.state``.
            adapters: name -> tensors; None forgets an adapter.
            about: facts to remember, plain JSON values.
            carry: what is not given is taken over from the newest version, so that a process that knows only its own
                part does not undo the others'.

        Raises:
            MemoryStoreError: no permission, no space, another writer does not end, a name or fact that cannot be
                stored, or a version larger than the whole store may be. The versions from before are then as they were.
        """
        new = store_files.encode(cloud, keyframes, adapters or {})
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with store_files.writing(self.path, self.config.lock_timeout_s):
                return self._save_locked(new, dict(about or {}), set(adapters or {}), carry)
        except OSError as error:
            raise MemoryStoreError(str(storage_error(self.path, error))) from error
        except StorageError as error:
            raise MemoryStoreError(str(error)) from error

    def load(
        self,
        version: int | None = None,
        parts: Sequence[str] = (CLOUD, KEYFRAMES, ADAPTER),
        adapters: Sequence[str] | None = None,
    ) -> StoredMemory:
        """Read and check the newest valid version, or the one asked for.

        Args:
            version: a number; None takes the newest that is valid.
            parts: which of "cloud", "keyframes", "adapter" to read.
            adapters: which adapters to read; None reads all.

        Raises:
            MemoryStoreError: no such folder, or no valid version in it.
        """
        diagnosis: dict[int, str] = {}
        for _ in range(READ_ATTEMPTS):
            numbers = self._numbers() if version is None else [version]
            for number in numbers:
                found = store_files.read_version(self._folder(number), number)
                if isinstance(found, str):
                    diagnosis[number] = found
                    continue
                try:
                    return StoredMemory(number, found.about, **store_files.decode(found, parts, adapters))
                except MemoryStoreError as error:
                    diagnosis[number] = str(error)
            if version is not None or numbers == self._numbers():
                break
        if version is not None:
            raise MemoryStoreError(f"{self.path}: version {version} cannot be read: {diagnosis[version]}")
        if not diagnosis:
            raise MemoryStoreError(f"{self.path}: holds no memory; 'come-nav memory build' makes one from a recording")
        reasons = "; ".join(f"version {number}: {reason}" for number, reason in sorted(diagnosis.items())[-3:])
        raise MemoryStoreError(f"{self.path}: holds no valid version ({reasons}); build the memory anew")

    def newest(self) -> int | None:
        """Return the number of the newest version that counts, or None; cheap enough to ask often."""
        return next(iter(self._numbers()), None)

    def mark(self, part: str, version: int, adapter: str = "") -> str | None:
        """Return what changes when a part does (its SHA-256), or None where a version has none.

        Reads the version's description only, so that a reader can tell cheaply whether there is anything new for it.

        Args:
            part: "cloud", "keyframes" or "adapter".
            version: a number.
            adapter: which adapter.

        Raises:
            MemoryStoreError: the version is gone or damaged.
        """
        found = store_files.read_version(self._folder(version), version)
        if isinstance(found, str):
            raise MemoryStoreError(f"{self.path}: version {version} cannot be read: {found}")
        entry = found.files.get(store_files.adapter_file(adapter) if part == ADAPTER else f"{part}.npz")
        return None if entry is None else entry[1]

    def verify(self) -> list[VersionReport]:
        """Read every version in the folder completely; return what was found, oldest first."""
        counting = set(self._manifest())
        return [self._verify_one(number, number in counting) for number in sorted(self._on_disk())]

    def leftovers(self) -> list[Path]:
        """Return hidden folders of writers that died; the next :meth:`save` deletes them."""
        return sorted(self.path.glob(".v*.tmp"))

    def _verify_one(self, number: int, counts: bool) -> VersionReport:
        found = store_files.read_version(self._folder(number), number)
        if isinstance(found, str):
            size = sum(item.stat().st_size for item in self._folder(number).glob("*"))
            return VersionReport(number, counts, size, (), {}, found)
        diagnosis = None
        try:
            store_files.decode(found, (CLOUD, KEYFRAMES, ADAPTER))
        except MemoryStoreError as error:
            diagnosis = str(error)
        return VersionReport(number, counts, found.size_bytes, tuple(found.files), found.about, diagnosis)

    def _save_locked(self, new: dict[str, bytes], about: dict[str, Any], replaced: set[str], carry: bool) -> int:
        for leftover in self.leftovers():  # nobody else writes while the lock is held
            shutil.rmtree(leftover, ignore_errors=True)
        before = self._newest_whole() if carry else None
        carried: dict[str, Path] = {}
        if before is not None:
            about = {**before.about, **about}
            gone = {store_files.adapter_file(name) for name in replaced}
            carried = {name: before.folder / name for name in before.files if name not in new and name not in gone}
        number = max([0, *self._on_disk(), *self._manifest()]) + 1
        temporary = self.path / f".v{number:06d}.tmp"
        try:
            version = store_files.write_version(temporary, number, new, carried, before, about)
            if version.size_bytes > self.config.max_bytes:
                raise MemoryStoreError(
                    f"{self.path}: a memory of {version.size_bytes} bytes does not fit into the store's "
                    f"{self.config.max_bytes}; raise store.max_bytes or remember less"
                )
            temporary.rename(self._folder(number))
            store_files.synchronise(self.path)
            kept = self._kept(number)
            atomic_write_text(self.path / MANIFEST, json.dumps({"format": FORMAT, "versions": kept}, indent=1) + "\n")
        except BaseException:
            for unfinished in (temporary, self._folder(number)):
                shutil.rmtree(unfinished, ignore_errors=True)
            raise
        for old in self._on_disk() - set(kept):
            shutil.rmtree(self._folder(old), ignore_errors=True)
        return number

    def _kept(self, newest: int) -> list[int]:
        """Return the versions to keep, oldest first: the newest ones that are whole and fit; always the newest."""
        kept, total = list[int](), 0
        for number in sorted(self._on_disk(), reverse=True):
            found = store_files.read_version(self._folder(number), number)
            total += 0 if isinstance(found, str) else found.size_bytes
            if isinstance(found, str) and number != newest:
                continue
            if number != newest and (len(kept) >= self.config.keep_versions or total > self.config.max_bytes):
                break
            kept.append(number)
        return kept[::-1]

    def _newest_whole(self) -> Version | None:
        """Return the newest version whose files are all there and agree with their checksums."""
        for number in self._numbers():
            found = store_files.read_version(self._folder(number), number)
            if isinstance(found, str):
                continue
            with suppress(MemoryStoreError):
                store_files.check(found)
                return found
        return None

    def _numbers(self) -> list[int]:
        """Return versions in the order to try them: those that count, newest first, then what else is there."""
        counting = self._manifest()
        others = sorted(self._on_disk() - set(counting), reverse=True)
        return [*counting[::-1], *others]

    def _manifest(self) -> list[int]:
        """Return the numbers that the manifest names, oldest first; none if it is missing or damaged."""
        try:
            document = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
            return [int(number) for number in document["versions"]] if document["format"] == FORMAT else []
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _on_disk(self) -> set[int]:
        names = [item.name for item in self.path.glob("v*") if item.is_dir()] if self.path.is_dir() else []
        return {int(name[1:]) for name in names if name[1:].isdigit()}

    def _folder(self, number: int) -> Path:
        return self.path / f"v{number:06d}"
