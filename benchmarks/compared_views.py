"""Imagined views of several models on the same windows, each compared with the first model by pairs of windows.

    python benchmarks/compared_views.py models/small runs/other/small --recordings kitchen cabinet
    python benchmarks/compared_views.py models/tiny models/small --sets furnished --worlds 10020-10027

Checkpoints of a training, or models of other data, are told apart by what they imagine at the true poses of recordings
and of validation worlds: PSNR and SSIM over copying the last frame, and the paired differences to the first model. The
windows are those of come-nav evaluate --suite quality, whose results are kept below --work. With --rows jump tilted the
views of recordings by hand are also imagined with the camera's own tilt at the target.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from machine import machine_facts
from model_figures import column, labels_of

from come_nav.cli.evaluate_flags import parse_worlds
from come_nav.config import load_config
from come_nav.core.errors import ConfigError
from come_nav.core.files import atomic_write_text
from come_nav.core.settings import read_yaml
from come_nav.evaluation.metrics.statistics import paired_difference
from come_nav.evaluation.reports.quality_tables import GAIN_METRICS
from come_nav.evaluation.suites.inputs import SourceSettings
from come_nav.evaluation.suites.quality import QualityOutcome, QualitySuiteSettings, run_quality
from come_nav.sim.sensors.settings import sensor_settings

SEED = 0
ROWS = {"jump": "", "tilted": ", tilt told"}  # row -> what its inputs are called


def inputs_of(args: argparse.Namespace) -> dict[str, SourceSettings]:
    """Return name -> what is evaluated."""
    worlds, sensors = parse_worlds(args.worlds), sensor_settings(args.sensors)
    found = {path.name: SourceSettings("quality", (str(path),), windows=args.windows) for path in args.recordings}
    for name in args.sets:
        found[name] = SourceSettings("quality", worlds=worlds, windows=args.windows, sensors=sensors, world_set=name)
    if not found:
        raise ConfigError("name --recordings, or --sets of worlds")
    return found


def imagined(source: SourceSettings, model: Path, row: str, folder: Path) -> QualityOutcome:
    """Return what a model imagines of an input, evaluated now or before; no plans follow."""
    config = load_config(None, {"model": str(model), "seed": SEED})
    settings = QualitySuiteSettings(source, rows=("copy", row), planning_windows=0, report=False)
    return run_quality(settings, config, folder)


def compared(outcome: QualityOutcome, first: QualityOutcome) -> dict[str, Any]:
    """Return gains over copying the last frame, and the paired differences to what the first model imagined."""
    row = outcome.evaluation.rows[-1].name
    own, other = (found.evaluation.records[row] for found in (outcome, first))
    labels = labels_of(outcome.evaluation.windows, outcome.source)
    differences = {
        metric: [
            asdict(paired_difference(a, b, SEED, labels))
            for a, b in zip(column(own, metric).T, column(other, metric).T, strict=True)
        ]
        for metric in GAIN_METRICS
    }
    gains = {metric: list(map(asdict, found)) for metric, found in outcome.evaluation.table.gains[row].items()}
    return {"windows": len(own), "gains": gains, "over_first": differences}


def line_of(name: str, model: Path, found: dict[str, Any]) -> str:
    """Return one line of the table."""
    gains, less = (" ".join(f"{own['value']:+.2f}" for own in found[key]["psnr_db"]) for key in ("gains", "over_first"))
    return f"{name:20s} {model!s:36s} {gains} dB over copying; {less} to the first"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="folders; the first is what others are compared with")
    parser.add_argument("--recordings", type=Path, nargs="*", default=[])
    parser.add_argument("--sets", nargs="*", default=[], help="of validation worlds, e.g. built-in furnished")
    parser.add_argument("--worlds", default="10020-10027")
    parser.add_argument("--sensors", default="realistic")
    parser.add_argument("--windows", type=int, default=60, help="of each input")
    parser.add_argument("--rows", nargs="*", default=["jump"], choices=tuple(ROWS), help="tilted: its tilt is told")
    parser.add_argument("--work", type=Path, default=Path("runs/compared_views"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/compared_views.json"))
    args = parser.parse_args()
    document: dict[str, Any] = {
        "what": __doc__.splitlines()[0],
        "machine": machine_facts(),
        "settings": {"worlds": args.worlds, "sensors": args.sensors, "windows": args.windows, "rows": args.rows},
        "models": {str(model): read_yaml(model / "config.yaml")["weights_sha256"] for model in args.models},
        "inputs": {},
    }
    for row, (name, source) in itertools.product(args.rows, inputs_of(args).items()):
        folders = [args.work / f"{name}_{n}_{row}" for n, _ in enumerate(args.models)]
        outcomes = [imagined(source, model, row, folder) for model, folder in zip(args.models, folders, strict=True)]
        found = [compared(outcome, outcomes[0]) for outcome in outcomes]
        for model, own in zip(args.models, found, strict=True):
            print(line_of(name + ROWS[row], model, own), flush=True)
        document["inputs"][name + ROWS[row]] = dict(zip(map(str, args.models), found, strict=True))
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
