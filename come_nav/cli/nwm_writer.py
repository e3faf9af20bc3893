"""Data sets in NWM's layout from the simulator (``simulate --nwm-dataset``) and from recordings (``convert``)."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.core.errors import ConfigError

if TYPE_CHECKING:
    from come_nav.core.protocols import Recording
    from come_nav.data.nwm.writer import WrittenDataset
    from come_nav.sim.sensors.mounting import MountedCamera
    from come_nav.sim.sensors.settings import SensorSettings

RATE_HZ = 4.0


def simulate_dataset(args: argparse.Namespace, camera: MountedCamera, sensors: SensorSettings) -> dict[str, Any]:
    """Drive one episode in each of ``--worlds`` and write them as the test split of a data set; return the facts."""
    from come_nav.data.nwm.dataset import dataset_facts

    facts = dataset_facts(args.nwm_dataset)
    seeds = parse_range(args.worlds if args.worlds is not None else str(args.world))
    total = len(seeds) * (int(args.duration * RATE_HZ) + 1)
    written = _write(args.out, facts.name, lambda: _episodes(args, camera, sensors, seeds), args.overwrite, total)
    return {**dataset_document(args.out, written), "worlds": seeds, "driver": args.driver}


def convert_dataset(args: argparse.Namespace) -> dict[str, Any]:
    """Add one recording to the test split of a data set; return the facts."""
    from come_nav.cli.recording_flags import open_from_flags, parse_size
    from come_nav.data.nwm.dataset import dataset_facts
    from come_nav.data.resized import ResizedRecording

    facts, size = dataset_facts(args.dataset), parse_size(args.size)
    with open_from_flags(args.input, args) as source:
        recording: Recording = source if size is None else ResizedRecording(source, *size)
        name = args.input.stem if args.input.is_file() else args.input.name
        written = _write(args.output, facts.name, lambda: iter([(name, recording)]), args.overwrite, len(recording))
    return dataset_document(args.output, written)


def dataset_document(root: Path, written: WrittenDataset) -> dict[str, Any]:
    """Return what was written, for ``--json``."""
    return {
        "output": str(root),
        "format": "nwm-dataset",
        "count": written.trajectories,
        "what": "trajectories",
        "folder": str(written.folder),
        "windows": written.windows,
    }


def print_dataset(document: dict[str, Any]) -> None:
    """Print what was written and what to do with it."""
    windows = ", ".join(f"{count} {kind}" for kind, count in document["windows"].items())
    print(f"{document['folder']}: {document['count']} trajectories; windows: {windows}")
    name = Path(document["folder"]).name
    print(
        f"evaluate plans: come-nav evaluate --protocol nwm --dataset {name} --root {document['output']} --cost latent"
    )


def parse_range(text: str) -> list[int]:
    """Return the seeds of ``A-B`` or ``A``; raise ConfigError for anything else."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text.strip())
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise ConfigError(f"--worlds must be a seed or a range such as 20000-20003, got '{text}'")
    return list(range(int(found[1]), int(found[2] or found[1]) + 1))


def _episodes(
    args: argparse.Namespace, camera: MountedCamera, sensors: SensorSettings, seeds: list[int]
) -> Iterator[tuple[str, Recording]]:
    from come_nav.sim.episodes import EpisodeRecording, simulate_episode
    from come_nav.sim.raycaster import Raycaster
    from come_nav.sim.world_sets import world_set
    from come_nav.sim.worlds import generate_world

    for seed in seeds:
        world = generate_world(seed, world_set(args.set_of_worlds))
        episode = simulate_episode(world, args.driver, args.duration, RATE_HZ, args.seed, sensors.odometry)
        raycaster = Raycaster([world], camera.intrinsics, camera.height_m, args.device, camera.pitch_rad)
        recording = EpisodeRecording(episode, raycaster, sensors=sensors)
        yield f"{recording.name}", recording


def _write(
    root: Path,
    dataset: str,
    recordings: Callable[[], Iterator[tuple[str, Recording]]],
    overwrite: bool,
    frames: int,
) -> WrittenDataset:
    from tqdm import tqdm

    from come_nav.data.nwm.dataset import dataset_facts
    from come_nav.data.nwm.writer import write_nwm_dataset

    with tqdm(total=frames, desc="write", unit="frame", file=sys.stderr, disable=None) as bar:
        return write_nwm_dataset(root, dataset_facts(dataset), recordings(), overwrite=overwrite, progress=bar.update)
