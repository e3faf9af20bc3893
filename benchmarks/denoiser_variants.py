"""Variants of the denoiser trained for equal time from one bank: size, objective and inductive biases compared.

    python benchmarks/denoiser_variants.py --seconds 300 600 1200 --accelerator gpu
    python benchmarks/denoiser_variants.py --variants my_variants.yaml --only "base,predict eps" --seconds 900

Each variant is the base configuration with a few keys changed (benchmarks/denoiser_variants.yaml). It is trained once
for each budget: its speed is measured first, then it gets as many steps as fit, so that warm-up and decay are whole and
the comparison is at equal compute: CPU seconds of this process on a CPU, so that other work on the machine does not
count, and seconds of the clock on a GPU. All are evaluated on validation worlds as images (PSNR, SSIM, sharpness of a
jump), which compares across objectives; validation losses do so only between variants of one objective. One training
at a time; each resumes where it stopped, and the file is written after each.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from training_log import logged

from come_nav.cli.evaluate_flags import parse_worlds
from come_nav.core.errors import ConfigError
from come_nav.core.files import atomic_path, atomic_write_text
from come_nav.core.resources import find_resource
from come_nav.core.settings import from_mapping, read_yaml, to_mapping
from come_nav.evaluation.protocols.protocol import ProtocolSettings
from come_nav.evaluation.protocols.quality import (
    WINDOWS_PER_BATCH,
    copy_last_row,
    evaluate_batch,
    quality_windows,
    read_batch,
)
from come_nav.evaluation.reports.quality_tables import quality_table
from come_nav.evaluation.suites.quality_rows import images_of, jump_row
from come_nav.evaluation.suites.worlds import drive_worlds
from come_nav.navigation.settings import NavigationSettings
from come_nav.training.config import TrainSettings
from come_nav.training.machine import Machine
from come_nav.training.run import Run
from come_nav.viz.figures import plot_error_over_time
from come_nav.world_model.model import DiffusionWorldModel

VARIANTS = Path(__file__).with_suffix(".yaml")
HORIZONS_S = (1.0, 2.0)
# What a variant may not change, because all share it.
SHARED_KEYS = (
    "autoencoder",
    "autoencoder_model",
    "autoencoder_from",
    "depth_from",
    "data",
    "image_size",
    "rate_hz",
    "context_frames",
)


def changed(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested mapping ``base`` with dotted keys replaced."""
    values = copy.deepcopy(dict(base))
    for key, value in overrides.items():
        *path, last = key.split(".")
        place = values
        for word in path:
            place = place.setdefault(word, {})
        place[last] = value
    return values


def read_variants(path: Path, base: Mapping[str, Any], only: str | None) -> dict[str, tuple[dict, TrainSettings]]:
    """Return name -> overrides and configuration; raise ConfigError naming the variant for a key that cannot be."""
    found = {}
    for name, overrides in read_yaml(path).items():
        if only is not None and name not in [word.strip() for word in only.split(",")]:
            continue
        for key in overrides:
            if key.partition(".")[0] in SHARED_KEYS:
                raise ConfigError(f"{path}: variant '{name}' changes '{key}', which all variants share")
        try:
            found[name] = dict(overrides), from_mapping(TrainSettings, changed(base, overrides))
        except ConfigError as error:
            raise ConfigError(f"{path}: variant '{name}': {error}") from error
    if not found:
        raise ConfigError(f"{path}: holds no variant that --only names")
    return found


