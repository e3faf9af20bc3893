"""``--suite memory-planning``: plans to views that only memory knows, by memory experts, geometry and copies."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from come_nav.cli.evaluate import (
    Outcome,
    chosen_rows,
    parse_horizons,
    prepare,
)
from come_nav.cli.output import Steps, format_table, outcome_document, print_files, print_json
from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.core.protocols import Imaginer
from come_nav.core.settings import to_mapping
from come_nav.core.types import Imagination
from come_nav.evaluation.protocols.protocol import ProtocolSettings, Window
from come_nav.evaluation.protocols.results import ResultStore, evaluate_windows
from come_nav.evaluation.protocols.rows import CONSTANT_VELOCITY, Row, trivial_rows
from come_nav.evaluation.reports.memory_tables import GEOMETRY, NEAREST
from come_nav.evaluation.reports.report import Evaluation, write_report, write_results
from come_nav.evaluation.reports.tables import gap_lines, plan_lines, planning_table, ratio_lines
from come_nav.evaluation.suites.compositions import TITLES, ComposedRow, base_row, main_row, weight_lines
from come_nav.evaluation.suites.memory import load_weights, memory_cache, memory_settings, suite_settings
from come_nav.evaluation.suites.memory_cache import Memories, MemoryCache
from come_nav.evaluation.suites.memory_inputs import MemoryInput, Selection, open_memory_input, select_windows
from come_nav.evaluation.suites.memory_rows import (
    NewestContext,
    available_rows,
    geometry_images,
    memory_context,
    start_extrinsics,
)
from come_nav.evaluation.suites.planning_rows import MakeImaginer, frames_ahead, imagining_row, perfect_model_row
from come_nav.navigation.loading import load_configured_model
from come_nav.world_model.model import DiffusionWorldModel

if TYPE_CHECKING:
    from come_nav.config import Config

REFERENCES = ("perfect", "nearest", "geometry")
PLANNING_ROWS = (*REFERENCES, *TITLES)
DEFAULT_ROWS = "perfect,nearest,geometry,base,stm,ltm,sltm,all"
DEFAULT_HORIZON_S = "2"


@dataclass(frozen=True)
class MemoryPlanning:
    """A finished evaluation with what belongs to memories."""

    outcome: Outcome
    selection: Selection
    compositions: list[ComposedRow]


def run(args: argparse.Namespace) -> int:
    """Evaluate plans, or go on; print the tables and where the report is."""
    done = evaluate_memory_planning(args)
    if args.json:
        print_json(outcome_document(done.outcome))
    else:
        print_planning(done)
    return 0


def evaluate_memory_planning(args: argparse.Namespace) -> MemoryPlanning:
    """Evaluate plans as the flags of the verb say; write the results and the report."""
    wanted = chosen_rows(args.rows or DEFAULT_ROWS, PLANNING_ROWS)
    config, folder = prepare(args)
    weights, settings = load_weights(args, config), memory_settings(config)
    model = load_configured_model(config)
    horizons = parse_horizons(args.horizon or DEFAULT_HORIZON_S, model.rate_hz)
    if len(horizons) > 1:
        raise ConfigError(f"--horizon takes one number of seconds for plans, got '{args.horizon}'")
    protocol = ProtocolSettings(model.context_frames, horizons[0], model.rate_hz, seed=config.seed)
    found = open_memory_input(args, config, model.rate_hz, horizons[0])
    count = found.source.default_windows if args.windows is None else args.windows
    with Steps(len(found.drives), "looking for windows", "drive") as progress:
        selection = select_windows(found, protocol, range(horizons[0], horizons[0] + 1), count, progress.add)
    cache = memory_cache(model, config, found.drives, folder, settings)
    keys = available_rows(wanted, args.rows is not None, model)
    contrast = "off" if args.contrast == "off" else "on" if args.rows is None else args.contrast
    compositions = weights.compositions(keys, contrast)
    rows = planning_rows(keys, compositions, found, config, model, cache)
    stored = suite_settings(found.source.fingerprint, to_mapping(protocol), config, model, weights, settings) | {
        "limits": to_mapping(selection.limits),
        "planner": to_mapping(config.planner),
        "objective": to_mapping(config.objective),
        "imagination": config.imagination,
    }
    evaluation = _evaluate(args, folder, found, selection, rows, compositions, stored, config)
    write_results(folder, evaluation)
    page = None if args.no_report else write_report(folder, evaluation)
    return MemoryPlanning(Outcome(found.source, evaluation, folder, page), selection, compositions)


def planning_rows(
    keys: Sequence[str],
    compositions: Sequence[ComposedRow],
    found: MemoryInput,
    config: Config,
    model: DiffusionWorldModel,
    cache: MemoryCache,
) -> list[Row]:
    """Return the rows in the order of the table; the trivial ones and the base are always there."""
    rows = trivial_rows()
    if "perfect" in keys and found.source.places:
        rows.append(perfect_model_row(found.source.places, config, model))

    def geometry(window: Window, decode: bool) -> Imaginer:
        return GeometryImaginer(cache.of(window.recording_id), window, model, decode)

    def nearest(window: Window, decode: bool) -> Imaginer:
        return NearestImaginer(cache.of(window.recording_id), window.start_odom_xyyaw, decode)

    if "nearest" in keys:
        rows.append(imagining_row(NEAREST, nearest, config, model))
    if "geometry" in keys:
        rows.append(imagining_row(GEOMETRY, geometry, config, model))
    contexts = NewestContext[Window](lambda window: memory_context(model, window, config.experts.older_frames))
    for composed_row in compositions:
        rows.append(imagining_row(composed_row.name, _composed(composed_row, cache, contexts, config), config, model))
    return rows


def _composed(
    composed_row: ComposedRow, cache: MemoryCache, contexts: NewestContext[Window], config: Config
) -> MakeImaginer:
    def imaginer(window: Window, decode: bool) -> Imaginer:
        model = cache.of(window.recording_id).composed(composed_row)
        return model.imaginer(contexts.of(window), frames_ahead(window, config), config.imagination, decode=decode)

    return imaginer


class GeometryImaginer:
    """Imaginer that shows the remembered point cloud from the end of each candidate, without any network."""

    def __init__(self, memories: Memories, window: Window, model: DiffusionWorldModel, decode: bool) -> None:
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

    def __init__(self, memories: Memories, start_odom_xyyaw: np.ndarray[Any, Any], decode: bool) -> None:
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


def _evaluate(
    args: argparse.Namespace,
    folder: Path,
    found: MemoryInput,
    selection: Selection,
    rows: list[Row],
    compositions: list[ComposedRow],
    stored: dict[str, Any],
    config: Config,
) -> Evaluation:
    from come_nav.evaluation.suites.inputs import machine_facts

    windows = [window.window for window in selection.windows]
    with ResultStore(folder / "results.jsonl", stored, args.fresh) as store:
        with Steps(len(windows) * sum(len(row.names) for row in rows), "plans", "plan") as progress:
            evaluate_windows(windows, rows, store, lambda record: progress.add(record["row"]))
        records = {name: store.table(windows, name) for row in rows for name in row.names}
    notes = {f"note {number}": note for number, note in enumerate(selection.notes, start=1)}
    shown = {composed_row.name: dict(composed_row.weights) for composed_row in compositions}
    return Evaluation(
        title=found.source.title,
        windows=windows,
        rows=rows,
        records=records,
        table=planning_table(windows, records, config.seed, found.source.groups),
        settings={"windows": len(windows), **stored},
        facts={**notes, "weights": shown, **found.source.facts, **machine_facts()},
        map_of=found.source.map_of,
        main=main_row(compositions),
    )


def print_planning(done: MemoryPlanning) -> None:
    """Print the tables, the weights, the notes and where the files are."""
    evaluation, outcome = done.outcome.evaluation, done.outcome
    table = evaluation.table
    print(f"{evaluation.title}: {len(evaluation.windows)} windows, one spacing is {table.spacing_m:.3f} m")
    print(f"targets: {done.selection.limits.describe()}")
    for note in done.selection.notes:
        print(note)
    print("\n" + format_table(*plan_lines(table)))
    if table.gap_closure:
        print("\n" + format_table(*gap_lines(table)))
    base = base_row(done.compositions)
    print("\n" + format_table(*ratio_lines(table, [base, CONSTANT_VELOCITY, GEOMETRY, NEAREST])))
    print("\n" + format_table(*weight_lines(done.compositions)))
    print_files(outcome.folder, outcome.page)
