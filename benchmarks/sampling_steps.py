"""Sampling steps against quality: images at 2 s and planning ATE of every sampler, on validation worlds.

    python benchmarks/sampling_steps.py --model tiny --out benchmarks/results/sampling_steps.json
    python benchmarks/sampling_steps.py --windows 60 --plan-windows 20 --steps 1,2,5

Each configuration imagines the same windows (PSNR, SSIM, sharpness) and plans the same windows (ATE, seconds a plan).
At the end: the fewest steps whose ATE is within 2 % of the best, and that sampler's jump against its rollout. Every
configuration is written as it is done; the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from come_nav.cli.evaluate_flags import parse_worlds
from come_nav.config import Config, load_config
from come_nav.core.errors import ConfigError
from come_nav.core.files import atomic_write_text
from come_nav.core.settings import to_mapping
from come_nav.evaluation.metrics.statistics import bootstrap_mean, enough_clusters, paired_difference
from come_nav.evaluation.metrics.trajectory_metrics import plan_errors
from come_nav.evaluation.protocols.protocol import ProtocolSettings, choose_windows
from come_nav.evaluation.protocols.quality import (
    WINDOWS_PER_BATCH,
    copy_last_row,
    evaluate_batch,
    quality_windows,
    read_batch,
)
from come_nav.evaluation.protocols.rows import constant_velocity, driven_path, evaluate, stand_still
from come_nav.evaluation.reports.quality_tables import quality_table
from come_nav.evaluation.suites.fingerprints import model_settings
from come_nav.evaluation.suites.planning_rows import world_model_row
from come_nav.evaluation.suites.quality_rows import images_of, jump_row
from come_nav.evaluation.suites.worlds import Drives, drive_worlds
from come_nav.navigation.loading import load_configured_model
from come_nav.world_model.model import DiffusionWorldModel

SAMPLERS = ("ddim", "dpm++")
HORIZON_S = 2.0
MARGIN = 1.02  # of the best ATE


def measure_images(
    model: DiffusionWorldModel, config: Config, source: Drives, protocol: ProtocolSettings, count: int
) -> dict:
    """Return PSNR, SSIM and sharpness of jumps at the horizon, and the paired gain over copying the last frame."""
    images, rows = images_of(model), [copy_last_row(), jump_row(model, config)]
    windows = quality_windows(source.recordings, protocol, (protocol.horizon_steps,), count)
    records: dict[str, list] = {row.name: [] for row in rows}
    for start in range(0, len(windows), WINDOWS_PER_BATCH):
        batch = read_batch(windows[start : start + WINDOWS_PER_BATCH], images)
        for row in rows:
            records[row.name] += evaluate_batch(row, batch)
    table = quality_table(records, [HORIZON_S], protocol.seed, source.groups)
    jump = rows[1].name
    found = {name: asdict(intervals[0]) for name, intervals in table.rows[jump].items()}
    gains = {f"gain_{name}": asdict(intervals[0]) for name, intervals in table.gains[jump].items()}
    return found | gains | {"seconds_per_window": float(np.mean([record["seconds"] for record in records[jump]]))}


def measure_plans(model: DiffusionWorldModel, config: Config, windows: list, labels: list | None, seed: int) -> dict:
    """Return the ATE of every window with its interval, and the seconds of a plan."""
    row = replace(world_model_row(model, config), imagine=None)
    records = [evaluate(row, window)[0] for window in windows]
    ates = np.array([record["ate_m"] for record in records])
    seconds = [record["seconds"] for record in records]
    return {
        "ate_m": asdict(bootstrap_mean(ates, seed, labels)),
        "ate_m_by_window": [float(ate) for ate in ates],
        "plan_s_median": float(np.median(seconds)),
        "plan_s_max": float(np.max(seconds)),
    }


def trivial_ates(windows: list) -> dict[str, float]:
    """Return the mean ATE of the two rows that need no model."""
    result = {}
    for plan in (stand_still, constant_velocity):
        paths = [driven_path(plan(window, torch.Generator()), window) for window in windows]
        errors = [plan_errors(path, window.driven_xyyaw).ate_m for path, window in zip(paths, windows, strict=True)]
        result[plan.__name__] = float(np.mean(errors))
    return result


def fewest_steps(jumps: list[dict]) -> dict:
    """Return the entry with the fewest steps whose ATE is within the margin of the best; of two, the better one."""
    best = min(entry["planning"]["ate_m"]["value"] for entry in jumps)
    near = [entry for entry in jumps if entry["planning"]["ate_m"]["value"] <= MARGIN * best]
    return min(near, key=lambda entry: (entry["steps"], entry["planning"]["ate_m"]["value"]))


def differences_to_best(jumps: list[dict], labels: list | None, seed: int) -> None:
    """Add to each entry its paired ATE difference to the best one."""
    best = min(jumps, key=lambda entry: entry["planning"]["ate_m"]["value"])
    for entry in jumps:
        columns = [np.array(each["planning"]["ate_m_by_window"]) for each in (entry, best)]
        entry["planning"]["ate_m_minus_best"] = asdict(paired_difference(*columns, seed, labels))


def line_of(entry: dict) -> str:
    """Return one line of the table."""
    plan, image = entry["planning"], entry["images"]
    ate = plan["ate_m"]
    text = f"{entry['sampler']:6s} {entry['steps']:3d} {entry['imagination']:8s}"
    if image is not None:
        text += f"  PSNR {image['psnr_db']['value']:5.2f} dB ({image['gain_psnr_db']['value']:+.2f})"
        text += f"  SSIM {image['ssim']['value']:.3f}  sharpness {image['sharpness']['value']:.2f}"
    return (
        f"{text}  ATE {ate['value']:.3f} [{ate['low']:.3f}, {ate['high']:.3f}] m  {plan['plan_s_median']:.2f} s a plan"
    )


def open_document(path: Path, settings: dict, fresh: bool) -> dict:
    """Return the document to go on with, or a new one; raise ConfigError where the file has other settings."""
    if path.exists() and not fresh:
        document = json.loads(path.read_text())
        if document["settings"] != json.loads(json.dumps(settings)):
            raise ConfigError(f"{path} holds results of other settings; choose another --out, or --fresh to start over")
        return document
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    return {"what": __doc__.splitlines()[0], "settings": settings, "machine": machine, "configurations": []}


class Study:
    """The windows, the model and the document that grows by one configuration at a time."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        words = [f"model={args.model}", f"device={args.device}", f"seed={args.seed}"]
        self.config = load_config(None, [*args.set, *words])
        self.model = load_configured_model(self.config)
        self.sampler = self.model.sampler
        model = self.model
        self.protocol = ProtocolSettings(
            model.context_frames, round(HORIZON_S * model.rate_hz), model.rate_hz, seed=self.config.seed
        )
        self.source = drive_worlds(parse_worlds(args.worlds), model.rate_hz, self.config.seed, self.config.device)
        self.windows = choose_windows(self.source.recordings, self.protocol, args.plan_windows)
        groups = self.source.groups or {}
        labels = [groups.get(window.recording_id, "") for window in self.windows]
        self.labels = enough_clusters(labels)
        settings = {
            "input": {"suite": "sampling", **self.source.fingerprint},
            "model": {**model_settings(self.config.model, model), "sampler": None},
            "planner": to_mapping(self.config.planner),
            "objective": to_mapping(self.config.objective),
            "windows": args.windows,
            "plan_windows": len(self.windows),
            "seed": self.config.seed,
        }
        self.document = open_document(args.out, settings, args.fresh)

    def entry(self, sampler: str, steps: int, imagination: str) -> dict:
        """Return one configuration: from the file, or measured now and written."""
        key = {"sampler": sampler, "steps": steps, "imagination": imagination}
        for entry in self.document["configurations"]:
            if all(entry[name] == value for name, value in key.items()):
                return entry
        self.model.sampler = replace(self.sampler, name=sampler, steps=steps)
        config = replace(self.config, imagination=imagination)
        images = None
        if imagination == "jump":
            images = measure_images(self.model, self.config, self.source, self.protocol, self.args.windows)
        planning = measure_plans(self.model, config, self.windows, self.labels, config.seed)
        entry = {**key, "images": images, "planning": planning}
        self.document["configurations"].append(entry)
        self.write()
        return entry

    def write(self) -> None:
        atomic_write_text(self.args.out, json.dumps(self.document, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--worlds", default="10000-10019", help="validation worlds (default 10000-10019)")
    parser.add_argument("--windows", type=int, default=200, help="windows of the images")
    parser.add_argument("--plan-windows", type=int, default=60, help="windows of the plans")
    parser.add_argument("--steps", default="1,2,3,5,10,25,50", help="sampling steps to try")
    parser.add_argument("--samplers", default=",".join(SAMPLERS), help=f"of {', '.join(SAMPLERS)}, ddpm")
    parser.add_argument("--rollout-steps", help="steps whose rollout is measured too (default: the chosen ones)")
    parser.add_argument("--set", action="append", default=[], help="configuration key=value, e.g. planner.samples=60")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="forget what the file holds")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/sampling_steps.json"))
    args = parser.parse_args()
    study = Study(args)
    study.document["trivial_ate_m"] = trivial_ates(study.windows)
    print(", ".join(f"{name} {ate:.3f} m" for name, ate in study.document["trivial_ate_m"].items()), flush=True)
    jumps = []
    for steps in map(int, args.steps.split(",")):
        for sampler in args.samplers.split(","):
            jumps.append(study.entry(sampler, steps, "jump"))
            print(line_of(jumps[-1]), flush=True)
    differences_to_best(jumps, study.labels, args.seed)
    chosen = fewest_steps(jumps)
    study.document["chosen"] = {name: chosen[name] for name in ("sampler", "steps")}
    for steps in [chosen["steps"]] if args.rollout_steps is None else map(int, args.rollout_steps.split(",")):
        print(line_of(study.entry(chosen["sampler"], steps, "rollout")), flush=True)
    study.write()
    print(f"fewest steps within 2 % of the best ATE: {chosen['sampler']}, {chosen['steps']} steps")


if __name__ == "__main__":
    main()
