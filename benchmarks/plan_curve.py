"""What a better plan costs: ATE against the time of a plan, over the number of candidates and the share imagined.

Every setting plans on the same windows of drives through validation worlds with the same numbers drawn, so that
differences from the first setting are paired. Times are of the processor, so that other processes change them little.

    python benchmarks/plan_curve.py --windows 20 --out benchmarks/results/plan_curve.json
    python benchmarks/plan_curve.py --windows 100 --settings 240,40,5,1 240,40,5,0.5
    python benchmarks/plan_curve.py --windows 100 --settings 240,40,5,1,float32 240,40,5,1,bfloat16
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine_facts

from come_nav.config import load_config
from come_nav.core.files import atomic_write_text
from come_nav.evaluation.metrics.statistics import bootstrap_mean, paired_difference
from come_nav.evaluation.protocols.protocol import ProtocolSettings, choose_windows
from come_nav.evaluation.protocols.rows import evaluate
from come_nav.evaluation.suites.inputs import SourceSettings, open_input
from come_nav.evaluation.suites.planning_rows import world_model_row
from come_nav.navigation.loading import load_configured_model

SETTINGS = ["240,40,5,1", "240,40,5,0.5", "240,40,5,0.25", "120,40,5,1", "120,20,5,1", "120,20,3,1", "60,20,3,1"]
MOST_WORSE = 0.05  # of the reference's ATE, upper end of the paired interval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--worlds", type=int, default=10, help="validation worlds from 10000 on")
    parser.add_argument(
        "--settings",
        nargs="+",
        default=SETTINGS,
        metavar="FIRST,NEXT,ITERATIONS,SHARE[,PRECISION]",
        help="candidates of the first and of further iterations, iterations, share that is imagined, of networks",
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    config = load_config(None, [f"model={args.model}", f"device={args.device}"])
    model = load_configured_model(config)
    source = open_input(SourceSettings(worlds=range(10000, 10000 + args.worlds)), model.rate_hz, config.seed, "cpu")
    protocol = ProtocolSettings(
        context_frames=model.context_frames, horizon_steps=config.planner.horizon_steps, rate_hz=model.rate_hz
    )
    windows = choose_windows(source.recordings, protocol, args.windows)
    rows: list[dict[str, Any]] = []
    ates: dict[str, list[float]] = {words: [] for words in args.settings}
    costs_s: dict[str, list[float]] = {words: [] for words in args.settings}
    planners = {}
    for words in args.settings:
        first, following, iterations, share = (float(word) for word in words.split(",")[:4])
        precision = (*words.split(","), "auto")[4]
        numbers = {"initial_samples": int(first), "samples": int(following), "iterations": int(iterations)}
        elites = min(config.planner.elites, int(following))
        planner = replace(config.planner, **numbers, elites=elites, imagined_share=share)
        own = model.composed(model.weights)
        own.inference = replace(model.inference, precision=precision)
        planners[words] = replace(world_model_row(own, replace(config, planner=planner)), image=None)
    for window in windows:  # all settings in turns: a slow minute hits all of them
        for words, row in planners.items():
            started_s = time.process_time()
            (record,) = [own for own in evaluate(row, window) if own["row"] == row.name]
            costs_s[words].append(time.process_time() - started_s)
            ates[words].append(record["ate_m"])
    reference = np.array(ates[args.settings[0]])
    for words in args.settings:
        values, spent = np.array(ates[words]), np.array(costs_s[words])
        ate, worse = bootstrap_mean(values, seed=0), paired_difference(values, reference, seed=0)
        rows.append(
            {
                "setting": words,
                "windows": len(values),
                "ate_m": round(ate.value, 4),
                "ate_m_interval": [round(ate.low, 4), round(ate.high, 4)],
                "worse_m": round(worse.value, 4),
                "worse_m_interval": [round(worse.low, 4), round(worse.high, 4)],
                "no_worse_than_5_percent": bool(worse.high <= MOST_WORSE * reference.mean()),
                "plan_cpu_s_median": round(float(np.median(spent)), 3),
                "time_ratio": round(float(np.median(spent) / np.median(costs_s[args.settings[0]])), 3),
            }
        )
        print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if args.out is not None:
        what = __doc__.splitlines()[0]
        document = {"what": what, "model": args.model, "machine": machine_facts(), "rows": rows}
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
