"""Finds the storage files behind what a user calls a bag, and opens a reader for each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from come_nav.core.errors import DataError, suggest
from come_nav.data.bags.sqlite_beside import JOURNAL_SUFFIX, WAL_SUFFIX, beside, has_wal

STORAGE_OF_SUFFIX = {".mcap": "mcap", ".db3": "sqlite3", ".bag": "rosbag1"}
NEWEST_METADATA = 9  # the newest version of metadata.yaml that rosbags reads; later ones are passed by
UNFINISHED = ".bag.active"  # what a killed recorder of ROS 1 leaves


@dataclass(frozen=True)
class BagFiles:
    """Where a bag's bytes are. ``folder`` is set when metadata.yaml describes the files."""

    path: Path
    storage: str
    files: tuple[Path, ...]
    folder: Path | None = None
    custom_data: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def is_bag(path: Path) -> bool:
    """Tell whether ``path`` looks like a bag: a storage file, a metadata.yaml, or a folder that holds either."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or bool(_storage_files(path))
    return path.name == "metadata.yaml" or _storage_of(path) is not None


def locate_bag(path: Path) -> BagFiles:
    """Return the files of the bag that ``path`` names; raise DataError when there is none."""
    if not path.exists():
        near = suggest(path.name, [item.name for item in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise DataError(f"{path}: no such file or folder{near if 'did you mean' in near else ''}")
    if path.name == "metadata.yaml":
        return _folder_bag(path.parent, path)
    if path.is_dir():
        return _folder_bag(path, path)
    if path.name.endswith(UNFINISHED):
        raise _unfinished(path)
    storage = _storage_of(path)
    if storage is None:
        raise DataError(f"{path}: not a bag; expected a rosbag2 folder, metadata.yaml, .mcap, .db3 or .bag")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes); record or copy it again")
    facts = _listed_by(path)
    return BagFiles(path, storage, (path,), None, custom_data(facts), tuple(_leftovers([path])))


def custom_data(facts: dict[str, Any]) -> dict[str, Any]:
    """Decode metadata.yaml's custom_data: rosbag2 keeps strings only, come_nav writes JSON into them."""
    decoded: dict[str, Any] = {}
    for key, value in (facts.get("custom_data") or {}).items():
        try:
            decoded[str(key)] = json.loads(value)
        except (TypeError, ValueError):
            decoded[str(key)] = value
    return decoded


def open_readers(bag: BagFiles, recover: bool) -> list[Any]:
    """Open the rosbags readers of a bag, all or none."""
    from come_nav.data.bags.readers import open_reader
    from come_nav.data.bags.sqlite_reader import check_sqlite_length

    for item in bag.files:
        if item.suffix == ".db3":
            check_sqlite_length(item)
    readers: list[Any] = []
    try:
        for target in (bag.folder,) if bag.folder is not None and not recover else bag.files:
            readers.append(open_reader(target, recover))
    except BaseException:
        for reader in readers:
            reader.close()
        raise
    return readers


def decompress(raw: bytes) -> bytes:
    """Decompress one zstd frame."""
    from backports import zstd

    plain: bytes = zstd.decompress(raw)
    return plain


def _folder_bag(folder: Path, named: Path) -> BagFiles:
    facts = _read_metadata(folder / "metadata.yaml")
    if facts is not None:
        return _described_bag(folder, named, facts)
    files = _storage_files(folder)
    if not files:
        unfinished = sorted(folder.glob(f"*{UNFINISHED}"))
        if unfinished:
            raise _unfinished(unfinished[0])
        raise DataError(f"{folder}: no metadata.yaml and no .mcap, .db3 or .bag file in the folder")
    storages = {_storage_of(item) for item in files}
    if len(storages) > 1 or (storages == {"rosbag1"} and len(files) > 1):
        raise DataError(
            f"{folder}: holds several bags ({', '.join(item.name for item in files[:3])}); name one of them"
        )
    notes = [] if storages == {"rosbag1"} else [f"{folder} has no metadata.yaml; its storage files are read directly"]
    return BagFiles(named, str(storages.pop()), tuple(files), None, {}, (*notes, *_leftovers(files)))


def _described_bag(folder: Path, named: Path, facts: dict[str, Any]) -> BagFiles:
    """Return the bag that metadata.yaml lists; what it says is passed by where it cannot be true or is too new."""
    listed = [folder / Path(str(name)).name for name in facts.get("relative_file_paths") or []]
    missing = [item.name for item in listed if not item.exists()]
    if missing:
        raise DataError(f"{folder}: metadata.yaml lists {missing[0]}, which is not there; copy the whole folder")
    storage, notes = str(facts.get("storage_identifier") or ""), _leftovers(listed)
    directly = bool(notes)
    if storage not in ("mcap", "sqlite3"):
        named_so = {_storage_of(item) for item in listed}
        if storage or "storage_identifier" not in facts or len(named_so) != 1 or named_so <= {None, "rosbag1"}:
            raise DataError(
                f"{folder}/metadata.yaml: storage_identifier '{storage}' is not mcap or sqlite3; name the storage file"
            )
        storage, directly = str(named_so.pop()), True
        notes.append(f"{folder}/metadata.yaml: storage_identifier is empty; taken for {storage} by the files' names")
    version = facts.get("version")
    if isinstance(version, int) and version > NEWEST_METADATA:
        directly = True
        notes.append(f"{folder}/metadata.yaml: version {version} is newer than {NEWEST_METADATA}; the files are read")
    return BagFiles(named, storage, tuple(listed), None if directly else folder, custom_data(facts), tuple(notes))


def _leftovers(files: list[Path]) -> list[str]:
    """Return a note for each file beside which SQLite left a log of its writer."""
    notes = []
    for path in files:
        if has_wal(path):
            notes.append(f"{path.name}{WAL_SUFFIX}: left by a recorder that was killed; its messages are read too")
        journal = beside(path, JOURNAL_SUFFIX)
        if path.suffix == ".db3" and journal.is_file() and journal.stat().st_size > 0:
            notes.append(
                f"{journal.name}: left by a writer that was killed; messages that it was writing may be damaged"
            )
    return notes


def _unfinished(path: Path) -> DataError:
    return DataError(
        f"{path}: left by a recorder that was killed, without its index; run  rosbag reindex {path.name}  and then  "
        f"rosbag fix {path.name} repaired.bag"
    )


def _read_metadata(path: Path) -> dict[str, Any] | None:
    import yaml

    if not path.is_file():
        return None
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        facts = content["rosbag2_bagfile_information"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"{path}: cannot be read as rosbag2 metadata ({reason}); name the storage file itself"
        ) from error
    if not isinstance(facts, dict):
        raise DataError(f"{path}: rosbag2_bagfile_information must be a mapping; name the storage file itself")
    return facts


def _listed_by(path: Path) -> dict[str, Any]:
    """Return the facts of the metadata.yaml beside a storage file, if it describes that file."""
    try:
        facts = _read_metadata(path.parent / "metadata.yaml")
    except DataError:
        return {}
    names = [Path(str(name)).name for name in (facts or {}).get("relative_file_paths") or []]
    return facts if facts is not None and path.name in names else {}


def _storage_files(folder: Path) -> list[Path]:
    return sorted(item for item in folder.iterdir() if item.is_file() and _storage_of(item) is not None)


def _storage_of(path: Path) -> str | None:
    name = path.with_suffix("") if path.suffix == ".zstd" else path
    return STORAGE_OF_SUFFIX.get(name.suffix)
