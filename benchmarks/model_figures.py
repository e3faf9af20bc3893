"""All figures that a shipped model is judged by, in one file: views, images as sets, plans without memory, depth.

    python benchmarks/model_figures.py --model tiny --recordings kitchen cabinet
    python benchmarks/model_figures.py --model models/small --device cuda --windows 200 --plans 100 --places 40
    python benchmarks/model_figures.py --model tiny --parts depth --recordings kitchen cabinet

Parts: "prediction" (PSNR, SSIM and sharpness at 1, 2, 4 and 8 s, over copying the last frame and over that copy blurred
to the width that is best in hindsight), "images" (views after a turn of 60 degrees or more, which nothing shown to the
model tells: kernel distance to real views and coverage by 16 samples, for each number of sampling steps), "planning"
(2 s and 4 s without memory, as come-nav evaluate does it; also by whether the context shows a quarter of the goal's
view) and "depth" (of recordings, against what was measured).
Features of images are those of the depth network of models/tiny, whatever the model, so that figures compare. Worlds
are test worlds, with realistic sensors unless --sensors says otherwise, once for each of --sets (furnished ones need
come-nav assets collect). Every part is written when it is done; the same command goes on with what is missing.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine_facts
from scipy.ndimage import gaussian_filter
from torch import Tensor
from tqdm import tqdm

from come_nav.cli.evaluate_flags import parse_worlds
from come_nav.config import Config, load_config
from come_nav.core.errors import ConfigError
from come_nav.core.files import atomic_write_text
from come_nav.core.resources import find_resource
from come_nav.core.settings import to_mapping
from come_nav.core.types import Context, ViewSource
from come_nav.data.opening import open_recording
from come_nav.evaluation.metrics.image_metrics import gradient_energy
from come_nav.evaluation.metrics.image_sets import coverage, kernel_distance
from come_nav.evaluation.metrics.statistics import bootstrap_mean, bootstrap_ratio, enough_clusters, paired_difference
from come_nav.evaluation.protocols.protocol import ProtocolSettings, Window
from come_nav.evaluation.protocols.quality import (
    Batch,
    QualityRow,
    QualityWindow,
    copy_last_row,
    evaluate_batch,
    quality_windows,
    read_batch,
)
from come_nav.evaluation.reports.quality_tables import quality_table
from come_nav.evaluation.reports.tables import planning_table
from come_nav.evaluation.suites.fingerprints import model_settings
from come_nav.evaluation.suites.inputs import SourceSettings
from come_nav.evaluation.suites.planning import PlanningSuiteSettings, run_planning
from come_nav.evaluation.suites.quality_rows import batched_context, images_of, jump_row
from come_nav.evaluation.suites.replay import Replay, open_loop
from come_nav.evaluation.suites.set_features import reference_features
from come_nav.evaluation.suites.worlds import Drives, drive_worlds
from come_nav.navigation.loading import load_configured_model
from come_nav.navigation.stack import NavStack
from come_nav.sim.sensors.settings import sensor_settings
from come_nav.world_model.depth_of_frames import RATIO_PIXELS, measured_depth
from come_nav.world_model.images import camera_of_frame
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.views import rendered_views

PARTS = ("prediction", "images", "planning", "depth")
HORIZONS_S = (1.0, 2.0, 4.0, 8.0)
BLURS_PX = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
UNSEEN_S, TURN_DEG = 4.0, 60.0
SAMPLES = 16
BATCH = 16
IN_SIGHT = 0.25  # share of a goal's image that the context shows; below it the context says nothing of the goal
DEPTH_RANGE_M = (0.3, 10.0)


class Figures:
    """One model, its windows and the document that grows by one part at a time."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        words = [f"model={args.model}", f"device={args.device}", f"seed={args.seed}"]
        self.config: Config = load_config(None, [*args.set, *words])
        self.model: DiffusionWorldModel = load_configured_model(self.config)
        self.features_of, self.looker = reference_features(), self.model  # who tells what of a goal is in sight
        if self.model.depth is None:
            self.looker = DiffusionWorldModel.load(find_resource("models", "tiny"))
        self.generator = torch.Generator().manual_seed(args.seed)
        self.sensors = sensor_settings(args.sensors)
        settings = {
            "model": {**model_settings(self.config.model, self.model), "name": args.model},
            "worlds": args.worlds,
            "sensors": args.sensors,
            "seed": args.seed,
            "planner": to_mapping(self.config.planner),
        }
        self.document = opened(args.out, json.loads(json.dumps(settings)), args.fresh)

    def part(self, name: str, key: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Measure one part of one input, unless the file has it, and write the file."""
        found = self.document["parts"].setdefault(name, {})
        if key not in found:
            found[key] = measure()
            atomic_write_text(self.args.out, json.dumps(self.document, indent=1) + "\n")
        print(f"{name}, {key}: {json.dumps(found[key])[:2000]}", flush=True)

    def drives(self, set_name: str) -> Drives:
        worlds = parse_worlds(self.args.worlds)
        return drive_worlds(worlds, self.model.rate_hz, self.args.seed, self.config.device, self.sensors, set_name)

    def windows(self, source: Drives, horizons_s: Sequence[float], count: int | None) -> list[QualityWindow]:
        steps = [round(horizon_s * self.model.rate_hz) for horizon_s in horizons_s]
        protocol = ProtocolSettings(self.model.context_frames, steps[-1], self.model.rate_hz, seed=self.args.seed)
        return quality_windows(source.recordings, protocol, steps, count)

    # -- views -------------------------------------------------------------------------------------------------------

    def prediction(self, set_name: str) -> dict[str, Any]:
        """Return PSNR, SSIM and sharpness at every horizon, and gains over copying and over the best blurred copy."""
        source = self.drives(set_name)
        windows = self.windows(source, HORIZONS_S, self.args.windows)
        rows = [copy_last_row(), *(blurred_copy(width) for width in BLURS_PX), jump_row(self.model, self.config)]
        records: dict[str, list[Any]] = {row.name: [] for row in rows}
        for batch in self.batches(windows):
            for row in rows:
                records[row.name] += evaluate_batch(row, batch)
        table = quality_table(records, HORIZONS_S, self.args.seed, source.groups)
        labels = labels_of(windows, source)
        jump, blurs = rows[-1].name, [row.name for row in rows[1:-1]]
        horizons = []
        for index, horizon_s in enumerate(HORIZONS_S):
            best = max(blurs, key=lambda name: table.rows[name]["psnr_db"][index].value)
            gain = {}
            for metric in ("psnr_db", "ssim"):
                own, other = (column(records[row], metric)[:, index] for row in (jump, best))
                gain[metric] = asdict(paired_difference(own, other, self.args.seed, labels))
            shown = {rows[0].name: rows[0].name, "best blurred copy": best, jump: jump}
            horizons.append(
                {
                    "horizon_s": horizon_s,
                    "best_blur": best,
                    "rows": {
                        name: {metric: asdict(found[index]) for metric, found in table.rows[row].items()}
                        for name, row in shown.items()
                    },
                    "gain_over_copy": {name: asdict(found[index]) for name, found in table.gains[jump].items()},
                    "gain_over_best_blur": gain,
                }
            )
        return {"windows": len(windows), "resampled": table.resampled, "horizons": horizons}

    def batches(self, windows: Sequence[QualityWindow]) -> list[Batch]:
        images = images_of(self.model)
        parts = [windows[start : start + BATCH] for start in range(0, len(windows), BATCH)]
        return [read_batch(part, images) for part in tqdm(parts, desc="read", unit="batch", disable=None)]

    # -- images as sets ----------------------------------------------------------------------------------------------

    def images(self, set_name: str) -> dict[str, Any]:
        """Return kernel distance, sharpness and coverage of views that nothing tells, by sampling steps."""
        source = self.drives(set_name)
        every = self.windows(source, [UNSEEN_S], None)
        unseen = [item for item in every if abs(item.poses_xyyaw[-1, 2]) >= math.radians(TURN_DEG)]
        if len(unseen) < 2 * SAMPLES:
            raise ConfigError(f"--worlds {self.args.worlds}: only {len(unseen)} windows turn by {TURN_DEG:g} degrees")
        chosen = spread(unseen, self.args.views)
        batches = self.batches(chosen)
        truth = torch.cat([batch.truth[:, 0] for batch in batches])
        real, labels = self.features_of(truth), labels_of(chosen, source)
        half = torch.randperm(len(real), generator=self.generator)
        rows = {"real views against others": self.set_figures(truth[half[::2]], real[half[::2]], real[half[1::2]])}
        rows["copy the last frame"] = self.set_figures(torch.cat([batch.last for batch in batches]), None, real)
        sampler = self.model.sampler
        places = self.batches(spread(unseen, self.args.places))
        for steps in self.args.steps:
            self.model.sampler = replace(sampler, steps=steps)
            row = jump_row(self.model, self.config)
            made = torch.cat([row.imagine(batch)[:, 0] for batch in tqdm(batches, desc=f"{steps} steps", disable=None)])
            energies = [gradient_energy(images.clamp(-1.0, 1.0)).double().numpy() for images in (made, truth)]
            rows[f"{steps} steps"] = {
                **self.set_figures(made, None, real),
                "sharpness": asdict(bootstrap_ratio(*energies, self.args.seed, labels)),
                "coverage": self.coverage(places, source),
            }
        self.model.sampler = sampler
        return {"views": len(chosen), "turn_deg": TURN_DEG, "after_s": UNSEEN_S, "of": len(unseen), "rows": rows}

    def set_figures(self, images: Tensor, features: Tensor | None, real: Tensor) -> dict[str, Any]:
        made = self.features_of(images) if features is None else features
        return {"kernel_distance": asdict(kernel_distance(real, made, self.generator))}

    def coverage(self, batches: Sequence[Batch], source: Drives) -> dict[str, Any]:
        """Return how 16 samples of each place lie around what is there."""
        samples, truths, replay = [], [], Replay(NavStack(self.model, open_loop(self.config)))
        for batch in batches:
            context = batched_context(replay, batch).repeated(SAMPLES)
            wanted = batch.actions_xyyaw, batch.rel_frames
            repeated = (values.repeat_interleave(SAMPLES, 0) for values in wanted)
            latents = self.model.predict(context, *repeated, batch.generator())
            found = self.features_of(self.model.decode(latents).cpu())
            samples.append(found.view(len(batch.windows), SAMPLES, -1))
            truths.append(self.features_of(batch.truth[:, 0]))
        result = coverage(torch.cat(samples), torch.cat(truths))
        labels = labels_of([item for batch in batches for item in batch.windows], source)
        return {name: asdict(bootstrap_mean(values, self.args.seed, labels)) for name, values in vars(result).items()}

    # -- plans and depth ---------------------------------------------------------------------------------------------

    def planning(self, set_name: str, horizon_s: float) -> dict[str, Any]:
        """Return the table of plans and the gap closure, by the planning suite."""
        source = SourceSettings(
            "planning",
            worlds=parse_worlds(self.args.worlds),
            windows=self.args.plans,
            sensors=self.sensors,
            world_set=set_name,
        )
        wanted = PlanningSuiteSettings(source, ("trivial", "model", "perfect"), horizon_s=(horizon_s,), report=False)
        folder = self.args.work / Path(self.args.model).name / f"{set_name}_{horizon_s:g}s"
        outcome = run_planning(wanted, self.config, folder)
        found, by_sight = outcome.evaluation, {}
        replay = Replay(NavStack(self.looker, open_loop(self.config)))
        shares = np.array([self.seen_share(replay.context(window), window) for window in found.windows])
        for name, chosen in (("in sight", shares >= IN_SIGHT), ("out of sight", shares < IN_SIGHT)):
            numbers = np.flatnonzero(chosen)
            if len(numbers):
                records = {row: [own[number] for number in numbers] for row, own in found.records.items()}
                windows = [found.windows[number] for number in numbers]
                by_sight[name] = planning_table(windows, records, self.args.seed, outcome.source.groups).to_mapping()
        return {"table": found.table.to_mapping(), "seen_shares": shares.round(3).tolist(), "by_sight": by_sight}

    def seen_share(self, context: Context, window: Window) -> float:
        """Return the share of the goal's image that the context shows, moved there by its depth."""
        action = torch.from_numpy(np.asarray(window.driven_xyyaw)[-1:]).float()
        view = rendered_views(self.looker, context, action, (ViewSource.CONTEXT,))[ViewSource.CONTEXT]
        return float(view.known.float().mean())

    def depth(self, path: str) -> dict[str, Any]:
        """Return how far estimated depth is from what the camera of a recording measured."""
        told, plain = depth_errors_of(self.model, Path(path), self.args.frames)
        found = {**told, "abs_rel without the camera": plain["abs_rel"]}
        figures = {name: asdict(bootstrap_mean(values, self.args.seed)) for name, values in found.items()}
        return {"frames": len(found["abs_rel"]), **figures}


def blurred_copy(width_px: float) -> QualityRow:
    """Return the row that copies the last frame, blurred by a Gaussian."""

    def imagine(batch: Batch) -> Tensor:
        blurred = gaussian_filter(batch.last.numpy(), (0, 0, width_px, width_px), mode="nearest")
        return torch.from_numpy(blurred)[:, None].expand_as(batch.truth)

    return QualityRow(f"copy blurred by {width_px:g} px", imagine)


def depth_errors(measured_m: Tensor, estimated_m: Tensor) -> dict[str, np.ndarray]:
    """Return mean relative errors and the median ratio of each frame (T, S, S) that measured enough."""
    errors, scaled, ratios = [], [], []
    for real, guess in zip(measured_m, estimated_m, strict=True):
        known = (real > DEPTH_RANGE_M[0]) & (real < DEPTH_RANGE_M[1])
        if int(known.sum()) >= RATIO_PIXELS:
            ratio = guess[known] / real[known]
            errors.append(float((ratio - 1.0).abs().mean()))
            scaled.append(float((ratio / ratio.median() - 1.0).abs().mean()))
            ratios.append(float(ratio.median()))
    named = {"abs_rel": errors, "abs_rel with the best scale": scaled, "median of estimated over measured": ratios}
    return {name: np.array(values) for name, values in named.items()}


def depth_errors_of(
    model: DiffusionWorldModel, path: Path, count: int, begin: float = 0.0
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the errors of estimates that are told the camera, and of others, on ``count`` frames of a recording.

    Frames lie evenly in what is left after the fraction ``begin``; of a recording without depth, no errors are left.
    """
    recording = open_recording(path, model.rate_hz, quiet=True)
    first = math.ceil(begin * len(recording))
    chosen = np.unique(np.linspace(first, len(recording) - 1, count).astype(int))
    frames = [recording.frame(int(index)) for index in chosen]
    aspect = model.images.aspect
    measured = measured_depth(frames, model.image_size, aspect)
    images = model.images_from_rgb([frame.rgb for frame in frames])
    camera = camera_of_frame(frames[0].intrinsics, aspect)
    told, plain = (depth_errors(measured, model.estimate_depth_m(images, own).cpu()) for own in (camera, None))
    return told, plain


def column(records: Sequence[Any], metric: str) -> np.ndarray:
    return np.array([record[metric] for record in records], dtype=np.float64)


def labels_of(windows: Sequence[QualityWindow], source: Drives) -> Sequence[object] | None:
    """Return the world of each window, where there are enough worlds to resample."""
    labels = [(source.groups or {}).get(item.window.recording_id, "") for item in windows]
    return enough_clusters(labels)


def spread(windows: Sequence[QualityWindow], count: int) -> list[QualityWindow]:
    """Return ``count`` windows, evenly over all."""
    return [windows[int(index)] for index in np.unique(np.linspace(0, len(windows) - 1, count).astype(int))]


def opened(path: Path, settings: dict[str, Any], fresh: bool) -> dict[str, Any]:
    """Return the document to go on with, or a new one; raise ConfigError where the file has other settings."""
    if path.exists() and not fresh:
        document: dict[str, Any] = json.loads(path.read_text())
        if document["settings"] != settings:
            raise ConfigError(f"{path} holds results of other settings; choose another --out, or --fresh to start over")
        return document
    what = (__doc__ or "").splitlines()[0]
    return {"benchmark": "model_figures", "what": what, "settings": settings, "machine": machine_facts(), "parts": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--sets", default="built-in,furnished", help="sets of worlds (default built-in,furnished)")
    parser.add_argument("--sensors", default="realistic")
    parser.add_argument("--worlds", default="20000-20019", help="test worlds (default 20000-20019)")
    parser.add_argument("--windows", type=int, default=100, help="of predictions")
    parser.add_argument("--plans", type=int, default=60, help="windows of plans, of each horizon")
    parser.add_argument("--views", type=int, default=96, help="that are compared as sets")
    parser.add_argument("--places", type=int, default=16, help="of which 16 samples are drawn")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 5, 20], help="of the sampler")
    parser.add_argument("--recordings", nargs="*", default=[], help="with depth, for the part depth")
    parser.add_argument("--frames", type=int, default=60, help="of each recording")
    parser.add_argument("--set", action="append", default=[], help="configuration key=value")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/model_figures"), help="folder of the plans")
    parser.add_argument("--fresh", action="store_true", help="forget what the file holds")
    parser.add_argument("--out", type=Path, help="JSON (default benchmarks/results/model_NAME.json)")
    args = parser.parse_args()
    args.out = args.out or Path(f"benchmarks/results/model_{Path(args.model).name}.json")
    wanted, figures = args.parts.split(","), Figures(args)
    if unknown := [name for name in wanted if name not in PARTS]:
        raise ConfigError(f"--parts takes {', '.join(PARTS)}, got {', '.join(unknown)}")
    for path in args.recordings if "depth" in wanted else []:
        figures.part("depth", Path(path).name, lambda path=path: figures.depth(path))
    for set_name in args.sets.split(","):
        if "prediction" in wanted:
            figures.part("prediction", set_name, lambda name=set_name: figures.prediction(name))
        if "images" in wanted:
            figures.part("images", set_name, lambda name=set_name: figures.images(name))
        for horizon_s in (2.0, 4.0) if "planning" in wanted else ():
            key = f"{set_name}, {horizon_s:g} s"
            figures.part("planning", key, lambda name=set_name, s=horizon_s: figures.planning(name, s))


if __name__ == "__main__":
    main()
