"""``come-nav evaluate --protocol nwm-time`` and ``nwm-rollout``: imagined views at 1 to 16 s against the real ones."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.cli.output import format_table, print_json
from come_nav.core.errors import ConfigError
from come_nav.evaluation.suites.nwm import imaginer_of, model_settings, open_dataset, open_model, parse_names, quirks_of

if TYPE_CHECKING:
    import torch

    from come_nav.config import Config
    from come_nav.evaluation.metrics.perceptual import Distance, FrechetDistance
    from come_nav.evaluation.protocols.nwm_prediction import ImageFunction, PredictionScores
    from come_nav.evaluation.protocols.protocol import Window
    from come_nav.world_model.model import DiffusionWorldModel

METRICS = ("lpips", "dreamsim", "fid", "psnr", "ssim", "latent")
COPY = "copy last frame"


def run_prediction(args: argparse.Namespace) -> int:
    """Write the images that are missing, compare all, print and keep the table."""
    from tqdm import tqdm

    from come_nav.core.files import atomic_write_text, writable_folder
    from come_nav.evaluation.protocols.nwm_prediction import prediction_windows, score_images, write_images
    from come_nav.evaluation.protocols.results import settings_hash
    from come_nav.evaluation.protocols.rows import WORLD_MODEL
    from come_nav.evaluation.reports.report import strict

    dataset = open_dataset(args)
    kind = args.protocol.removeprefix("nwm-")
    seconds = _seconds(args.seconds)
    names = list(METRICS) if args.metrics is None else parse_names("--metrics", args.metrics, METRICS)
    distances, frechet = _distances(names)  # an absent library is told before anything is loaded
    model, config = open_model(args, dataset.facts)
    if "latent" in names:
        distances["latent"] = _latent_distance(model)
    windows = prediction_windows(dataset, kind, seconds, config.seed, args.windows, model.context_frames)
    settings = _settings(args, config, model, dataset.facts.name)
    folder = writable_folder(args.out or Path("runs/evaluate") / f"{args.protocol}_{dataset.facts.name}")
    images = folder / "images" / settings_hash(settings)
    make = _jump(model, args) if kind == "time" else _rollout(model, args, dataset.facts.spacing_m)
    rows: dict[str, ImageFunction] = {"truth": _real(model), COPY: _copy(model), WORLD_MODEL: make}
    with tqdm(total=len(windows), desc="windows", unit="window", file=sys.stderr, disable=None) as bar:
        write_images(images, windows, seconds, rows, bar.update)
    evaluated = [row for row in rows if row != "truth"]
    scores = score_images(images, windows, seconds, evaluated, distances, frechet, config.seed)
    document = {
        "title": f"NWM {kind} protocol, {dataset.facts.name}",
        "settings": settings,
        "windows": len(windows),
        "images": str(images),
        "scores": [asdict(score) for score in scores],
    }
    atomic_write_text(folder / "results.json", json.dumps(strict(document), indent=1) + "\n")
    if args.json:
        print_json(document)
        return 0
    sampler = model.sampler
    quirks = "on" if args.official_quirks else "off"
    print(f"{document['title']}: {len(windows)} windows, {sampler.name} {sampler.steps} steps, quirks {quirks}\n")
    print(format_table(*_lines(scores, names)))
    print(f"\nresults: {folder / 'results.json'}, images in {images}")
    return 0


def _settings(args: argparse.Namespace, config: Config, model: DiffusionWorldModel, dataset: str) -> dict[str, Any]:
    settings = {
        "protocol": args.protocol,
        "dataset": dataset,
        "quirks": asdict(quirks_of(args)),
        "seed": config.seed,
        "model": model_settings(model, config, args),
    }
    return {**settings, "fps": args.fps} if args.protocol == "nwm-rollout" else settings


def _jump(model: DiffusionWorldModel, args: argparse.Namespace) -> ImageFunction:
    """One prediction per time, straight from the context."""
    import torch

    from come_nav.evaluation.protocols.nwm_prediction import frames_of, jump_targets

    def make(window: Window, seconds: Sequence[int]) -> torch.Tensor:
        generator = window.generator("image")
        images = model.images_from_rgb([frame.rgb for frame in window.context_frames()])
        context = model.context_from_images(images, window.context_xyyaw, generator=generator)
        targets = torch.from_numpy(jump_targets(window, seconds)).float()
        times = torch.tensor([float(frames_of(second)) for second in seconds])
        return model.decode(model.predict(context, targets, times, generator))

    return make


def _rollout(model: DiffusionWorldModel, args: argparse.Namespace, spacing_m: float) -> ImageFunction:
    """Frame by frame at ``--fps``; the image of a time is that of the step that ends there."""
    import torch

    from come_nav.evaluation.protocols.nwm_prediction import frames_of, rollout_path

    stride = 4 // args.fps
    offset = quirks_of(args).rollout_offset

    def make(window: Window, seconds: Sequence[int]) -> torch.Tensor:
        path = rollout_path(window, frames_of(max(seconds)), stride, spacing_m, offset)
        poses = torch.from_numpy(path)[None].float()
        keep = [second * args.fps - 1 for second in seconds]
        imaginer = imaginer_of(model, window, args, decode=True)
        return imaginer.views(poses, window.generator("image"), stride, keep)[0]

    return make


def _real(model: DiffusionWorldModel) -> ImageFunction:
    from come_nav.evaluation.protocols.nwm_prediction import frames_of

    def make(window: Window, seconds: Sequence[int]) -> torch.Tensor:
        later = [window.start + frames_of(second) for second in seconds]
        return model.images_from_rgb([window.recording.frame(index).rgb for index in later])

    return make


def _copy(model: DiffusionWorldModel) -> ImageFunction:
    def make(window: Window, seconds: Sequence[int]) -> torch.Tensor:
        last = model.images_from_rgb([window.recording.frame(window.start).rgb])
        return last.expand(len(seconds), -1, -1, -1)

    return make


def _distances(names: Sequence[str]) -> tuple[dict[str, Distance], Callable[[], FrechetDistance] | None]:
    from come_nav.evaluation.metrics.perceptual import PAIR_DISTANCES, FrechetDistance, pair_distance
    from come_nav.evaluation.protocols.nwm_prediction import PLAIN_DISTANCES

    distances: dict[str, Distance] = {name: pair_distance(name) for name in names if name in PAIR_DISTANCES}
    if "fid" in names:
        FrechetDistance()
    distances |= {name: PLAIN_DISTANCES[name] for name in names if name in PLAIN_DISTANCES}
    return distances, FrechetDistance if "fid" in names else None


def _latent_distance(model: DiffusionWorldModel) -> Distance:
    """Mean squared difference of the latents: what the planner's latent cost sees."""

    def distance(images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        difference = model.encode(images) - model.encode(references)
        return difference.square().mean(dim=(1, 2, 3)).cpu()

    return distance


def _lines(scores: Sequence[PredictionScores], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    lines = []
    for score in scores:
        cells = []
        for name in names:
            value = score.fid if name == "fid" else score.metrics[name].value
            cells.append("-" if value is None else f"{value:.3f}")
        lines.append([score.row, f"{score.second}", *cells, str(score.n)])
    return ["row", "s", *names, "n"], lines


def _seconds(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() and int(word) >= 1 for word in words):
        raise ConfigError(f"--seconds must be whole seconds such as 1,2,4, got '{text}'")
    return sorted({int(word) for word in words})
