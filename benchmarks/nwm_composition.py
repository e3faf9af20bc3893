"""What CoME is worth on the plain class of Navigation World Models: base, +LTM, +likelihood, and all of them.

    come-nav train --config config/train_nwm_class.yaml --out runs/nwm
    python benchmarks/nwm_composition.py --model runs/nwm/nwm_class --out FILE
    python benchmarks/nwm_composition.py kitchen --model runs/nwm/nwm_class --out FILE

A network of this class looks at four context frames and nothing else, so that its memories are an adapter trained on
the episode and the remembered cloud as a likelihood of the clean latents, as they would be with the official weights
(whose code path this is). Two things are chosen first, on validation worlds alone and by the PSNR of recalled views:
the weight of the adapter and how far the likelihood trusts the cloud. Then the recall and memory-planning suites run
with these rows; differences and ratios are paired with the base. ``--folder`` keeps records and adapters, so that the
same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from machine import machine_facts

from come_nav.cli.evaluate_flags import parse_worlds
from come_nav.cli.output import Steps
from come_nav.config import load_config
from come_nav.core.files import atomic_write_text
from come_nav.evaluation.protocols.quality import WINDOWS_PER_BATCH, measure, read_batch
from come_nav.evaluation.reports.report import strict
from come_nav.evaluation.suites.inputs import SourceSettings
from come_nav.evaluation.suites.memory.compositions import CONTRAST, ComposedRow, CompositionWeights
from come_nav.evaluation.suites.memory.drive_memories import experts_of
from come_nav.evaluation.suites.memory.optional_rows import ADAPTED_LIKELIHOOD, LIKELIHOOD, guided
from come_nav.evaluation.suites.memory.planning import run_memory_planning
from come_nav.evaluation.suites.memory.recall import run_recall, set_up_recall
from come_nav.evaluation.suites.memory.rows import BatchContexts
from come_nav.evaluation.suites.memory.settings import MEMORY_PLANNING, RECALL, MemorySuiteSettings
from come_nav.evaluation.suites.quality_rows import images_of
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
from come_nav.sim.sensors.settings import sensor_settings
from come_nav.sim.world_sets import BUILT_IN

ROWS = ("base", "base+ltm", LIKELIHOOD, ADAPTED_LIKELIHOOD)
WEIGHTS = (0.25, 0.5, 0.75, 1.0)  # of the adapter
VARIANCES = (0.1, 0.3, 1.0, 3.0)  # of what the cloud shows, around the true latents
CHOSEN = ("long_term", "variance")  # what they are called in the file
# What suits a network of this size, as in the shipped model's own config.yaml; larger ones have the defaults.
ADAPTER = ("episodic.reach=40", "episodic.batch_size=8", "episodic.learning_rate=0.001", "episodic.steps_per_frame=1")
ADAPTER += ("lora.rank=16", "lora.alpha=16")


class Choosing:
    """Recalled views of validation worlds, by whatever experts."""

    def __init__(self, suite: MemorySuiteSettings, config: NavigationSettings, folder: Path) -> None:
        self._setup = set_up_recall(suite, config, folder, Steps)
        self._cache = self._setup.cache([adapted(1.0)], room=len(self._setup.found.drives))
        told, images = self.experts(adapted(1.0)), images_of(self._setup.model)
        self._batches = []
        for _, group in groupby(self._setup.selection.windows, key=lambda item: item.window.recording_id):
            own = list(group)
            for start in range(0, len(own), WINDOWS_PER_BATCH):
                batch = read_batch(own[start : start + WINDOWS_PER_BATCH], images)
                self._batches.append((batch, BatchContexts(self._cache, told)))

    def experts(self, row: ComposedRow) -> ExpertsSettings:
        """Return what a row looks at."""
        return experts_of(row, self._setup.model, self._setup.navigation.experts.older_frames)

    def psnr_db(self, experts: ExpertsSettings) -> float:
        """Return the mean PSNR over all windows."""
        values = []
        for batch, contexts in self._batches:
            model = self._cache.of(batch.windows[0].window.recording_id).composed(experts)
            shown = model.decode(contexts.predicted(model, batch)).cpu()
            values.append(measure(shown, batch.truth.flatten(0, 1))["psnr_db"])
        return float(torch.cat(values).mean())


def adapted(weight: float) -> ComposedRow:
    """Return the row of the base and the adapter."""
    return ComposedRow("base+ltm", True, {"base": 1.0, "long_term": weight})


def chosen(choosing: Choosing, config: NavigationSettings) -> dict[str, Any]:
    """Return what was tried with its PSNR, and the weight and the variance that were best."""
    base = choosing.experts(ComposedRow("base", True, {"base": 1.0}))
    priors = {own: replace(config.experts.likelihood, render_variance=own) for own in VARIANCES}
    ltm = {f"{weight:g}": choosing.psnr_db(choosing.experts(adapted(weight))) for weight in WEIGHTS}
    likelihood = {f"{own:g}": choosing.psnr_db(guided(base, prior)) for own, prior in priors.items()}
    return {
        "base": choosing.psnr_db(base),
        "long_term weight": ltm,
        "render_variance": likelihood,
        CHOSEN[0]: float(max(ltm, key=lambda own: ltm[own])),
        CHOSEN[1]: float(max(likelihood, key=lambda own: likelihood[own])),
    }


def suite_of(args: argparse.Namespace, name: str, worlds: str, windows: int, found: Mapping[str, Any]) -> Any:
    """Return the settings of a suite; recordings stand in for test worlds where there are some."""
    bags = () if worlds == args.choose_worlds else tuple(args.bag)
    source = SourceSettings(name, bags, parse_worlds(worlds), windows)
    if not bags:
        source = replace(source, sensors=sensor_settings(args.sensors), world_set=args.set_of_worlds)
    weights = CompositionWeights({CONTRAST: {"base+ltm": {"base": 1.0, "long_term": found.get(CHOSEN[0], 1.0)}}})
    frames = args.test_frames if name == MEMORY_PLANNING and not bags else None
    return MemorySuiteSettings(source, weights, ROWS, "on", test_frames=frames, report=False)


def main() -> None:
    """Choose, evaluate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bag", nargs="*")
    parser.add_argument("--model", required=True)
    parser.add_argument("--worlds", default="20000-20007")
    parser.add_argument("--set-of-worlds", default=BUILT_IN)
    parser.add_argument("--sensors", default="realistic")
    parser.add_argument("--windows", type=int, default=48, help="of recall")
    parser.add_argument("--plans", type=int, default=48)
    parser.add_argument("--test-frames", type=int, default=800, help="of a drive that plans start from")
    parser.add_argument("--choose-worlds", default="10000-10002", help="validation worlds")
    parser.add_argument("--choose-windows", type=int, default=24)
    parser.add_argument(
        "--chosen", type=float, nargs=2, metavar=("WEIGHT", "VARIANCE"), help="take these, and choose nothing"
    )
    parser.add_argument("--keys", nargs="*", default=[], help="more of the configuration, KEY=VALUE")
    parser.add_argument("--plan-keys", nargs="*", default=["sampler.steps=5"], help="of plans alone")
    parser.add_argument("--folder", type=Path, default=Path("runs/nwm_composition"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    keys = [f"model={args.model}", *ADAPTER, *args.keys]
    args.folder.mkdir(parents=True, exist_ok=True)
    path = args.folder / "chosen.json"
    asked = {"worlds": args.choose_worlds, "windows": args.choose_windows, "keys": keys}
    if args.chosen is None and path.exists() and json.loads(path.read_text()).get("asked") != asked:
        path.unlink()  # of another choice
    if args.chosen is None and not path.exists():
        suite = suite_of(args, RECALL, args.choose_worlds, args.choose_windows, {})
        config = load_config(None, keys)
        made = chosen(Choosing(suite, config, args.folder / "choice"), config)
        atomic_write_text(path, json.dumps({"asked": asked, "chosen": made}) + "\n")
    found = (
        json.loads(path.read_text())["chosen"] if args.chosen is None else dict(zip(CHOSEN, args.chosen, strict=True))
    )
    print(json.dumps(found), flush=True)
    keys.append(f"experts.likelihood.render_variance={found[CHOSEN[1]]}")
    document: dict[str, Any] = {"machine": machine_facts(), "chosen": found}
    document["choice"] = args.choose_worlds if args.chosen is None else "none"
    recall, plans = args.folder / "recall", args.folder / "plans"
    views = run_recall(suite_of(args, RECALL, args.worlds, args.windows, found), load_config(None, keys), recall, Steps)
    document |= {"title": views.source.title, "settings": views.evaluation.settings}
    document["recall"] = views.evaluation.table.to_mapping()
    document["compositions"] = [row.to_mapping() for row in views.evaluation.passes]
    atomic_write_text(args.out, json.dumps(strict(document), indent=1) + "\n")
    shutil.copytree(recall / "adapters", plans / "adapters", dirs_exist_ok=True)  # the memory phases are the same
    suite = suite_of(args, MEMORY_PLANNING, args.worlds, args.plans, found)
    driven = run_memory_planning(suite, load_config(None, [*keys, *args.plan_keys]), plans, Steps)
    document |= {"plans": driven.evaluation.table.to_mapping(), "planner": driven.evaluation.settings["planner"]}
    document["sampler of plans"] = driven.evaluation.settings["model"]["sampler"]
    atomic_write_text(args.out, json.dumps(strict(document), indent=1) + "\n")
    print(json.dumps({"recall": document["recall"]["gains"], "plans": document["plans"]["ate_ratios"]}), flush=True)


if __name__ == "__main__":
    main()
