"""Protocols "nwm-time" and "nwm-rollout": imagined views at 1 to 16 s against the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from come_nav.core.files import atomic_write_text, writable_folder
from come_nav.evaluation.metrics.perceptual import PAIR_DISTANCES, Distance, FrechetDistance, pair_distance
from come_nav.evaluation.protocols.nwm_prediction import (
    PLAIN_DISTANCES,
    ImageFunction,
    PredictionScores,
    frames_of,
    jump_targets,
    prediction_windows,
    rollout_path,
    score_images,
    write_images,
)
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.protocols.results import settings_hash
from come_nav.evaluation.protocols.rows import WORLD_MODEL
from come_nav.evaluation.reports.report import strict
from come_nav.evaluation.suites.nwm.models import imaginer_of, nwm_model_settings, open_dataset, open_model
from come_nav.evaluation.suites.nwm.settings import NwmSuiteSettings
from come_nav.evaluation.suites.progress import Progress, silent
from come_nav.navigation.device import choose_device
from come_nav.navigation.settings import NavigationSettings
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.sampling.settings import SamplerSettings

COPY = "copy last frame"


@dataclass(frozen=True)
class NwmPredictionOutcome:
    """All figures as JSON values and by row, the sampler that made the images, and the folder of the files."""

    document: dict[str, Any]
    scores: list[PredictionScores]
    sampler: SamplerSettings
    folder: Path


def run_nwm_prediction(
    settings: NwmSuiteSettings, navigation: NavigationSettings, folder: Path, progress: Progress = silent
) -> NwmPredictionOutcome:
    """Write the images that are missing, compare all and keep the table.

    Raises:
        ConfigError: for settings that do not fit the data set.
        MissingDependencyError: where a metric needs a library that is not installed.
    """
    dataset = open_dataset(settings)
    kind, seconds = settings.protocol.removeprefix("nwm-"), settings.seconds
    device = choose_device(navigation.device)
    distances, frechet = _distances(settings.metrics, device)  # an absent library is told before anything is loaded
    model = open_model(settings, navigation, dataset.facts)
    if "latent" in settings.metrics:
        distances["latent"] = _latent_distance(model)
    windows = prediction_windows(dataset, kind, seconds, navigation.seed, settings.windows, model.context_frames)
    stored = _stored(settings, navigation, model, dataset.facts.name)
    images = writable_folder(folder) / "images" / settings_hash(stored)
    make = _jump(model) if kind == "time" else _rollout(model, settings, dataset.facts.spacing_m)
    rows: dict[str, ImageFunction] = {"truth": _real(model), COPY: _copy(model), WORLD_MODEL: make}
    with progress(len(windows), "windows", "window", leave=True) as bar:
        write_images(images, windows, seconds, rows, bar.add)
    evaluated = [row for row in rows if row != "truth"]
    scores = score_images(images, windows, seconds, evaluated, distances, frechet, navigation.seed)
    document = {
        "title": f"NWM {kind} protocol, {dataset.facts.name}",
        "settings": stored,
        "windows": len(windows),
        "images": str(images),
        "scores": [asdict(score) for score in scores],
    }
    atomic_write_text(folder / "results.json", json.dumps(strict(document), indent=1) + "\n")
    return NwmPredictionOutcome(document, scores, model.sampler, folder)


def score_lines(scores: Sequence[PredictionScores], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells of the metrics ``names``: rows by seconds."""
    lines = []
    for score in scores:
        cells = []
        for name in names:
            value = score.fid if name == "fid" else score.metrics[name].value
            cells.append("-" if value is None else f"{value:.3f}")
        lines.append([score.row, f"{score.second}", *cells, str(score.n)])
    return ["row", "s", *names, "n"], lines


def _stored(
    settings: NwmSuiteSettings, navigation: NavigationSettings, model: DiffusionWorldModel, dataset: str
) -> dict[str, Any]:
    stored = {
        "protocol": settings.protocol,
        "dataset": dataset,
        "quirks": asdict(settings.quirks),
        "seed": navigation.seed,
        "model": nwm_model_settings(model, navigation, settings),
    }
    return {**stored, "fps": settings.fps} if settings.protocol == "nwm-rollout" else stored


def _jump(model: DiffusionWorldModel) -> ImageFunction:
    """One prediction per time, straight from the context."""

    def make(window: Window, seconds: Sequence[int]) -> torch.Tensor:
        generator = window.generator("image")
        images = model.images_from_rgb([frame.rgb for frame in window.context_frames()])
        context = model.context_from_images(images, window.context_xyyaw, generator=generator)
        targets = torch.from_numpy(jump_targets(window, seconds)).float()
        times = torch.tensor([float(frames_of(second)) for second in seconds])
        return model.decode(model.predict(context, targets, times, generator))

    return make


def _rollout(model: DiffusionWorldModel, settings: NwmSuiteSettings, spacing_m: float) -> ImageFunction:
    """Frame by frame at ``--fps``; the image of a time is that of the step that ends there."""
    stride = 4 // settings.fps
    offset = settings.quirks.rollout_offset

    def make(window: Window, seconds: Sequence[int]) -> torch.Tensor:
        path = rollout_path(window, frames_of(max(seconds)), stride, spacing_m, offset)
        poses = torch.from_numpy(path)[None].float()
        keep = [second * settings.fps - 1 for second in seconds]
        imaginer = imaginer_of(model, window, settings, decode=True)
        return imaginer.views(poses, window.generator("image"), stride, keep)[0]

    return make


def _real(model: DiffusionWorldModel) -> ImageFunction:

    def make(window: Window, seconds: Sequence[int]) -> torch.Tensor:
        later = [window.start + frames_of(second) for second in seconds]
        return model.images_from_rgb([window.recording.frame(index).rgb for index in later])

    return make


def _copy(model: DiffusionWorldModel) -> ImageFunction:
    def make(window: Window, seconds: Sequence[int]) -> torch.Tensor:
        last = model.images_from_rgb([window.recording.frame(window.start).rgb])
        return last.expand(len(seconds), -1, -1, -1)

    return make


def _distances(names: Sequence[str], device: str) -> tuple[dict[str, Distance], Callable[[], FrechetDistance] | None]:

    distances: dict[str, Distance] = {name: pair_distance(name, device) for name in names if name in PAIR_DISTANCES}
    if "fid" in names:
        FrechetDistance()
    distances |= {name: PLAIN_DISTANCES[name] for name in names if name in PLAIN_DISTANCES}
    return distances, partial(FrechetDistance, device) if "fid" in names else None


def _latent_distance(model: DiffusionWorldModel) -> Distance:
    """Mean squared difference of the latents: what the planner's latent cost sees."""

    def distance(images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        difference = model.encode(images) - model.encode(references)
        return difference.square().mean(dim=(1, 2, 3)).cpu()

    return distance
