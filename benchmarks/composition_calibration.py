"""Which weights would the experts of a composition need, at each noise level, and what is each expert worth?

    python benchmarks/composition_calibration.py --worlds 10000-10007 --windows 64 --out validation.json
    python benchmarks/composition_calibration.py --worlds 10000-10007 --windows 64 --drift 2 --out drift.json
    python benchmarks/composition_calibration.py ../shared/data/bags/kitchen --windows 30 --out kitchen.json

Errors are mean squares of clean latents (1 = the latents' own variance, about), of each window with what was fitted on
the half that it is not in; intervals are over drives. "worth" is by what share the error rises when the weights are
fitted anew without an expert. "fixed" are the weights that the model ships with; a single
expert is its own prediction with its memory. Targets were last seen 15 s before, so that the short-term expert's 12
frames show nothing of them: its row equals the base here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from come_nav.cli.evaluate_flags import parse_worlds
from come_nav.cli.output import Steps
from come_nav.config import load_config
from come_nav.core.files import atomic_write_text
from come_nav.evaluation.suites.inputs import SourceSettings
from come_nav.evaluation.suites.memory.calibration import (
    CALIBRATED,
    FIXED,
    LIKELIHOOD,
    Calibration,
    LevelCalibration,
    run_calibration,
)
from come_nav.evaluation.suites.memory.compositions import find_weights
from come_nav.evaluation.suites.memory.settings import RECALL, MemorySuiteSettings


def document(found: Calibration, seed: int) -> dict[str, Any]:
    """Return what was found as numbers with four digits."""
    rows = []
    for own in found.levels:
        best = own.best_single
        row: dict[str, Any] = {"level": own.level, "best single expert": best}
        row["weights"] = {name: round(float(w), 3) for name, w in zip(found.names, own.weights, strict=True)}
        row["worth"] = {
            name: [round(v, 4) for v in (value.value, value.low, value.high)]
            for name in found.names
            if (value := own.worth_of(name, seed, found.drives))
        }
        row["passes"] = own.passes
        row["error"] = {name: round(float(values.mean()), 4) for name, values in own.errors.items()}
        for name, over in compared(own):
            ratio = own.ratio(name, over, seed, found.drives)
            row[f"{name} over {over}"] = [round(v, 4) for v in (ratio.value, ratio.low, ratio.high)]
        rows.append(row)
    means = [[round(sum(cell) / len(cell), 3) for cell in bins] for bins in found.gains.gains]
    gains = {"levels": found.gains.levels, "shares": found.gains.shares, "mean over channels": means}
    gains["is a latent paste"] = found.gains.pastes
    return {
        "title": found.title,
        "windows": len(found.drives),
        "drives": len(set(found.drives)),
        "levels": rows,
        "gains": gains,
    }


def compared(own: LevelCalibration) -> list[tuple[str, str]]:
    """Return which rows are compared with which."""
    pairs = [(CALIBRATED, over) for over in (FIXED, own.best_single, own.best_single_calibrated)]
    return pairs + [(name, CALIBRATED) for name in own.errors if name == LIKELIHOOD or name.endswith("dropped")]


def main() -> None:
    """Calibrate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bag", nargs="*")
    parser.add_argument("--worlds", default="10000-10007")
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--drift", type=float, default=0.0, help="percent")
    parser.add_argument("--prior-frames", type=float, default=1.0)
    parser.add_argument("--levels", type=float, nargs="+", default=[1.0, 0.7, 0.4])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--adapters", type=Path, help="folder that keeps the adapters of the drives for the next run")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    config = load_config(None, {"model": args.model})
    worlds = parse_worlds(args.worlds)
    source = SourceSettings(suite=RECALL, paths=tuple(args.bag), worlds=worlds, windows=args.windows)
    settings = MemorySuiteSettings(source, find_weights(None, args.model), drift_percent=args.drift)
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = run_calibration(settings, config, args.adapters or Path(folder), args.prior_frames, args.levels, Steps)
    result = document(found, config.seed) | {"seconds": round(time.monotonic() - started_s, 1)}
    print(json.dumps(result, indent=1))
    if args.out is not None:
        atomic_write_text(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
