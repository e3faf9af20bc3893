"""What fine-tuning on the first part of a recording changes on the rest: depth, imagined views, plans.

    python benchmarks/fine_tuning.py kitchen --set denoiser.steps=200
    python benchmarks/fine_tuning.py cabinet --set denoiser.steps=200 --set data.worlds=4
    python benchmarks/fine_tuning.py kitti00 --car --set denoiser.steps=200

The model is fine-tuned on --use of a recording (come-nav train --init MODEL --data RECORDING), and both models are
evaluated on what is left: relative error of estimated depth where depth was measured, imagined views at the true poses
over copying the last frame (quality suite), and plans of --horizon (planning suite; a hand moves a camera sideways too,
a --car does not). Trainings and evaluations go on where they stopped; a recording's figures are added to the file, or
replace those that it had.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from machine import machine_facts
from model_figures import HORIZONS_S, depth_errors_of

from come_nav.cli.main import main as come_nav
from come_nav.core.errors import ConfigError
from come_nav.core.files import atomic_write_text
from come_nav.evaluation.metrics.statistics import bootstrap_mean
from come_nav.world_model.model import DiffusionWorldModel

HAND = ("--kinematics", "holonomic", "--set", "planner.limits.v_min_mps=-0.6")
CAR = ("--kinematics", "car", "--set", "planner.limits.v_max_mps=12")


def run_verb(*words: object) -> None:
    """Run a verb of come-nav in this process; raise ConfigError where it ends with another status than 0."""
    told = [str(word) for word in words]
    if come_nav(told) != 0:
        raise ConfigError(f"come-nav {' '.join(told)} failed")


class Tuning:
    """One recording: a model is tuned on its first part, and both are evaluated on the last."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.recording, self.folder = args, args.recording, args.work / args.recording.name
        self.rest = f"{args.use}-1.0"

    def tuned(self) -> Path:
        """Return the fine-tuned model's folder, trained now unless it is there."""
        words: list[object] = ["train", "--init", self.args.model, "--data", self.recording]
        words += ["--data-use", f"0-{self.args.use}", "--out", self.folder / "run", "--no-progress"]
        for override in self.args.set:
            words += ["--set", override]
        run_verb(*words)
        return self.folder / "run" / "tuned"

    def evaluated(self, name: str, model: Path) -> dict[str, Any]:
        """Return all figures of a model on the rest of the recording."""
        found: dict[str, Any] = {"depth": self.depth(model)}
        robot = CAR if self.args.car else HAND
        for suite, options in (
            ("quality", ["--horizon", ",".join(map(str, HORIZONS_S)), "--rows", "copy,jump"]),
            ("planning", ["--horizon", self.args.horizon, "--rows", "trivial,model", *robot]),
        ):
            out = self.folder / f"{name}_{suite}"
            run_verb(
                *("evaluate", self.recording, "--suite", suite, "--part", self.rest, "--model", model),
                *("--windows", self.args.windows, "--out", out, *options),
            )
            table = json.loads((out / "results.json").read_text())["table"]
            found[suite] = {key: table[key] for key in ("rows", "gains_over_copy", "ate_ratios") if key in table}
        return found

    def depth(self, path: Path) -> dict[str, Any] | None:
        """Return errors of estimated depth on the rest, or None where nothing was measured."""
        model = DiffusionWorldModel.load(path)
        if model.depth is None:
            return None
        errors, _ = depth_errors_of(model, self.recording, self.args.frames, self.args.use)
        if not len(errors["abs_rel"]):
            return None
        return {name: asdict(bootstrap_mean(values, 0)) for name, values in errors.items()}


def line_of(name: str, model: str, found: dict[str, Any]) -> str:
    """Return one line of the table."""
    depth = "-" if found["depth"] is None else f"{found['depth']['abs_rel']['value']:.2f}"
    gains = [f"{own['psnr_db']['value']:+.2f}" for own in found["quality"]["gains_over_copy"]]
    plans = {own["row"]: own["ate_m"]["value"] for own in found["planning"]["rows"]}
    told = ", ".join(f"{row} {value:.3f}" for row, value in plans.items())
    return f"{name:10s} {model:6s} AbsRel {depth}, views {' / '.join(gains)} dB, plans {told} m"


def parser_of() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--model", type=Path, default=Path("models/small"))
    parser.add_argument("--use", type=float, default=0.6, help="share of each recording that is learned from")
    parser.add_argument("--set", action="append", default=[], help="of the training, e.g. denoiser.steps=200")
    parser.add_argument("--car", action="store_true", help="the recording is of a car")
    parser.add_argument("--horizon", type=float, default=2.0, help="of plans, s")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--frames", type=int, default=60, help="whose depth is compared")
    parser.add_argument("--work", type=Path, default=Path("runs/fine_tuning"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fine_tuning.json"))
    return parser


def main() -> None:
    args = parser_of().parse_args()
    name = args.recording.name
    document: dict[str, Any] = {"what": __doc__.splitlines()[0], "recordings": {}}
    if args.out.exists():
        document = json.loads(args.out.read_text())
    tuning = Tuning(args)
    settings = {"model": str(args.model), "use": args.use, "set": args.set, "horizon_s": args.horizon, "car": args.car}
    found: dict[str, Any] = {"settings": settings, "machine": machine_facts()}
    for which, model in (("before", lambda: args.model), ("after", tuning.tuned)):
        found[which] = tuning.evaluated(which, model())
        print(line_of(name, which, found[which]), flush=True)
    document["recordings"][name] = found
    atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
