"""Do plans improve where a candidate costs more the more its imagined view varies from noise to noise?

    python benchmarks/doubt_planning.py --out FILE                                    validation worlds: which weight
    python benchmarks/doubt_planning.py --worlds 20000-20009 --weights W --out FILE   test worlds, once, for that weight

Plans to views of different ages, by the composition as it is shipped, on the same windows with every weight of the
doubt (``objective.doubt_weight``); 0 imagines each candidate once. A weight above 0 imagines each of them twice and
takes the mean of both costs, which alone may help: the row "two noises" does that with a weight too small to count.
ATE and RPE of each row, and its differences to weight 0 and to "two noises", paired, with intervals over drives.
Records are kept in ``--folder``, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine_facts

from come_nav.cli.evaluate_flags import parse_worlds
from come_nav.cli.evaluate_memory import parse_ages
from come_nav.cli.output import Steps
from come_nav.config import load_config
from come_nav.core.files import atomic_write_text
from come_nav.core.settings import to_mapping
from come_nav.evaluation.metrics.statistics import bootstrap_mean, paired_difference
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.protocols.results import Record, ResultStore, evaluate_windows
from come_nav.evaluation.protocols.rows import CONSTANT_VELOCITY, Row, trivial_rows
from come_nav.evaluation.suites.fingerprints import planner_settings
from come_nav.evaluation.suites.inputs import SourceSettings
from come_nav.evaluation.suites.memory.compositions import find_weights
from come_nav.evaluation.suites.memory.drive_memories import experts_of
from come_nav.evaluation.suites.memory.settings import MEMORY_PLANNING, MemorySuiteSettings, stored_settings
from come_nav.evaluation.suites.memory.setup import MemorySetup, set_up
from come_nav.evaluation.suites.planning_rows import searching_row
from come_nav.evaluation.suites.replay import Replay
from come_nav.navigation.loading import load_configured_model
from come_nav.sim.sensors.settings import sensor_settings

TWO_NOISES, NEGLIGIBLE = "two noises, weight 0", 1e-9
ONE_NOISE = "weight 0"
HORIZON_FRAMES = 8


def rows_of(setup: MemorySetup, weights: list[float]) -> list[Row]:
    """Return one row of plans for each weight of the doubt, after constant velocity."""
    composed = setup.settings.weights.composed_row("all", True)
    experts = experts_of(composed, setup.model, setup.navigation.experts.older_frames)
    cache = setup.cache([composed])

    def row(name: str, weight: float) -> Row:
        def replay_of(window: Window) -> Replay:
            replay = cache.of(window.recording_id).replay
            objective = replace(setup.navigation.objective, doubt_weight=weight)
            replay.stack.settings = replace(replay.stack.settings, objective=objective)
            return replay

        return replace(searching_row(name, replay_of, setup.model, experts), imagine=None)

    going_on = [own for own in trivial_rows(setup.navigation.robot) if own.name == CONSTANT_VELOCITY]
    named = {ONE_NOISE: 0.0, TWO_NOISES: NEGLIGIBLE} | {f"weight {weight:g}": weight for weight in weights}
    return going_on + [row(name, weight) for name, weight in named.items()]


def figures(records: dict[str, list[Record]], seed: int) -> list[dict[str, Any]]:
    """Return the figures of every row and its differences to the two that do not doubt."""
    drives = [record["recording"] for record in records[ONE_NOISE]]
    clusters = drives if len(set(drives)) > 1 else None
    found = []
    for name, own in records.items():
        row: dict[str, Any] = {"row": name}
        for metric in ("ate_m", "rpe_m"):
            values = {row: np.array([record[metric] for record in kept]) for row, kept in records.items()}
            row[metric] = asdict(bootstrap_mean(values[name], seed, clusters))
            for other in (ONE_NOISE, TWO_NOISES):
                if name not in (other, CONSTANT_VELOCITY):
                    apart = paired_difference(values[name], values[other], seed, clusters)
                    row[f"{metric} minus {other}"] = asdict(apart)
        row["plan_s"] = float(np.median([record["seconds"] for record in own]))
        found.append(row)
    return found


def main() -> None:
    """Plan, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bag", nargs="*")
    parser.add_argument("--worlds", default="10000-10007")
    parser.add_argument("--sensors", default="realistic", help="of the built-in worlds")
    parser.add_argument("--windows", type=int, default=80)
    parser.add_argument("--ages", default="0.5-8,8-30,30-", help="s since the goal was last seen, as many of each")
    parser.add_argument("--test-frames", type=int, default=480, help="of a drive, after its memory phase")
    parser.add_argument("--weights", type=float, nargs="+", default=[10.0, 30.0, 100.0, 300.0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--keys", nargs="*", default=[], help="more of the configuration, KEY=VALUE")
    parser.add_argument("--folder", type=Path, default=Path("runs/doubt_planning"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = load_config(None, [f"model={args.model}", *args.keys])
    recorded = bool(args.bag)
    source = SourceSettings(MEMORY_PLANNING, tuple(args.bag), parse_worlds(args.worlds), args.windows)
    if not recorded:
        source = replace(source, sensors=sensor_settings(args.sensors))
    settings = MemorySuiteSettings(
        source,
        find_weights(None, args.model),
        ages_s=() if recorded else parse_ages(args.ages),
        test_frames=args.test_frames,
    )
    model, offsets = load_configured_model(config), range(HORIZON_FRAMES, HORIZON_FRAMES + 1)
    setup = set_up(settings, config, args.folder, Steps, model, offsets)
    rows = rows_of(setup, args.weights)
    windows = [item.window for item in setup.selection.windows]
    stored = stored_settings(
        setup.found.source.fingerprint, to_mapping(setup.protocol), setup.navigation, model, settings.weights
    ) | {"planner": planner_settings(config.planner), "objective": to_mapping(config.objective)}
    with ResultStore(args.folder / "results.jsonl", stored) as store:
        with Steps(len(rows) * len(windows), "plans", "plan") as bar:
            evaluate_windows(windows, rows, store, lambda record: bar.add(record["row"]))
        records = {row.name: store.table(windows, row.name) for row in rows}
    document = {
        "title": setup.found.source.title,
        "settings": {"windows": len(windows), "ages": args.ages, **stored},
        "machine": machine_facts(),
        "rows": figures(records, config.seed),
    }
    atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")
    for row in document["rows"]:
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
