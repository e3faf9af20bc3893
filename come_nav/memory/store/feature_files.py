"""Key frames with features on disk: views in files that are written once, and what changes in a small one beside them.

    store/features/
      views-000000-1b2c3d4e.npz    views of key frames 0 ... (``localisation.saved.views``)
      views-000037-5f60718a.npz    of those that came next
      state.npz                    names of the files of views, and all other arrays; written last, atomically

A kill at any moment leaves the state from before, whose files are still there. Features that were let go stay in their
files until they are more than those in use; then everything is written anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import MemoryStoreError, ShapeError, StorageError
from come_nav.core.files import atomic_path
from come_nav.localisation.keyframe_map import VisualKeyframe
from come_nav.localisation.saved.views import packed_views, unpacked_views
from come_nav.memory.store.files import archive_of, arrays_of

FOLDER = "features"
STATE = "state.npz"
Arrays = Mapping[str, NDArray[Any]]


class FeatureFiles:
    """The features of one robot's key frames in a folder of its memory store. One process writes."""

    def __init__(self, store: Path) -> None:
        self.folder = Path(store) / FOLDER
        self._files: list[tuple[str, int]] = []  # with the number of key frames in each
        self._stamps_s: list[float] = []  # of the key frames in them
        self._held = 0  # of those, how many had features when they were written

    def save(self, keyframes: Sequence[VisualKeyframe], state: Arrays) -> None:
        """Write the key frames that came since the last time, and all of ``state``; none at all deletes everything.

        Raises:
            MemoryStoreError: no space or no permission; what was written before stays.
        """
        stamps_s = [keyframe.stamp_s for keyframe in keyframes]
        others = stamps_s[: len(self._stamps_s)] != self._stamps_s
        if others or self._held > 2 * max(_with_features(keyframes), 1):
            self._files, self._stamps_s, self._held = [], [], 0
        new = keyframes[len(self._stamps_s) :]
        try:
            if new:
                self._files.append((self._write_views(new, len(self._stamps_s)), len(new)))
                self._stamps_s, self._held = stamps_s, self._held + _with_features(new)
            if self.folder.is_dir() or keyframes:
                files = {"files": np.array(json.dumps(self._files))}
                self._write(STATE, archive_of({**state, **files}, "features"))
                self._delete_others()
        except StorageError as error:
            raise MemoryStoreError(str(error)) from error

    def load(self) -> tuple[list[VisualKeyframe], dict[str, NDArray[Any]]] | None:
        """Return key frames and state as saved last; None where nothing was.

        Raises:
            MemoryStoreError: for files that are missing or damaged.
        """
        if not (self.folder / STATE).is_file():
            return None
        state = _read(self.folder / STATE)
        try:
            files = [(str(name), int(count)) for name, count in json.loads(str(state.pop("files")))]
            T_odom_base, keyframes = state.get("T_odom_base", np.zeros((0, 4, 4))), list[VisualKeyframe]()
            for name, count in files:
                poses = T_odom_base[len(keyframes) : len(keyframes) + count]
                keyframes += unpacked_views(_read(self.folder / name, checked=True), poses)
        except (ShapeError, KeyError, TypeError, ValueError) as error:
            raise MemoryStoreError(f"{self.folder}: is damaged ({error}); delete this folder") from error
        self._files, self._held = files, _with_features(keyframes)
        self._stamps_s = [keyframe.stamp_s for keyframe in keyframes]
        return (keyframes, state) if keyframes else None

    def _write_views(self, keyframes: Sequence[VisualKeyframe], first: int) -> str:
        content = archive_of(packed_views(keyframes), "features")
        name = f"views-{first:06d}-{_digest(content)}.npz"
        self._write(name, content)
        return name

    def _write(self, name: str, content: bytes) -> None:
        with atomic_path(self.folder / name) as temporary:
            temporary.write_bytes(content)

    def _delete_others(self) -> None:
        """Delete files of views that the state does not name."""
        named = {name for name, _ in self._files}
        for path in self.folder.glob("views-*.npz"):
            if path.name not in named:
                with suppress(OSError):
                    path.unlink()


def _with_features(keyframes: Sequence[VisualKeyframe]) -> int:
    return sum(len(keyframe.view.features) > 0 for keyframe in keyframes)


def _read(path: Path, checked: bool = False) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file; ``checked`` against the digest in its name. Raises MemoryStoreError."""
    try:
        content = path.read_bytes()
        if checked and path.stem.rpartition("-")[2] != _digest(content):
            raise MemoryStoreError("it differs from what was written")
        return arrays_of("it", content)
    except (OSError, MemoryStoreError) as error:
        raise MemoryStoreError(f"{path}: cannot be read ({error}); delete the folder {path.parent}") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]
