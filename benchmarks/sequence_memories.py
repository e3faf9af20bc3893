"""Memories of sequences trained for equal processor time on mazes: what they show of places that are come back to.

    python benchmarks/sequence_memories.py --seconds 3600 --work runs/sequence
    python benchmarks/sequence_memories.py --only "full attention;state space, block-wise" --seconds 600
    python benchmarks/sequence_memories.py --only "no memory" --robot tiny      ... and the robot's stack with a model
    python benchmarks/sequence_memories.py --recorded episodes --out real.json  the trained rows in other mazes

Every row is config/train_sequence.yaml with the kind of memory and a few keys changed (sequence_memories.yaml). Its
speed is measured first, then it gets as many steps as fit, so that warm-up and decay are whole. Walks are encoded once
for all. Each row resumes where it stopped, and the file is written after each. What memories cost needs no training:
sequence_costs.py.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from machine import machine_facts
from torch import Tensor

from come_nav.cli.evaluate_flags import parse_worlds
from come_nav.config import load_config, parse_override
from come_nav.core.errors import ConfigError
from come_nav.core.files import atomic_write_text
from come_nav.core.resources import find_resource
from come_nav.core.settings import from_mapping, nested, read_yaml
from come_nav.evaluation.metrics.image_sets import kernel_distance
from come_nav.evaluation.protocols.quality import FeaturesFunction
from come_nav.evaluation.protocols.sequence_recall import (
    IN_CONTEXT,
    NEVER,
    SequenceRecallSettings,
    SequenceWalks,
    SequenceWindow,
    copied,
    evaluate_answers,
    imagined,
    nearest_remembered,
    recall_walks,
    recorded_walks,
    retrieved,
    summarised,
    window_of,
)
from come_nav.evaluation.reports.composition_tables import marked
from come_nav.evaluation.suites.memory.compositions import find_weights
from come_nav.evaluation.suites.set_features import reference_features
from come_nav.evaluation.suites.walk_memories import marks_of_rows, maze_recordings, rows_of_walks
from come_nav.navigation.loading import load_configured_model
from come_nav.sim.mazes import maze_looks, memory_maze
from come_nav.training.machine import Machine
from come_nav.training.pretrained import merged
from come_nav.training.sequence.run import SequenceRun
from come_nav.training.sequence.settings import SequenceTrainSettings, default_values
from come_nav.training.sequence.task import draw_levels
from come_nav.training.sequence.walks import SequenceSamples
from come_nav.world_model.sequence.model import SequenceModel

ROWS = Path(__file__).with_suffix(".yaml")
BASELINE = "no memory"
RETRIEVING = "full attention"  # whose network answers from frames that are retrieved as well
RETRIEVED, NEWEST = 16, 10  # frames: by pose, and the last ones
RETRIEVAL = f"retrieval: {RETRIEVED} frames by pose, network of {RETRIEVING}"
WITHOUT_MODEL = {"newest frame": copied, "nearest remembered frame": nearest_remembered}
CALIBRATION_STEPS = 16
LEAST_IMAGES, SUBSETS = 20, 25  # of kernel distances


def read_rows(path: Path, base: dict[str, Any], only: str | None) -> dict[str, SequenceTrainSettings]:
    """Return the configuration of each row; raise ConfigError for one that names no kind or a key that is none."""
    wanted = None if only is None else [word.strip() for word in only.split(";")]
    rows = {}
    for name, overrides in read_yaml(path).items():
        if wanted is not None and name not in wanted:
            continue
        changes = dict(overrides)
        kind = changes.pop("sequence", None)
        if kind is None:
            raise ConfigError(f"{path}: row '{name}' names no kind of memory; give it 'sequence: ssm'")
        values = merged(merged(default_values(kind), base), nested(changes))
        rows[name] = from_mapping(SequenceTrainSettings, values)
    if not rows:
        raise ConfigError(f"{path}: holds no row that --only names")
    return rows


class Comparison:
    """The walks that are asked, and the document that grows by one row at a time."""

    def __init__(self, args: argparse.Namespace, document: dict[str, Any]) -> None:
        self.args, self.document = args, document
        walks = parse_worlds(args.worlds) if args.recorded is None else [own.seed for own in recorded(args.recorded)]
        self.recall = SequenceRecallSettings(tuple(walks), tuple(args.contexts), args.asked, steps=args.sampler_steps)
        self.machine = Machine(
            accelerator="cpu", progress=False, precision=args.precision, max_minutes=args.max_minutes
        )

    def train(self, name: str, config: SequenceTrainSettings) -> SequenceModel | None:
        """Return the trained model of a row, or None where time ran out; it goes on where it stopped."""
        folder = self.args.work / name.replace(",", "").replace(" ", "_")
        if self.args.recorded is not None or name in self.document["rows"]:  # as it was trained
            return SequenceModel.load(folder / config.name)
        facts = self.document["trainings"].setdefault(name, {"cpu_s": 0.0, "slices": 0})
        config = replace(config, data=replace(config.data, cache_folder=self.args.work / "walks"))
        if "steps" not in facts:
            facts["seconds_per_step"] = self.seconds_per_step(config, folder)
            facts["steps"] = max(1, int(self.args.seconds / facts["seconds_per_step"]))
            self.write()
        stage = replace(
            config.optimiser,
            steps=facts["steps"],
            warmup_steps=min(config.optimiser.warmup_steps, max(1, facts["steps"] // 10)),
            validate_every=facts["steps"],
            save_every=max(1, facts["steps"] // 10),
            ema_decay=min(config.optimiser.ema_decay, 1.0 - 10.0 / max(20, facts["steps"])),
        )
        run = SequenceRun(replace(config, optimiser=stage), folder, self.machine)
        exported: Path | None = folder / config.name
        if not (folder / config.name / "config.yaml").exists():
            run.walks("train")
            started_s = time.process_time()
            exported = run.finish()
            facts["cpu_s"] += time.process_time() - started_s
            facts["slices"] += 1
        self.write()
        if exported is None:
            return None
        model = SequenceModel.load(exported)
        facts["parameters"] = sum(parameter.numel() for parameter in model.network.parameters())
        return model

    def seconds_per_step(self, config: SequenceTrainSettings, folder: Path) -> float:
        """Return the processor time of a step: the mean of some, after two that set up.

        Where the row without memory was timed before, steps of both take turns, and its time then is the unit: what
        else a machine does at the moment costs no row its steps.
        """
        known = self.document["trainings"].get(BASELINE, {}).get("seconds_per_step")
        own = self._timed_steps(config, folder)
        if known is None:
            return sum(islice(own, 2, None)) / CALIBRATION_STEPS
        values = merged(default_values("none"), self.document["settings"]["base"])
        base = replace(from_mapping(SequenceTrainSettings, values), data=config.data)
        both = list(islice(zip(own, self._timed_steps(base, self.args.work / "baseline"), strict=True), 2, None))
        return float(known) * sum(step for step, _ in both) / sum(step for _, step in both)

    def _timed_steps(self, config: SequenceTrainSettings, folder: Path) -> Iterator[float]:
        """Yield the processor time of one training step after the other."""
        run = SequenceRun(config, folder.with_name(f"{folder.name}_speed"), self.machine)
        task, bank = run.task(), run.walks("train")
        optimiser = torch.optim.AdamW(task.parameters())
        generator = torch.Generator().manual_seed(0)
        narrow = self.machine.lightning_precision() == "bf16-mixed"
        timed, steps = range(CALIBRATION_STEPS + 2), config.optimiser.steps

        def length(step: int) -> int:  # a curriculum's are spread over all of its steps
            return config.frames_at(step * steps // len(timed))

        for batch in SequenceSamples(bank, config.frames, config.optimiser.batch_size, 0, timed, frames_at=length):
            started_s = time.process_time()
            levels = draw_levels(*batch.views.shape, config, len(task.schedule), generator)
            noise = torch.randn(batch.latents.shape, generator=generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
                loss = task.loss(batch, replace(levels, alone=False), noise)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            yield time.process_time() - started_s

    def evaluate(self, name: str, model: SequenceModel) -> None:
        """Ask a row for the ends of all walks, from each context."""
        if name in self.document["rows"]:
            return
        walks = self.walks
        latents = torch.cat([model.encode(chunk) for chunk in walks.images.split(256)])
        for row, answer in self.answers(name, model).items():
            for context in self.recall.contexts:
                window = window_of(walks, latents, context, self.recall.asked)
                self.keep(row, context, answer(window), model.decode)
        self.write()

    def keep(self, row: str, context: int, answered: Tensor, decode: Callable[[Tensor], Tensor]) -> None:
        """Keep the figures of what a row answered (W, asked, ...), which ``decode`` makes images of."""
        records = evaluate_answers(answered, decode, self.walks, self.recall.worlds)
        self.document["records"].setdefault(row, {})[str(context)] = records
        base = self.document["records"].get(BASELINE, {}).get(str(context))
        found = summarised(records, self.recall.seed, None if row == BASELINE else base, context)
        for group, distance in self.kernel_distances(decode(answered.flatten(0, 1)), context).items():
            found[group]["kernel_distance"] = distance
        self.document["rows"].setdefault(row, {})[str(context)] = found

    def evaluate_robot(self, name: str, steps_per_frame: float) -> None:
        """Ask the robot's stack with the model ``name``: clouds, an adapter and compositions, none of it trained here.

        Differences to no memory are paired by view; what its autoencoder leaves of the true views is a row as well.
        """
        words = (f"model={name}", "device=cpu", f"episodic.steps_per_frame={steps_per_frame}")
        navigation = load_config(None, words)
        model, weights = load_configured_model(navigation), find_weights(None, name)
        facts = self.document["trainings"].setdefault(f"robot, {name}", {"answer_cpu_s": {}})
        facts |= {"adapter_steps_per_frame": steps_per_frame, "weights": weights.to_mapping()["contrast"]["all"]}
        recordings, marks = maze_recordings(self.recall), marks_of_rows(model, weights)
        for context in self.args.robot_contexts or self.recall.contexts:
            if str(context) in facts["answer_cpu_s"]:
                continue
            started_s = time.process_time()
            answers = rows_of_walks(model, navigation, weights, recordings, context, self.recall)
            true = self.walks.images[self.walks.views[:, -self.recall.asked :]]
            answers["autoencoder"] = torch.stack([model.decode(model.encode(own)).cpu() for own in true])
            for row, images in answers.items():
                self.keep(f"{name}: {marked(row, marks)}", context, images, lambda images: images)
            facts["answer_cpu_s"][str(context)] = time.process_time() - started_s
            self.write()

    def answers(self, name: str, model: SequenceModel) -> dict[str, Callable[[SequenceWindow], Tensor]]:
        """Return how a row and those that need nothing but its model answer a window."""
        answers: dict[str, Any] = {name: lambda window: imagined(model, window, self.recall)}
        if name == BASELINE:
            answers |= {**WITHOUT_MODEL, "the autoencoder": lambda window: window.latents[:, window.context :]}
        if name == RETRIEVING:
            answers[RETRIEVAL] = lambda window: retrieved(model, window, self.recall, RETRIEVED, NEWEST)
        return answers

    def kernel_distances(self, images: Tensor, context: int) -> dict[str, dict[str, Any]]:
        """Return the distance of images (worlds * asked, 3, H, W) to true ones: all, and what is in the context."""
        ages = self.walks.ages[:, -self.recall.asked :].reshape(-1)
        chosen = {"all": ages >= -1, IN_CONTEXT: (ages > 10) & (ages <= context)}
        made, generator = self.features(images), torch.Generator().manual_seed(self.recall.seed)
        return {
            group: asdict(kernel_distance(self.true_features[mask], made[mask], generator, subsets=SUBSETS))
            for group, mask in chosen.items()
            if mask.sum() >= LEAST_IMAGES
        }

    @cached_property
    def features(self) -> FeaturesFunction:
        """Images (N, 3, H, W) to what sets of them are compared in."""
        return reference_features()

    @cached_property
    def true_features(self) -> Tensor:
        """Features of the frames that are asked for."""
        return self.features(self.walks.images[self.walks.views[:, -self.recall.asked :].flatten()])

    @cached_property
    def walks(self) -> SequenceWalks:
        """The walks through test mazes, rendered once, or those that were recorded elsewhere."""
        if self.args.recorded is None:
            return recall_walks(self.recall)
        return recorded_walks(recorded(self.args.recorded), self.recall, maze_looks.CELL_M / memory_maze.CELL_M)

    def write(self) -> None:
        """Write the document, single records left out: they are in the work folder."""
        public = {name: value for name, value in self.document.items() if name != "records"}
        atomic_write_text(self.args.out, json.dumps(public, indent=1) + "\n")
        self.args.work.mkdir(parents=True, exist_ok=True)
        atomic_write_text(records_file(self.args), json.dumps(self.document["records"]) + "\n")


def recorded(folder: Path) -> list[memory_maze.MemoryMazeWalk]:
    """Return the episodes of Memory Maze in a folder; raise ConfigError where there is none."""
    walks = [memory_maze.load_walk(path) for path in sorted(folder.glob("*.npz"))]
    if not walks:
        raise ConfigError(f"{folder} holds no episode (.npz); record some with record_memory_maze and save_walk")
    return walks


def records_file(args: argparse.Namespace) -> Path:
    """Return where the records of a document are kept: its own, for trainings are shared by several documents."""
    return Path(args.work) / f"records_{args.out.stem}.json"


def open_document(args: argparse.Namespace, base: dict[str, Any]) -> dict[str, Any]:
    """Return the document to go on with, or a new one; raise ConfigError where the file has other settings."""
    settings = {
        "base": base,
        "rows": read_yaml(args.rows),
        "budget_cpu_s": args.seconds,
        "worlds": args.worlds if args.recorded is None else [own.name for own in recorded(args.recorded)],
        "contexts": args.contexts,
        "asked": args.asked,
        "sampler_steps": args.sampler_steps,
    }
    if args.out.exists():
        document: dict[str, Any] = json.loads(args.out.read_text())
        if document["settings"] != json.loads(json.dumps(settings)):
            raise ConfigError(f"{args.out} holds results of other settings; choose another --out")
        kept = records_file(args)
        if document["rows"] and not kept.exists():
            raise ConfigError(f"{kept}: the single records of {args.out} are not there; begin anew with another --out")
        document["records"] = json.loads(kept.read_text()) if kept.exists() else {}
        return document
    what = __doc__.splitlines()[0]
    empty: dict[str, Any] = {"trainings": {}, "rows": {}, "records": {}}
    return {"what": what, "settings": settings, "machine": machine_facts(), **empty}


def line_of(name: str, by_context: dict[str, Any], facts: dict[str, Any]) -> str:
    """Return one line of the table: what was seen more than ten frames ago, and what never was."""
    parts = [f"{name:34s} {facts.get('steps', 0):6d} steps {facts.get('cpu_s', 0.0):6.0f} s"]
    for context, summary in by_context.items():
        groups = (summary.get(group, {}).get("psnr_db") for group in (IN_CONTEXT, NEVER))
        told = ["-" if own is None else with_ends(own) for own in groups]
        parts.append(f"{context}: {' / '.join(told)} dB")
    return "  ".join(parts)


def with_ends(own: dict[str, Any]) -> str:
    """Return a mean with its interval, where enough mazes give one."""
    return f"{own['value']:.2f}" + ("" if own["low"] is None else f" [{own['low']:.2f}, {own['high']:.2f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="train_sequence.yaml", help="training configuration that rows change")
    parser.add_argument("--set", action="append", default=[], help="key=value over the base, e.g. data.worlds=64")
    parser.add_argument("--rows", type=Path, default=ROWS, help="YAML: name -> sequence: KIND, and keys that differ")
    parser.add_argument("--only", help="names of rows, separated by semicolons")
    parser.add_argument("--seconds", type=float, default=3600.0, help="processor seconds of each training")
    parser.add_argument(
        "--max-minutes", type=float, help="stop each training after this time; go on by the same command"
    )
    parser.add_argument(
        "--precision", default="32-true", help="of training; bf16-mixed takes longer a step where layers are narrow"
    )
    parser.add_argument("--recorded", type=Path, help="folder of episodes of Memory Maze, asked in place of --worlds")
    parser.add_argument("--worlds", default="20000-20019", help="mazes that are asked: test seeds")
    parser.add_argument(
        "--contexts", type=int, nargs="+", default=[100, 200, 400, 800], help="frames before what is asked"
    )
    parser.add_argument("--asked", type=int, default=24, help="frames at the end of each walk that are asked for")
    parser.add_argument("--robot", metavar="NAME", help="model whose stack answers as well, with depth and memories")
    parser.add_argument(
        "--robot-contexts", type=int, nargs="+", help="of --contexts, those that the robot is asked from: minutes each"
    )
    parser.add_argument("--adapter-steps", type=float, default=0.1, help="of that robot's adapter, for each frame")
    parser.add_argument("--sampler-steps", type=int, help="of the sampler (default: the model's)")
    parser.add_argument("--work", type=Path, default=Path("runs/sequence"), help="folder of the trainings")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/sequence_memories.json"))
    args = parser.parse_args()
    if args.robot is not None and args.recorded is not None:
        parser.error("--robot needs depth and a calibrated camera, which episodes of --recorded do not have")
    if not set(args.robot_contexts or ()) <= set(args.contexts):
        parser.error("--robot-contexts are some of --contexts")
    torch.set_num_threads(1)
    overrides = nested(dict(map(parse_override, args.set)))
    base = merged(read_yaml(find_resource("config", args.base)), overrides)
    rows = read_rows(args.rows, base, args.only)
    comparison = Comparison(args, open_document(args, base))
    for name, config in rows.items():
        model = comparison.train(name, config)
        if model is None:
            raise SystemExit(f"{name}: stopped; the same command goes on from {args.work}")
        comparison.evaluate(name, model)
        facts = comparison.document["trainings"].get(name, {})
        print(line_of(name, comparison.document["rows"][name], facts), flush=True)
    if args.robot is not None:
        comparison.evaluate_robot(args.robot, args.adapter_steps)


if __name__ == "__main__":
    main()
