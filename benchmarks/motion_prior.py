"""Plans with a learned prior of motion beside plans with that of a constant twist: ATE, and how much of the gap closes.

Every weight plans on the same windows with the same numbers drawn, so that differences from the first, which has the
model's own prior of a constant twist, are paired. "perfect" imagines by the renderer and searches with the same cost,
so that it has the prior too.

    python benchmarks/motion_prior.py --model medium --worlds 10020-10027 --weights 0.005 0.01 0.02    to choose one
    python benchmarks/motion_prior.py --model medium --worlds 20000-20009 --weights 0.01 --recordings kitchen cabinet

Recordings are planned for a robot with a differential drive (--set robot.kinematics=differential), their last 40 %, and
have no perfect row. What is measured is kept in --work, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine_facts
from numpy.typing import NDArray

from come_nav.cli.evaluate_flags import parse_worlds
from come_nav.config import load_config
from come_nav.core.files import atomic_write_text
from come_nav.core.settings import to_mapping
from come_nav.evaluation.metrics.statistics import (
    bootstrap_mean,
    bootstrap_ratio,
    enough_clusters,
    paired_difference,
)
from come_nav.evaluation.suites.fingerprints import model_fingerprint
from come_nav.evaluation.suites.inputs import SourceSettings
from come_nav.evaluation.suites.planning import PlanningSuiteSettings, run_planning
from come_nav.sim.sensors.settings import sensor_settings

CONSTANT_VELOCITY, MODEL, PERFECT = "constant velocity", "world model", "perfect model"
PART = (0.6, 1.0)  # of recordings


class Comparison:
    """One input and one horizon, planned with every weight."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    def measure(self, name: str, source: SourceSettings, horizon_s: float) -> dict[str, Any]:
        """Return the figures of every weight, 0 first."""
        rows = ("trivial", "model") if source.paths else ("trivial", "model", "perfect")
        found: list[dict[str, Any]] = []
        plain: NDArray[np.float64] | None = None
        for weight in (0.0, *self.args.weights):
            settings = PlanningSuiteSettings(source, rows, horizon_s=(horizon_s,), report=False)
            where = f"{Path(self.args.model).name}_{Path(self.args.network).name}_{self.args.worlds}"
            folder = self.args.work / where / f"{name}_{horizon_s:g}s_{weight:g}"
            outcome = run_planning(settings, load_config(None, self.words(weight)), folder)
            records, windows = outcome.evaluation.records, outcome.evaluation.windows
            groups = outcome.source.groups or {}
            labels = enough_clusters([groups.get(window.recording_id, "") for window in windows])
            ate_m = {row: np.array([record["ate_m"] for record in own], float) for row, own in records.items()}
            plain = ate_m[MODEL] if plain is None else plain
            figures: dict[str, Any] = {"weight": weight}
            for row in (CONSTANT_VELOCITY, MODEL, PERFECT):
                if row in ate_m:
                    figures[row] = asdict(bootstrap_mean(ate_m[row], self.args.seed, labels))
            difference = paired_difference(ate_m[MODEL], plain, self.args.seed, labels)
            figures["difference from constant twist"] = asdict(difference)
            if PERFECT in ate_m:
                closed = ate_m[CONSTANT_VELOCITY] - ate_m[MODEL]
                gap = ate_m[CONSTANT_VELOCITY] - ate_m[PERFECT]
                figures["gap closure"] = asdict(bootstrap_ratio(closed, gap, self.args.seed, labels))
            found.append(figures)
            told = {key: round(value["value"], 4) for key, value in figures.items() if key != "weight"}
            print(f"{name}, {horizon_s:g} s, weight {weight:g}: {told}", flush=True)
        return {"input": name, "horizon_s": horizon_s, "plans": len(windows), "rows": found}

    def words(self, weight: float) -> list[str]:
        """Return the configuration with a prior of this weight."""
        prior = ["motion_prior.network=''"]
        if weight:
            prior = [f"motion_prior.network={self.args.network}", f"motion_prior.network_weight={weight:g}"]
        return [f"model={self.args.model}", "device=cpu", f"seed={self.args.seed}", *prior, *self.args.set]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="medium")
    parser.add_argument("--network", default="motion", help="the prior, a name or a folder")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.01])
    parser.add_argument("--worlds", default="20000-20009")
    parser.add_argument("--sets", default="built-in,furnished", help="sets of worlds; empty = none")
    parser.add_argument("--horizons", type=float, nargs="+", default=[2.0, 4.0], metavar="S")
    parser.add_argument("--plans", type=int, default=40, help="windows of each input and horizon")
    parser.add_argument("--recordings", nargs="*", default=[], metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="configuration key=value")
    parser.add_argument("--work", type=Path, default=Path("runs/motion_prior"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    comparison, inputs = Comparison(args), []
    for set_name in filter(None, args.sets.split(",")):
        worlds, sensors = parse_worlds(args.worlds), sensor_settings("realistic")
        source = SourceSettings("planning", worlds=worlds, windows=args.plans, sensors=sensors, world_set=set_name)
        inputs += [comparison.measure(set_name, source, horizon_s) for horizon_s in args.horizons]
    for path in map(Path, args.recordings):
        source = SourceSettings("planning", paths=(str(path),), windows=args.plans, part=PART)
        inputs += [comparison.measure(path.name, source, horizon_s) for horizon_s in args.horizons]
    document = {
        "benchmark": "motion_prior",
        "what": (__doc__ or "").splitlines()[0],
        "settings": {
            "model": model_fingerprint(args.model),
            "network": model_fingerprint(args.network),
            "worlds": args.worlds,
            "seed": args.seed,
            "set": args.set,
            "part of recordings": list(PART),
            "planner": to_mapping(load_config(None, comparison.words(0.0)).planner),
            "prior of constant twist": to_mapping(load_config(None, comparison.words(0.0)).motion_prior),
        },
        "machine": machine_facts(),
        "inputs": inputs,
    }
    if args.out is not None:
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
