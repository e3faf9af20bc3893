"""Suite "memory-planning": plans to views that only memory knows, by memory experts, geometry and copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from come_nav.core.geometry import se2
from come_nav.core.protocols import Imaginer
from come_nav.core.settings import to_mapping
from come_nav.core.types import Imagination
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.protocols.results import ResultStore, evaluate_windows
from come_nav.evaluation.protocols.rows import HYBRID, Row, trivial_rows
from come_nav.evaluation.reports.memory_tables import GEOMETRY, NEAREST
from come_nav.evaluation.reports.report import Evaluation, write_report, write_results
from come_nav.evaluation.reports.tables import planning_table
from come_nav.evaluation.suites.fingerprints import machine_facts, planner_settings
from come_nav.evaluation.suites.inputs import one_horizon
from come_nav.evaluation.suites.kinematics import kinematics_by_row, stored_motion, with_kinematics
from come_nav.evaluation.suites.memory.compositions import (
    MEMORY_NET,
    MEMORY_NET_TITLE,
    TITLES,
    ComposedRow,
    base_notes,
    main_row,
)
from come_nav.evaluation.suites.memory.drive_memories import DriveMemories, MemoryCache, experts_of
from come_nav.evaluation.suites.memory.drives import Selection
from come_nav.evaluation.suites.memory.memory_network import memory_network_alone
from come_nav.evaluation.suites.memory.optional_rows import GUIDED, GUIDED_ON, guided
from come_nav.evaluation.suites.memory.passes import passes_of_rows
from come_nav.evaluation.suites.memory.rows import available_rows, geometry_images, start_extrinsics
from come_nav.evaluation.suites.memory.sequence_rows import (
    load_sequences,
    sequence_planning_rows,
    stored_sequences,
)
from come_nav.evaluation.suites.memory.settings import IMAGES, MemorySuiteSettings, stored_settings
from come_nav.evaluation.suites.memory.setup import MemorySetup, set_up
from come_nav.evaluation.suites.outcome import Outcome
from come_nav.evaluation.suites.planning_rows import ReplayOf, perfect_model_row, searching_row
from come_nav.evaluation.suites.policy_rows import Searcher, load_policies, policy_rows, stored_policies
from come_nav.evaluation.suites.progress import Progress, silent
from come_nav.evaluation.suites.registration_rows import (
    registration_facts,
    registration_row,
    stored_registration,
    too_narrow,
)
from come_nav.evaluation.suites.replay import Replay
from come_nav.navigation.loading import load_configured_model
from come_nav.navigation.planning.imagining import bound
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
from come_nav.world_model.model import DiffusionWorldModel

REFERENCES = ("perfect", "nearest", "geometry", "hybrid", MEMORY_NET)
MEMORY_PLANNING_ROWS = (*REFERENCES, *TITLES, *GUIDED)
DEFAULT_ROWS = ("perfect", "nearest", "geometry", "hybrid", MEMORY_NET, "base", "stm", "ltm", "sltm", "all")
HORIZON_S = (2.0,)


@dataclass(frozen=True)
class MemoryPlanningOutcome(Outcome[Evaluation]):
    """Plans with what belongs to memories: windows, the experts of each row with their weights, what must be known."""

    selection: Selection
    compositions: list[ComposedRow]
    notes: list[str]


def run_memory_planning(
    settings: MemorySuiteSettings, navigation: NavigationSettings, folder: Path, progress: Progress = silent
) -> MemoryPlanningOutcome:
    """Evaluate plans to remembered views, or go on in ``folder``; write the results and the report.

    Raises:
        ConfigError: for settings that do not fit the input or the results that are there, or rows without experts.
        DataError: where no window fits.
    """
    model = load_configured_model(navigation)
    steps = one_horizon(settings.horizons_s or HORIZON_S, model.rate_hz)
    setup = set_up(settings, navigation, folder, progress, model, range(steps, steps + 1))
    keys = available_rows(settings.rows or DEFAULT_ROWS, settings.rows is not None, model)
    contrast = "on" if settings.rows is None and settings.contrast != "off" else settings.contrast
    compositions = settings.weights.compositions(keys, contrast)
    adapted = [settings.weights.composed_row(GUIDED_ON[key], True) for key in GUIDED if key in keys]
    rows = planning_rows(keys, compositions, setup, setup.cache([*compositions, *adapted]))
    evaluation = _evaluate(setup, rows, compositions)
    write_results(folder, evaluation)
    page = write_report(folder, evaluation) if settings.report else None
    notes = [*setup.selection.notes, *base_notes(model.depth is not None)]
    return MemoryPlanningOutcome(setup.found.source, evaluation, folder, page, setup.selection, compositions, notes)


def planning_rows(
    keys: Sequence[str], compositions: Sequence[ComposedRow], setup: MemorySetup, cache: MemoryCache
) -> list[Row]:
    """Return the rows in the order of the table; the trivial ones and the base are always there."""
    navigation, model, places = setup.navigation, setup.model, setup.found.source.places
    older_frames = navigation.experts.older_frames
    rows = trivial_rows(navigation.robot)
    if "perfect" in keys and places:
        rows.append(perfect_model_row(places, navigation, model))

    def replay_of(window: Window) -> Replay:
        return cache.of(window.recording_id).replay

    def geometry(window: Window, decode: bool) -> Imaginer:
        return GeometryImaginer(cache.of(window.recording_id), window, model, decode)

    def nearest(window: Window, decode: bool) -> Imaginer:
        return NearestImaginer(cache.of(window.recording_id), window.start_odom_xyyaw, decode)

    narrow = too_narrow(setup.found.source, navigation)
    if not narrow:
        rows.append(registration_row(navigation, replay_of))
    if "nearest" in keys:
        rows.append(searching_row(NEAREST, replay_of, model, make=nearest))
    if "geometry" in keys:
        rows.append(searching_row(GEOMETRY, replay_of, model, make=geometry))
    if MEMORY_NET in keys:
        told = experts_of(setup.settings.weights.composed_row("base", True), model, older_frames)
        rows.append(_memory_network_row(memory_network_alone(model), replay_of, model, told))
    rows += _composed_rows(keys, compositions, setup, cache, registers="hybrid" in keys and not narrow)
    sequences = load_sequences(setup.settings.sequences, navigation, model)
    rows += sequence_planning_rows(sequences, cache, older_frames, replay_of, model)
    if setup.settings.policies:
        main = next(row for row in compositions if row.name == main_row(compositions))
        searcher = Searcher(main.name, replay_of, model, experts_of(main, model, older_frames))
        rows += policy_rows(load_policies(setup.settings.policies, navigation), navigation, searcher)
    return with_kinematics(rows, navigation.robot)


def _composed_rows(
    keys: Sequence[str], compositions: Sequence[ComposedRow], setup: MemorySetup, cache: MemoryCache, registers: bool
) -> list[Row]:
    """Return the rows of the compositions, and of those that the memory corrects as a likelihood.

    The main one is there again as the robot plans where it ``registers`` goals as well.
    """
    navigation, model, main = setup.navigation, setup.model, main_row(compositions)

    def composed(name: str, experts: ExpertsSettings, registers: bool = False) -> Row:
        def checked(window: Window) -> Replay:
            memories = cache.of(window.recording_id)
            memories.composed(experts)  # an expert that cannot work is no warning here
            return memories.replay

        return searching_row(name, checked, model, experts, registers=registers)

    rows = []
    for row in compositions:
        experts = experts_of(row, model, navigation.experts.older_frames)
        rows.append(composed(row.name, experts))
        if row.name == main and registers:
            rows.append(replace(composed(HYBRID, experts, registers=True), imagine=None))
    for key in (key for key in GUIDED if key in keys):
        own = setup.settings.weights.composed_row(GUIDED_ON[key], True)
        experts = guided(experts_of(own, model, navigation.experts.older_frames), navigation.experts.likelihood)
        rows.append(composed(GUIDED[key], experts))
    return rows


def _memory_network_row(
    network: DiffusionWorldModel, replay_of: ReplayOf, model: DiffusionWorldModel, told: ExpertsSettings
) -> Row:
    def imaginer(window: Window, decode: bool) -> Imaginer:
        replay = replay_of(window)
        search, settings = replay.search_of(window), replay.stack.settings
        return bound(network, replay.context(window, told), search, settings, decode)

    return searching_row(MEMORY_NET_TITLE, replay_of, model, make=imaginer)


class GeometryImaginer:
    """Imaginer that shows the remembered point cloud from the end of each candidate, without any network."""

    def __init__(self, memories: DriveMemories, window: Window, model: DiffusionWorldModel, decode: bool) -> None:
        self._memories, self._model, self._decode = memories, model, decode
        self._start, self._extrinsics = torch.from_numpy(window.start_odom_xyyaw), start_extrinsics([window])

    def imagine(self, poses_xyyaw: torch.Tensor, generator: torch.Generator) -> Imagination:
        """Render and encode the views at the last poses of candidates (S, T, 3)."""
        ends = ends_in_odom(self._start, poses_xyyaw)
        images = geometry_images(self._memories, ends, self._extrinsics, self._model.image_size)
        latents = self._model.encode(images).to(poses_xyyaw)
        return Imagination(poses_xyyaw, latents, images.to(poses_xyyaw) if self._decode else None)


class NearestImaginer:
    """Imaginer that shows, at the end of each candidate, the remembered frame nearest in pose."""

    def __init__(self, memories: DriveMemories, start_odom_xyyaw: np.ndarray[Any, Any], decode: bool) -> None:
        self._memories, self._decode = memories, decode
        self._start = torch.from_numpy(np.asarray(start_odom_xyyaw, float))

    def imagine(self, poses_xyyaw: torch.Tensor, generator: torch.Generator) -> Imagination:
        """Copy remembered latents, and images where they are asked for."""
        index = self._memories.nearest(ends_in_odom(self._start, poses_xyyaw))
        latents = self._memories.latents[index.to(self._memories.latents.device)]
        images = self._memories.images(index).to(poses_xyyaw) if self._decode else None
        return Imagination(poses_xyyaw, latents.to(poses_xyyaw), images)


def ends_in_odom(start_odom_xyyaw: torch.Tensor, poses_xyyaw: torch.Tensor) -> torch.Tensor:
    """Return where candidates (S, T, 3) in the start frame end in odom, (S, 3)."""
    ends: torch.Tensor = se2.compose(start_odom_xyyaw.expand(len(poses_xyyaw), 3), poses_xyyaw[:, -1].double().cpu())
    return ends


def _evaluate(setup: MemorySetup, rows: list[Row], compositions: list[ComposedRow]) -> Evaluation:
    navigation, source, selection = setup.navigation, setup.found.source, setup.selection
    windows, narrow = [window.window for window in selection.windows], too_narrow(source, navigation)
    stored: dict[str, Any] = stored_settings(
        source.fingerprint, to_mapping(setup.protocol), navigation, setup.model, setup.settings.weights
    ) | {
        "limits": selection.stored,
        "planner": planner_settings(navigation.planner),
        "objective": to_mapping(navigation.objective),
        "imagination": navigation.imagination,
        "images": IMAGES,
        **stored_motion(navigation),
        **stored_policies(setup.settings.policies),
        **stored_sequences(setup.settings.sequences),
        **stored_registration(navigation, narrow),
    }
    with ResultStore(setup.folder / "results.jsonl", stored, setup.settings.fresh) as store:
        with setup.progress(len(windows) * sum(len(row.names) for row in rows), "plans", "plan") as bar:
            evaluate_windows(windows, rows, store, lambda record: bar.add(record["row"]))
        records = {name: store.table(windows, name) for row in rows for name in row.names}
    views = setup.model.depth is not None
    notes = {f"note {number}": note for number, note in enumerate([*selection.notes, *base_notes(views)], start=1)}
    shown = {composed_row.name: dict(composed_row.weights) for composed_row in compositions}
    return Evaluation(
        title=source.title,
        windows=windows,
        rows=rows,
        records=records,
        table=planning_table(
            windows, records, navigation.seed, source.groups, setup.settings.success, kinematics_by_row(rows)
        ),
        settings={"windows": len(windows), **stored},
        facts={**notes, **registration_facts(narrow), "weights": shown, **source.facts, **machine_facts()},
        map_of=source.map_of,
        main=main_row(compositions),
        passes=passes_of_rows(
            compositions, setup.model, memory_network=any(row.name == MEMORY_NET_TITLE for row in rows)
        ),
    )
