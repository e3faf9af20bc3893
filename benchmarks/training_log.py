"""What a training run logged: losses against steps, and how long it took on the clock.

    python benchmarks/training_log.py runs/small --out benchmarks/results/training_small.json

Losses of a run that was stopped and went on are joined; training losses are means of a hundred steps or more. Hours are
those between the first and the last line of each slice, which other programs on the machine make longer. Validation
losses have the names that training gives them: `loss` is the base's, the others leave everything out (`null_loss`) or
show more (`longer_loss`, `memory_loss`). A figure is written beside the file.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine_facts
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from come_nav.core.errors import DataError
from come_nav.core.files import atomic_path, atomic_write_text
from come_nav.core.settings import read_yaml
from come_nav.viz.figures import plot_error_over_time

MEAN_OF = 100


def logged(folder: Path, stage: str) -> dict[str, dict[int, float]]:
    """Return name -> step -> value of a stage's CSV files; later slices replace what earlier ones did after a save."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    paths = sorted((folder / "logs" / stage).glob("version_*/metrics.csv"), key=lambda own: own.stat().st_mtime)
    for path in paths:
        with path.open(newline="") as handle:
            for line in csv.DictReader(handle):
                for name, value in line.items():
                    if name not in ("epoch", "step") and value:
                        found[name][int(line["step"]) + 1] = float(value)
    if not found:
        raise DataError(f"{folder}: holds no log of a stage '{stage}'")
    return found


def hours_of(folder: Path, stage: str) -> float:
    """Return the hours on the clock between the first and the last entry of each slice, added up."""
    seconds = 0.0
    for path in (folder / "tensorboard" / stage).rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(path)).Reload()
        times_s = [own.wall_time for tag in events.Tags()["scalars"] for own in events.Scalars(tag)]
        seconds += max(times_s) - min(times_s) if times_s else 0.0
    return seconds / 3600.0


def means(values: dict[int, float]) -> dict[str, list[float]]:
    """Return means of the values of every MEAN_OF steps, at the last of them."""
    blocks: dict[int, list[float]] = defaultdict(list)
    for step, value in sorted(values.items()):
        blocks[(step - 1) // MEAN_OF].append(value)
    return {
        "step": [MEAN_OF * (block + 1) for block in blocks],
        "value": [round(float(np.mean(own)), 4) for own in blocks.values()],
    }


def stage_of(folder: Path, stage: str) -> dict[str, Any]:
    found = logged(folder, stage)
    train = found.pop("train/loss", {})
    checks = {
        name.partition("/")[2]: {"step": sorted(own), "value": [round(own[step], 4) for step in sorted(own)]}
        for name, own in found.items()
        if name.startswith("validation/")
    }
    last = max(max(own) for own in (train, *found.values()) if own)
    return {"steps": last, "hours": round(hours_of(folder, stage), 2), "train": means(train), "validation": checks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; a PNG is written beside it")
    args = parser.parse_args()
    stages = [own.name for own in sorted((args.run / "logs").iterdir(), key=lambda own: own.stat().st_ctime)]
    document = {
        "what": __doc__.splitlines()[0],
        "config": read_yaml(args.run / "config.yaml"),
        "machine": machine_facts(),
        "stages": {stage: stage_of(args.run, stage) for stage in stages},
    }
    atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")
    checks = document["stages"]["denoiser"]["validation"]
    curves = {name: (own["step"], own["value"]) for name, own in checks.items() if len(own["step"]) > 1}
    if curves:
        with atomic_path(args.out.with_suffix(".png")) as temporary:
            temporary.write_bytes(
                plot_error_over_time(curves, y_label="validation loss", x_label="step", from_zero=False)
            )
    for stage, own in document["stages"].items():
        print(f"{stage}: {own['steps']} steps, {own['hours']} h; {own['validation']}")


if __name__ == "__main__":
    main()
