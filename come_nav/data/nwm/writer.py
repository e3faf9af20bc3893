"""Writes a small data set in NWM's layout, index files of the evaluations included, from any recordings."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from come_nav.core.errors import DataError
from come_nav.core.files import atomic_path, atomic_write_text
from come_nav.core.protocols import Recording
from come_nav.data.nwm.dataset import (
    CONTEXT_FRAMES,
    INDEX_FILES,
    NAMES_FILE,
    RATE_HZ,
    SPLITS_FOLDER,
    DatasetFacts,
)
from come_nav.data.nwm.folder import POSES_FILE, NwmRecording, write_nwm_folder

ROLLOUT_NAMES_FILE = "rollout_traj_names.txt"
NAVIGATION_STRIDE = 8  # published windows start at frames that are 3 modulo 8
Window = tuple[str, int, int, int]


@dataclass(frozen=True)
class WrittenDataset:
    """What is on disk: trajectories of the split and windows of each evaluation."""

    folder: Path
    trajectories: int
    windows: dict[str, int]


def write_nwm_dataset(
    root: str | os.PathLike[str],
    facts: DatasetFacts,
    recordings: Iterable[tuple[str, Recording]],
    *,
    overwrite: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> WrittenDataset:
    """Add trajectories to the test split of ``root/<dataset>`` and write its index files anew.

    Args:
        root: made if need be; trajectories that are there already stay.
        facts: which data set's place they take; its spacing is not forced on them.
        recordings: (trajectory name, recording at 4 Hz).
        overwrite: replace trajectories of the same names.
        progress: called with 1 for each frame written.

    Raises:
        DataError: a recording of another rate, or empty.
        StorageError: a trajectory exists already, or cannot be written.
    """
    folder = Path(root) / facts.name
    for name, recording in recordings:
        if abs(recording.rate_hz - RATE_HZ) > 1e-3:
            raise DataError(
                f"{name}: NWM's layout is at {RATE_HZ:g} Hz, got {recording.rate_hz:.3g}; open a faster "
                "recording at that rate, record a slower one anew, or write single folders, which keep their stamps"
            )
        write_nwm_folder(folder / name, recording, overwrite=overwrite, progress=progress)
    names = sorted(path.parent.name for path in folder.glob(f"*/{POSES_FILE}"))
    if not names:
        raise DataError(f"{folder}: no recording was given, so there is no data set to write")
    return write_indices(Path(root), facts, names)


def write_indices(root: Path, facts: DatasetFacts, names: list[str]) -> WrittenDataset:
    """Write traj_names.txt and the three index files of the test split for the trajectories ``names``."""
    segments = {name: NwmRecording(root / facts.name / name, RATE_HZ).segments for name in names}
    folder = root / SPLITS_FOLDER / facts.name / "test"
    atomic_write_text(folder / NAMES_FILE, "\n".join(names) + "\n")
    strides = {"navigation": NAVIGATION_STRIDE, "time": 2 * NAVIGATION_STRIDE, "rollout": 4 * NAVIGATION_STRIDE}
    counts: dict[str, int] = {}
    for kind, (file, ahead) in INDEX_FILES.items():
        windows: list[Window] = [
            (name, start, ahead, ahead)
            for name, stretches in segments.items()
            for first, last in stretches  # NWM itself would read across gaps
            for start in range(first + CONTEXT_FRAMES - 1, last - ahead, strides[kind])
        ]
        counts[kind] = len(windows)
        if kind == "rollout":
            rolled = sorted({window[0] for window in windows})
            atomic_write_text(folder / ROLLOUT_NAMES_FILE, "".join(f"{name}\n" for name in rolled))
        with atomic_path(folder / file) as temporary:
            temporary.write_bytes(pickle.dumps(windows, protocol=4))
    return WrittenDataset(root / facts.name, len(names), counts)
