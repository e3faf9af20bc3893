"""Protocol "nwm": plans on data sets in NWM's layout, searched and scored as NWM does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from come_nav.core.files import writable_folder
from come_nav.core.protocols import Objective
from come_nav.core.types import Frame, Plan
from come_nav.data.nwm.dataset import DatasetFacts
from come_nav.evaluation.metrics.perceptual import PAIR_DISTANCES, Distance, pair_distance
from come_nav.evaluation.protocols.nwm_protocol import evaluate_planning, planning_windows, summarise
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.protocols.results import ResultStore
from come_nav.evaluation.protocols.rows import WORLD_MODEL, Row, trivial_rows
from come_nav.evaluation.suites.nwm.models import imaginer_of, nwm_model_settings, open_dataset, open_model
from come_nav.evaluation.suites.nwm.report import planning_document, write_planning
from come_nav.evaluation.suites.nwm.settings import NwmSuiteSettings
from come_nav.evaluation.suites.progress import Progress, silent
from come_nav.navigation.settings import NavigationSettings
from come_nav.planning.nwm_search import NwmPlanner, NwmSearchSettings
from come_nav.planning.objectives import ImageDistance, LatentDistance
from come_nav.planning.view_distance import ViewDistance
from come_nav.world_model.model import DiffusionWorldModel


@dataclass(frozen=True)
class NwmPlanningOutcome:
    """All figures as JSON values, the folder of the files, and the HTML page or None."""

    document: Mapping[str, Any]
    folder: Path
    page: Path | None


def run_nwm_planning(
    settings: NwmSuiteSettings, navigation: NavigationSettings, folder: Path, progress: Progress = silent
) -> NwmPlanningOutcome:
    """Plan on every window of the data set's index, or go on in ``folder``; write the results and the report.

    Raises:
        ConfigError: for settings that do not fit the data set or the results that are there.
        MissingDependencyError: where the cost needs a library that is not installed.
    """
    dataset = open_dataset(settings)
    search = search_settings(settings, dataset.facts)
    _distance(settings.cost, "cpu")  # an absent library is told before anything is loaded
    model = open_model(settings, navigation, dataset.facts)
    distance = _distance(settings.cost, str(model.device))
    windows = planning_windows(dataset, navigation.seed, settings.windows, model.context_frames)
    rows = [*trivial_rows(), _row(model, search, settings, distance)]
    stored = {
        "protocol": "nwm",
        "dataset": dataset.facts.name,
        "quirks": asdict(settings.quirks),
        "search": asdict(search),
        "cost": settings.cost,
        "seed": navigation.seed,
        "model": nwm_model_settings(model, navigation, settings),
    }
    with (
        ResultStore(writable_folder(folder) / "results.jsonl", stored, settings.fresh) as store,
        progress(len(windows) * len(rows), "plans", "plan", leave=True) as bar,
    ):
        spacing_m = dataset.facts.spacing_m
        records = evaluate_planning(windows, rows, store, spacing_m, settings.quirks, lambda record: bar.add())
    document = planning_document(stored, dataset.facts, records, summarise(records, navigation.seed))
    document["kinematics"] = {row.name: row.kinematics for row in rows}
    document["settings"]["model"]["steps"] = model.sampler.steps
    page = write_planning(folder, document, windows, rows, records, report=settings.report)
    return NwmPlanningOutcome(document, folder, page)


def search_settings(settings: NwmSuiteSettings, facts: DatasetFacts) -> NwmSearchSettings:
    """Return the search that ``settings`` ask for, with the data set's prior where they give none."""
    return NwmSearchSettings(
        prior_mean=facts.prior_mean if settings.prior_mean is None else settings.prior_mean,
        prior_std=facts.prior_std if settings.prior_std is None else settings.prior_std,
        spacing_m=facts.spacing_m,
        samples=settings.samples,
        elites=settings.top_k,
        iterations=settings.iterations,
        repeats=settings.repeats,
        repeat_steps=settings.quirks.repeat_steps,
        turn_pi_twice=settings.quirks.turn_pi_twice,
    )


def _row(
    model: DiffusionWorldModel, search: NwmSearchSettings, settings: NwmSuiteSettings, distance: Distance | None
) -> Row:
    """Return the row of the world model under NWM's search."""
    planner = NwmPlanner(search)

    def plan(window: Window, generator: torch.Generator) -> Plan:
        goal = model.images_from_rgb([window.goal_frame().rgb])
        objective = _objective(settings.cost, goal, model, distance, generator)
        return planner.plan(
            imaginer_of(model, window, settings, decode=settings.cost != "latent"),
            objective,
            generator,
            stamp_s=window.stamp_s,
            dt_s=window.dt_s,
            start_odom_xyyaw=window.start_odom_xyyaw,
        )

    def imagine(window: Window, paths: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return imaginer_of(model, window, settings, decode=True).views(paths, generator)[:, 0].cpu()

    def image(frame: Frame) -> torch.Tensor:
        return model.images_from_rgb([frame.rgb])[0].cpu()

    return Row(WORLD_MODEL, plan, imagine, image, kinematics="straight lines")


def _objective(
    cost: str, goal: torch.Tensor, model: DiffusionWorldModel, distance: Distance | None, generator: torch.Generator
) -> Objective:
    if cost == "latent":
        return LatentDistance(model.encode(goal))
    if cost == "image" or distance is None:
        return ImageDistance(goal[0])
    return ViewDistance(cost, goal[0], distance)


def _distance(cost: str, device: str) -> Distance | None:
    return pair_distance(cost, device) if cost in PAIR_DISTANCES else None
