"""Imagined views of several models on the same windows, each compared with the first model by pairs of windows.

    python benchmarks/compared_views.py models/small runs/other/small --recordings kitchen cabinet
    python benchmarks/compared_views.py models/tiny models/small --sets furnished --worlds 10020-10027

Checkpoints of a training, or models of other data, are told apart by what they imagine at the true poses of recordings
and of validation worlds: PSNR and SSIM over copying the last frame, and the paired differences to the first model. The
windows are those of come-nav evaluate --suite quality, whose results are kept below --work.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from fine_tuning import run_verb
from machine import machine_facts

from come_nav.core.errors import ConfigError
from come_nav.core.files import atomic_write_text
from come_nav.core.settings import read_yaml
from come_nav.evaluation.metrics.statistics import bootstrap_mean

HORIZONS_S = (1, 2, 4, 8)
METRICS = ("psnr_db", "ssim")


def inputs_of(args: argparse.Namespace) -> dict[str, list[object]]:
    """Return name -> words of come-nav evaluate."""
    found: dict[str, list[object]] = {path.name: [path] for path in args.recordings}
    for name in args.sets:
        found[name] = ["--worlds", args.worlds, "--sensors", args.sensors, "--set-of-worlds", name]
    if not found:
        raise ConfigError("name --recordings, or --sets of worlds")
    return found


def views(folder: Path) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """Return window -> metric -> (H,) gains over copying the last frame, of an evaluation's results."""
    rows: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
    for line in (folder / "results.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "row" in record:
            rows.setdefault(record["row"], {})[record["recording"], record["start"]] = record
    copies = rows.pop("copy the last frame")
    (imagined,) = rows.values()
    return {
        window: {metric: np.subtract(record[metric], copies[window][metric]) for metric in METRICS}
        for window, record in imagined.items()
    }


def summary(values: Sequence[np.ndarray], labels: Sequence[str] | None) -> list[dict[str, float]]:
    """Return the mean with its interval for each horizon."""
    return [asdict(bootstrap_mean(column, 0, labels)) for column in np.stack(values).T]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="folders; the first is what others are compared with")
    parser.add_argument("--recordings", type=Path, nargs="*", default=[])
    parser.add_argument("--sets", nargs="*", default=[], help="of validation worlds, e.g. built-in furnished")
    parser.add_argument("--worlds", default="10020-10027")
    parser.add_argument("--sensors", default="realistic")
    parser.add_argument("--windows", type=int, default=60, help="of each input")
    parser.add_argument("--work", type=Path, default=Path("runs/compared_views"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/compared_views.json"))
    args = parser.parse_args()
    document: dict[str, Any] = {
        "what": __doc__.splitlines()[0],
        "machine": machine_facts(),
        "settings": {"worlds": args.worlds, "sensors": args.sensors, "windows": args.windows},
        "models": {str(model): read_yaml(model / "config.yaml")["weights_sha256"] for model in args.models},
        "inputs": {},
    }
    for name, words in inputs_of(args).items():
        found: dict[str, Any] = {}
        first: dict[tuple[str, int], dict[str, np.ndarray]] = {}
        for number, model in enumerate(args.models):
            folder = args.work / f"{name}_{number}"
            options = ("--horizon", ",".join(map(str, HORIZONS_S)), "--rows", "copy,jump", "--windows", args.windows)
            run_verb("evaluate", *words, "--suite", "quality", "--model", model, *options, "--out", folder)
            gains = views(folder)
            first = first or gains
            labels = None if words[0] != "--worlds" else [recording for recording, _ in gains]
            found[str(model)] = {
                "windows": len(gains),
                "gains": {m: summary([own[m] for own in gains.values()], labels) for m in METRICS},
                "over_first": {m: summary([own[m] - first[w][m] for w, own in gains.items()], labels) for m in METRICS},
            }
            told = [f"{own['value']:+.2f}" for own in found[str(model)]["gains"]["psnr_db"]]
            less = [f"{own['value']:+.2f}" for own in found[str(model)]["over_first"]["psnr_db"]]
            print(
                f"{name:12s} {model!s:36s} {' '.join(told)} dB over copying; {' '.join(less)} to the first", flush=True
            )
        document["inputs"][name] = found
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