class Comparison:
    """The shared parts, the validation windows and the document that grows by one training at a time."""

    def __init__(self, args: argparse.Namespace, base: TrainSettings, document: dict) -> None:
        self.args, self.base, self.document = args, base, document
        self.machine = Machine(accelerator=args.accelerator, progress=args.progress)
        self.shared = Run(base, args.work / "shared", self.machine)
        self.autoencoder = self.shared.train_autoencoder()
        self.depth = self.shared.train_depth(self.autoencoder) if base.depth_model is not None else None
        self.shared.data(self.autoencoder, self.depth).prepare()
        self.protocol = ProtocolSettings(base.context_frames, round(HORIZONS_S[-1] * base.rate_hz), base.rate_hz)
        self.source = drive_worlds(parse_worlds(args.worlds), base.rate_hz, device="cpu")

    def train(self, name: str, config: TrainSettings, overrides: dict, seconds: float) -> dict:
        """Return the measured training of one variant and budget: from the file, or done now and written."""
        key = {"variant": name, "budget_s": seconds}
        for entry in self.document["trainings"]:
            if entry["variant"] == name and entry["budget_s"] == seconds:
                return entry
        step_s = self.seconds_per_step(name, config)
        steps = max(1, int(seconds / step_s))
        run = self.run_of(name, config, f"{seconds:g}s", steps)
        started_s = self.clock_s()
        expert = run.train_denoiser(self.autoencoder, self.depth_of(config))
        seconds_used = self.clock_s() - started_s
        if expert is None:  # Lightning saves and returns on SIGTERM
            raise SystemExit(f"{name}: stopped at {run.folder}; the same command goes on from there")
        model = DiffusionWorldModel.load(run.export(self.autoencoder, self.depth_of(config), expert))
        entry = {
            **key,
            "overrides": overrides,
            "parameters": sum(parameter.numel() for parameter in expert.parameters()),
            "steps": steps,
            "seconds_per_step": step_s,
            "seconds_of_this_call": seconds_used,
            "validation_loss": loss_curve(run.folder, step_s),
            "images": self.evaluate(model),
        }
        self.document["trainings"].append(entry)
        self.write()
        return entry

    def depth_of(self, config: TrainSettings) -> Any:
        """Return the shared depth estimator where the variant looks at reprojected views."""
        return None if config.depth_model is None else self.depth

    def run_of(self, name: str, config: TrainSettings, what: str, steps: int) -> Run:
        """Return a run of so many steps in a folder of its own, with the shared bank in it."""
        stage = config.denoiser
        stage = replace(
            stage,
            steps=steps,
            warmup_steps=min(stage.warmup_steps, steps // 10),
            validate_every=max(1, steps // self.args.validations),
            save_every=max(1, steps // 10),
        )
        return Run(replace(config, denoiser=stage), self.folder_of(name, what), self.machine)

    def folder_of(self, name: str, what: str) -> Path:
        """Return the folder of one training, made if need be, with links to the shared bank and networks."""
        folder = self.args.work / re.sub(r"[^\w.-]+", "_", name) / what
        folder.mkdir(parents=True, exist_ok=True)
        for file in self.shared.folder.iterdir():
            shared = file.name.startswith("bank") or file.suffix == ".safetensors"
            if shared and not (folder / file.name).exists():
                (folder / file.name).symlink_to(file.resolve())
        return folder

    def seconds_per_step(self, name: str, config: TrainSettings) -> float:
        """Return the time of a step, measured once: a longer run less a shorter one, so that setting up cancels."""
        known = self.document["seconds_per_step"]
        if name not in known:
            counts = (self.args.calibration, 3 * self.args.calibration)
            times = [self.time_steps(name, config, steps) for steps in counts]
            difference_s = (times[1] - times[0]) / (counts[1] - counts[0])
            # On a busy machine the short run may take longer; the whole time of the long one is then the safe answer.
            known[name] = difference_s if difference_s > 0 else times[1] / counts[1]
            self.write()
        return float(known[name])

    def time_steps(self, name: str, config: TrainSettings, steps: int) -> float:
        """Return the seconds of a training of so many steps that validates and saves at its end alone."""
        folder = self.folder_of(name, "calibration")
        shutil.rmtree(folder)  # of an interrupted measurement
        stage = replace(config.denoiser, steps=steps, validate_every=steps, save_every=steps)
        run = Run(replace(config, denoiser=stage), self.folder_of(name, "calibration"), self.machine)
        started_s = self.clock_s()
        run.train_denoiser(self.autoencoder, self.depth_of(config))
        seconds = self.clock_s() - started_s
        shutil.rmtree(folder)
        return seconds

    def clock_s(self) -> float:
        """Return the clock of budgets, s."""
        return time.process_time() if self.machine.device == "cpu" else time.perf_counter()

    def evaluate(self, model: DiffusionWorldModel) -> dict:
        """Return PSNR, SSIM and sharpness of jumps at each horizon, with intervals and gains over copying."""
        model = model.to(self.machine.device)
        steps = [round(horizon_s * self.protocol.rate_hz) for horizon_s in HORIZONS_S]
        windows = quality_windows(self.source.recordings, self.protocol, steps, self.args.windows)
        rows, images = [copy_last_row(), jump_row(model, NavigationSettings())], images_of(model)
        records: dict[str, list] = {row.name: [] for row in rows}
        for start in range(0, len(windows), WINDOWS_PER_BATCH):
            batch = read_batch(windows[start : start + WINDOWS_PER_BATCH], images)
            for row in rows:
                records[row.name] += evaluate_batch(row, batch)
        table = quality_table(records, HORIZONS_S, self.protocol.seed, self.source.groups)
        jump = rows[1].name
        named = {**table.rows[jump], **{f"gain_{metric}": found for metric, found in table.gains[jump].items()}}
        return {metric: [asdict(interval) for interval in found] for metric, found in named.items()}

    def write(self) -> None:
        """Write the document and the figures beside it."""
        out = self.args.out
        atomic_write_text(out, json.dumps(self.document, indent=1) + "\n")
        for name, png in figures(self.document).items():
            with atomic_path(out.with_name(f"{out.stem}_{name}.png")) as temporary:
                temporary.write_bytes(png)


def loss_curve(folder: Path, step_s: float) -> dict[str, list[float]]:
    """Return steps, seconds and validation losses of the denoiser from the run's CSV logs."""
    found = logged(folder, "denoiser").get("validation/loss", {})
    steps = sorted(found)
    return {"steps": steps, "seconds": [step * step_s for step in steps], "loss": [found[step] for step in steps]}


def figures(document: dict) -> dict[str, bytes]:
    """Return name -> PNG: PSNR at the last horizon against the budget, and validation loss against time."""
    trainings = document["trainings"]
    names = list(dict.fromkeys(entry["variant"] for entry in trainings))
    psnr, losses = {}, {}
    for name in names:
        entries = sorted((e for e in trainings if e["variant"] == name), key=lambda entry: entry["budget_s"])
        found = [entry["images"]["psnr_db"][-1] for entry in entries]
        columns = [[interval[end] for interval in found] for end in ("value", "low", "high")]
        psnr[name] = ([entry["budget_s"] for entry in entries], *columns)
        losses[name] = (entries[-1]["validation_loss"]["seconds"], entries[-1]["validation_loss"]["loss"])
    if not names:
        return {}
    label = f"PSNR at {HORIZONS_S[-1]:g} s [dB]"
    return {
        "psnr": plot_error_over_time(psnr, y_label=label, x_label="training [s]", from_zero=False),
        "loss": plot_error_over_time(losses, y_label="validation loss", x_label="training [s]", from_zero=False),
    }


def line_of(entry: dict) -> str:
    """Return one line of the table."""
    psnr, gain = entry["images"]["psnr_db"][-1], entry["images"]["gain_psnr_db"][-1]
    sharpness = entry["images"]["sharpness"][-1]["value"]
    loss = entry["validation_loss"]["loss"][-1] if entry["validation_loss"]["loss"] else float("nan")
    return (
        f"{entry['variant']:28s} {entry['budget_s']:6g} s {entry['steps']:7d} steps "
        f"{entry['parameters'] / 1e6:6.2f} M parameters  "
        f"PSNR {psnr['value']:.2f} [{psnr['low']:.2f}, {psnr['high']:.2f}] dB ({gain['value']:+.2f})  "
        f"sharpness {sharpness:.2f}  loss {loss:.4f}"
    )


def open_document(args: argparse.Namespace, base: TrainSettings) -> dict:
    """Return the document to go on with, or a new one; raise ConfigError where the file has another base."""
    settings = {"base": to_mapping(base), "worlds": args.worlds, "windows": args.windows, "device": args.accelerator}
    if args.out.exists():
        document = json.loads(args.out.read_text())
        if document["settings"] != json.loads(json.dumps(settings)):
            raise ConfigError(f"{args.out} holds results of other settings; choose another --out")
        return document
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    what = __doc__.splitlines()[0]
    return {"what": what, "settings": settings, "machine": machine, "seconds_per_step": {}, "trainings": []}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="train_tiny.yaml", help="training configuration that variants change")
    parser.add_argument("--set", action="append", default=[], help="key=value over the base, e.g. data.worlds=50")
    parser.add_argument("--variants", type=Path, default=VARIANTS, help="YAML: name -> keys that differ")
    parser.add_argument("--only", help="names of variants, separated by commas")
    parser.add_argument("--seconds", type=float, nargs="+", default=[600.0], help="budgets of training time")
    parser.add_argument("--calibration", type=int, default=30, help="steps of the shorter timing run")
    parser.add_argument("--validations", type=int, default=10, help="points of each loss curve")
    parser.add_argument("--accelerator", default="auto", help="Lightning's: auto, cpu or gpu")
    parser.add_argument("--worlds", default="10020-10039", help="of the images: validation worlds")
    parser.add_argument("--windows", type=int, default=200, help="windows of the images")
    parser.add_argument("--work", type=Path, default=Path("runs/variants"), help="folder of the trainings")
    parser.add_argument("--progress", action="store_true", help="progress bars")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/denoiser_variants.json"))
    args = parser.parse_args()
    from come_nav.config import parse_override

    base_values = changed(read_yaml(find_resource("config", args.base)), dict(map(parse_override, args.set)))
    base = from_mapping(TrainSettings, base_values)
    variants = read_variants(args.variants, base_values, args.only)
    comparison = Comparison(args, base, open_document(args, base))
    for seconds in sorted(args.seconds):
        for name, (overrides, config) in variants.items():
            print(line_of(comparison.train(name, config, overrides, seconds)), flush=True)


if __name__ == "__main__":
    main()
