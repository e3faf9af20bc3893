"""A folder of latent banks that were made once: found by what they were made from, bounded, oldest removed first."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from come_nav.core.errors import DataError, StorageError
from come_nav.core.files import writable_folder
from come_nav.training.data.bank import LatentBank
from come_nav.training.data.bank_file import Segments, bank_bytes, open_bank, write_bank

FORMAT = 2  # raised when banks of the same facts would hold something else
SUFFIX = ".bank.safetensors"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BankRecipe:
    """How a bank is made, once: ``count`` frames in ``parts`` (see :func:`write_bank`)."""

    count: int
    parts: Iterable[LatentBank]
    segments: Segments | None = None


@dataclass
class BankCache:
    """Banks of one folder.

    Attributes:
        folder: created when needed.
        limit_gb: banks used longest ago are removed until the folder is within it; those that this object gave out
            stay.
    """

    folder: Path
    limit_gb: float
    _in_use: set[Path] = field(default_factory=set, init=False)

    def find(self, name: str, facts: Mapping[str, Any]) -> LatentBank | None:
        """Return the bank of ``facts``, mapped, or None; a damaged one is removed and counts as none."""
        path = self.path(name, facts)
        if not path.exists():
            return None
        try:
            bank = open_bank(path)
        except DataError as error:
            _log.warning("%s; making it again", error)
            path.unlink(missing_ok=True)
            return None
        with suppress(OSError):  # a folder shared read-only still serves
            os.utime(path)  # used now
        self._in_use.add(path)
        return bank

    def make(self, name: str, facts: Mapping[str, Any], recipe: BankRecipe) -> LatentBank:
        """Make the bank of ``facts``, keep it, remove what is too much and return it, mapped.

        Raises:
            StorageError: the folder cannot be written, the disk is full, or the limit is too small for this run.
        """
        path = self.path(name, facts)
        writable_folder(self.folder)
        parts = iter(recipe.parts)
        head = next(parts)
        self.make_room(bank_bytes(head, recipe.count), path)
        write_bank(path, recipe.count, chain([head], parts), recipe.segments)
        self._in_use.add(path)
        return open_bank(path)

    def make_room(self, needed_bytes: int, path: Path) -> None:
        """Remove banks, those used longest ago first, until ``needed_bytes`` more fit into the limit."""
        banks = sorted(self.folder.glob(f"*{SUFFIX}"), key=lambda bank: bank.stat().st_mtime)
        total = sum(bank.stat().st_size for bank in banks) + needed_bytes
        for bank in banks:
            if total <= self.limit_gb * 1e9:
                return
            if bank not in self._in_use:
                total -= bank.stat().st_size
                bank.unlink(missing_ok=True)
        if total > self.limit_gb * 1e9:
            raise StorageError(
                f"{path}: the banks of this run take {total / 1e9:.2f} GB, more than data.cache_limit_gb "
                f"{self.limit_gb:g}; raise it, or lower data.worlds or data.recording_use"
            )

    def path(self, name: str, facts: Mapping[str, Any]) -> Path:
        """Return the file of a bank: a readable name and a digest of everything it depends on."""
        text = json.dumps({"format": FORMAT, **facts}, sort_keys=True)
        readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:40]
        return self.folder / f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:20]}{SUFFIX}"


def weights_digest(module: torch.nn.Module, settings: object) -> str:
    """Return a digest of a network: its settings and every weight and buffer, by name."""
    digest = hashlib.sha256(repr(settings).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def files_facts(path: Path) -> dict[str, Any]:
    """Return what tells whether a file or folder changed: its place, number of files, bytes and newest change."""
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    stats = [item.stat() for item in files]
    return {
        "path": str(path.resolve()),
        "files": len(stats),
        "bytes": sum(stat.st_size for stat in stats),
        "changed_ns": max((stat.st_mtime_ns for stat in stats), default=0),
    }
