"""Data sets in NWM's layout: trajectory folders, and the pickled lists that say which windows an evaluation takes.

``root/<dataset>/<trajectory>/0.jpg .. traj_data.pkl`` and
``root/data_splits/<dataset>/test/{traj_names.txt, navigation_eval.pkl, time.pkl, rollout.pkl}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from come_nav.core.errors import ConfigError, DataError, suggest
from come_nav.core.restricted_pickle import load_arrays
from come_nav.data.nwm.folder import POSES_FILE, NwmRecording

RATE_HZ = 4.0
CONTEXT_FRAMES = 4
SPLITS_FOLDER = "data_splits"
NAMES_FILE = "traj_names.txt"
# kind of evaluation -> index file and frames ahead that its windows need
INDEX_FILES = {"navigation": ("navigation_eval.pkl", 8), "time": ("time.pkl", 64), "rollout": ("rollout.pkl", 64)}
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class DatasetFacts:
    """What NWM's configuration says about a data set.

    Attributes:
        name: folder of the data set.
        spacing_m: mean distance of waypoints at 4 Hz.
        prior_mean, prior_std: of the planner's first samples (dx, dy in NWM's range, yaw in units of pi); the published
            file calls the second one a variance, but it multiplies the normal numbers.
        prior_known: whether the prior is the published one; else it is that of recon.
    """

    name: str
    spacing_m: float
    prior_mean: Vector = (-0.1, 0.0, 0.0)
    prior_std: Vector = (0.02, 0.1, 0.1)
    prior_known: bool = True


DATASETS = {
    facts.name: facts
    for facts in (
        DatasetFacts("recon", 0.25),
        DatasetFacts("scand", 0.38, (-0.25, 0.0, 0.0), (0.04, 0.1, 0.1)),
        DatasetFacts("sacson", 0.255, (-0.33, 0.0, 0.0), (0.03, 0.1, 0.1)),
        DatasetFacts("tartan_drive", 0.72, (0.5, 0.0, 0.0), (0.07, 0.1, 0.1)),
        DatasetFacts("go_stanford", 0.12, prior_known=False),
    )
}
ALIASES = {"huron": "sacson", "tartan": "tartan_drive"}


def dataset_facts(name: str) -> DatasetFacts:
    """Return the facts of a data set; raise ConfigError with the nearest known name."""
    found = DATASETS.get(ALIASES.get(name, name))
    if found is None:
        raise ConfigError(f"--dataset '{name}' is unknown{suggest(name, [*DATASETS, *ALIASES])}")
    return found


@dataclass(frozen=True)
class IndexEntry:
    """One window of an evaluation: stand at frame ``start`` of a trajectory, look at most ``max_frames`` ahead."""

    trajectory: str
    start: int
    min_frames: int
    max_frames: int


class NwmDataset:
    """A data set on disk; trajectories are opened when asked for and kept (their frames are not)."""

    def __init__(self, root: Path, facts: DatasetFacts, splits: Path | None = None, split: str = "test") -> None:
        """Find the folders of a data set.

        Args:
            root: folder that holds ``<dataset>/`` and ``data_splits/``, or the trajectories themselves.
            facts: which data set.
            splits: folder of the index files instead of the one under ``root``, e.g. the official repository's.
            split: "test" or "train".

        Raises:
            DataError: a folder is missing.
        """
        self.facts = facts
        self.folder = _data_folder(root, facts.name)
        base = root / SPLITS_FOLDER if splits is None else splits
        self.splits = next(
            (path for path in (base / facts.name / split, base / split, base) if path.is_dir()),
            base / facts.name / split,
        )
        self._open: dict[str, NwmRecording] = {}

    def names(self) -> list[str]:
        """Return the trajectories that ``traj_names.txt`` lists."""
        path = self.splits / NAMES_FILE
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read; copy data_splits of the data set, or give --splits") from error
        return [line.strip() for line in lines if line.strip()]

    def trajectory(self, name: str, where: Path | None = None) -> NwmRecording:
        """Open a trajectory; ``where`` names the file that asked for it, for the message when it is absent."""
        if name not in self._open:
            folder = self.folder / name
            if not self._has(folder):
                asked = f"{where} names" if where is not None else "asked for"
                raise DataError(
                    f"{asked} trajectory '{name}', but {self.folder} has no such folder with {POSES_FILE}; "
                    "copy all trajectories of the split"
                )
            self._open[name] = NwmRecording(folder, RATE_HZ)
        return self._open[name]

    def _has(self, folder: Path) -> bool:
        """Tell whether a trajectory is there, inside of the data set's folder."""
        try:
            return folder.resolve().is_relative_to(self.folder.resolve()) and (folder / POSES_FILE).is_file()
        except (OSError, ValueError):  # a name too long, or with a zero byte in it
            return False

    def index_path(self, kind: str) -> Path:
        """Return the index file of an evaluation: navigation, time or rollout."""
        return self.splits / INDEX_FILES[kind][0]

    def index(self, kind: str) -> list[IndexEntry]:
        """Read the windows of an evaluation; the pickle is read without running anything that it names.

        Raises:
            DataError: the file is missing, is no list of (trajectory, frame, shortest, longest), or asks for code.
        """
        path = self.index_path(kind)
        if not path.is_file():
            raise DataError(f"{path}: no such index; copy data_splits of the official repository, or give --splits")
        content = load_arrays(path)
        if not isinstance(content, (list, tuple)):
            raise DataError(f"{path}: must hold a list of windows, holds {type(content).__name__}")
        if not content:
            raise DataError(f"{path}: lists no window; the trajectories are too short for this evaluation")
        return [_entry(path, number, item) for number, item in enumerate(content)]

    def window(
        self, entry: IndexEntry, frames_ahead: int, kind: str, context_frames: int = CONTEXT_FRAMES
    ) -> NwmRecording:
        """Return the trajectory of a window, after a check that it holds its context and its goal."""
        path = self.index_path(kind)
        recording = self.trajectory(entry.trajectory, path)
        first, last = entry.start - context_frames + 1, entry.start + frames_ahead
        if first < 0 or last >= len(recording):
            raise DataError(
                f"{path}: window at frame {entry.start} of '{entry.trajectory}' needs frames {first} to {last}, "
                f"but there are {len(recording)}; the trajectory was cut, copy it again"
            )
        return recording


def _data_folder(root: Path, name: str) -> Path:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder of the data sets with --root")
    if (root / name).is_dir():
        return root / name
    if any(path.parent.parent == root for path in root.glob(f"*/{POSES_FILE}")):
        return root
    raise DataError(f"{root}: holds neither a folder '{name}' nor trajectory folders with {POSES_FILE}")


def _entry(path: Path, number: int, item: Any) -> IndexEntry:
    whole = isinstance(item, (list, tuple)) and len(item) == 4 and isinstance(item[0], str)
    try:
        if not whole:
            raise TypeError
        trajectory, start, shortest, longest = item
        return IndexEntry(trajectory, int(start), int(shortest), int(longest))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path}: entry {number} must be (trajectory, frame, shortest, longest), got {str(item)[:60]}"
        ) from error
