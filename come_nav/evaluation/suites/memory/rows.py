"""Rows of the recall table: compositions of memory experts, and what geometry or a copy can do without any model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.core.geometry.point_rendering import fill_unseen
from come_nav.core.types import Context
from come_nav.evaluation.protocols.protocol import Window, extrinsics_over_footprint
from come_nav.evaluation.protocols.quality import (
    Batch,
    QualityRow,
    QualityWindow,
    copy_last_row,
    target_extrinsics,
    tilted_as_targets,
)
from come_nav.evaluation.reports.memory_tables import CONTEXT_GEOMETRY, GEOMETRY, NEAREST
from come_nav.evaluation.suites.memory.compositions import (
    BLENDS,
    EXPERTS,
    MEMORY_NET,
    MEMORY_NET_TITLE,
    TITLES,
    ComposedRow,
    CompositionWeights,
)
from come_nav.evaluation.suites.memory.drive_memories import DriveMemories, MemoryCache, experts_of
from come_nav.evaluation.suites.memory.memory_network import memory_network_alone
from come_nav.navigation.settings import ExpertsSettings
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import context_view
from come_nav.world_model.views import blended_images

REFERENCES = ("copy", "nearest", "geometry", "context", MEMORY_NET)
RECALL_ROWS = (*REFERENCES, *TITLES, *BLENDS)


def recall_rows(
    wanted: Sequence[str],
    contrast: str,
    weights: CompositionWeights,
    model: DiffusionWorldModel,
    cache: MemoryCache,
    older_frames: int,
) -> tuple[list[QualityRow], list[ComposedRow]]:
    """Return the rows that ``wanted`` names, in the order of the table, and the compositions among them.

    Copying the last frame and the base are always there: all else is compared with them.
    """
    base = experts_of(weights.composed_row("base", True), model, older_frames)
    contexts = BatchContexts(cache, base)
    rows = [copy_last_row()]
    if "nearest" in wanted:
        rows.append(nearest_row(cache))
    if "geometry" in wanted:
        rows.append(geometry_row(cache, model))
    if "context" in wanted and model.depth is not None:
        rows.append(context_geometry_row(contexts, model))
    if MEMORY_NET in wanted and model.depth is not None:
        rows.append(memory_network_row(memory_network_alone(model), contexts))
    compositions = weights.compositions(wanted, contrast)
    rows += [composition_row(composed_row, cache, contexts, older_frames) for composed_row in compositions]
    return rows, compositions


def available_rows(wanted: Sequence[str], asked: bool, model: DiffusionWorldModel) -> list[str]:
    """Return the rows that this model has experts for; raise ConfigError where one of the others was asked for."""
    if model.depth is not None:
        return list(wanted)
    missing = [key for key in wanted if _needs_views(key)]
    if missing and asked:
        raise ConfigError(f"--rows {', '.join(missing)}: this model looks at no views, so it has no such expert")
    return [key for key in wanted if key not in missing]


def _needs_views(key: str) -> bool:
    return key in ("context", MEMORY_NET) or bool({"short_term", "spatial"} & {*EXPERTS.get(BLENDS.get(key, key), ())})


def nearest_row(cache: MemoryCache) -> QualityRow:
    """Return the row that copies the remembered frame whose pose is nearest to the target's."""

    def imagine(batch: Batch) -> torch.Tensor:
        memories = _memories(cache, batch)
        first = memories.drive.memory.start
        frames = [first + int(index) for index in memories.nearest(target_poses(batch))]
        recording = batch.windows[0].window.recording
        return batch.images([recording.frame(index) for index in frames])[:, None]

    return QualityRow(NEAREST, imagine)


def geometry_row(cache: MemoryCache, model: DiffusionWorldModel) -> QualityRow:
    """Return the row that shows the point cloud itself, its holes filled smoothly; no network takes part."""

    def imagine(batch: Batch) -> torch.Tensor:
        extrinsics = told_extrinsics(batch.windows, cache)
        return geometry_images(_memories(cache, batch), target_poses(batch), extrinsics, model.image_size)[:, None]

    return QualityRow(GEOMETRY, imagine)


def geometry_images(
    memories: DriveMemories, poses_odom_xyyaw: torch.Tensor, T_base_camera: torch.Tensor | None, image_size: int
) -> torch.Tensor:
    """Return what the cloud shows from poses (S, 3), (S, 3, H, W) in [-1, 1], filled from coarser and coarser means."""
    image, known, _ = memories.views.views(poses_odom_xyyaw, image_size, T_base_camera)
    return fill_unseen(image, known.bool())


def start_extrinsics(windows: Sequence[Window]) -> torch.Tensor | None:
    """Return how the camera was mounted over the planar pose at the start of each window (B, 4, 4); None if unknown."""
    extrinsics = [extrinsics_over_footprint(window.recording, [window.start]) for window in windows]
    known = [extrinsics for extrinsics in extrinsics if extrinsics is not None]
    return torch.from_numpy(np.concatenate(known)) if len(known) == len(extrinsics) else None


def told_extrinsics(windows: Sequence[QualityWindow], cache: MemoryCache) -> torch.Tensor | None:
    """Return the extrinsics (B, 4, 4) that targets are looked at with: the start's, or their own where tilt is told."""
    if cache.tilt_told:
        return target_extrinsics(windows)
    return start_extrinsics([item.window for item in windows])


def leaning(context: Context, windows: Sequence[QualityWindow], cache: MemoryCache) -> Context:
    """Return the context of these windows, which looks at the targets with their own tilt where it is told."""
    return tilted_as_targets(context, windows) if cache.tilt_told else context


def context_geometry_row(contexts: BatchContexts, model: DiffusionWorldModel) -> QualityRow:
    """Return the row that shows the context's own points from the target."""

    def imagine(batch: Batch) -> torch.Tensor:
        def shown(own: torch.Tensor, context: Context) -> torch.Tensor:
            actions = batch.actions_xyyaw[own].to(context.latents.device)
            return context_view(context, actions, model.image_size, model.reprojection).filled

        return contexts.each(batch, shown).cpu()[:, None]

    return QualityRow(CONTEXT_GEOMETRY, imagine)


def composition_row(
    composed_row: ComposedRow, cache: MemoryCache, contexts: BatchContexts, older_frames: int
) -> QualityRow:
    """Return the row that composes experts: one prediction for all windows of a batch, decoded.

    Nothing is pasted into its images but in a row that says so by its name.
    """

    def imagine(batch: Batch) -> torch.Tensor:
        memories = _memories(cache, batch)
        model = memories.composed(experts_of(composed_row, memories.model, older_frames))
        latents, actions = contexts.predicted(model, batch), batch.actions_xyyaw
        if not composed_row.blend:
            return model.decode(latents).cpu()[:, None]

        def blended(own: torch.Tensor, context: Context) -> torch.Tensor:
            return blended_images(model, latents[own.to(latents.device)], context, actions[own])

        return contexts.each(batch, blended).cpu()[:, None]

    return QualityRow(composed_row.name, imagine)


def memory_network_row(network: DiffusionWorldModel, contexts: BatchContexts) -> QualityRow:
    """Return the row of the memory network that is asked without a memory: what its training alone is worth."""

    def imagine(batch: Batch) -> torch.Tensor:
        return network.decode(contexts.predicted(network, batch)).cpu()[:, None]

    return QualityRow(MEMORY_NET_TITLE, imagine)


class BatchContexts:
    """What the robot's stack looks at from the starts of a batch; all rows that evaluate the newest batch share it.

    Windows after a gap in the recording have fewer frames before them: those alike go together.
    """

    def __init__(self, cache: MemoryCache, experts: ExpertsSettings, retrieved: bool = False) -> None:
        """Take what the stack looks at; ``retrieved`` frames stand in for the newest before the context, if wanted."""
        self._cache, self._experts, self._retrieved = cache, experts, retrieved
        self._newest: tuple[Batch, list[tuple[torch.Tensor, Context]]] | None = None

    def of(self, batch: Batch) -> list[tuple[torch.Tensor, Context]]:
        """Return the numbers (G,) of windows and their context of batch G, for each kind of windows."""
        if self._newest is None or self._newest[0] is not batch:
            self._newest = (batch, self._made(batch))
        return self._newest[1]

    def predicted(self, model: DiffusionWorldModel, batch: Batch) -> torch.Tensor:
        """Return latents (B, C, h, w) at the targets of a batch; every row draws the same noise."""
        times, actions, generator = batch.rel_frames, batch.actions_xyyaw, batch.generator()
        return self.each(batch, lambda own, context: model.predict(context, actions[own], times[own], generator))

    def each(self, batch: Batch, function: Callable[[torch.Tensor, Context], torch.Tensor]) -> torch.Tensor:
        """Return (B, ...) of a function from the numbers (G,) of windows and their context to (G, ...)."""
        parts = [(own, function(own, context)) for own, context in self.of(batch)]
        order = torch.cat([own for own, _ in parts]).argsort()
        values = torch.cat([part for _, part in parts])
        return values[order.to(values.device)]

    def _made(self, batch: Batch) -> list[tuple[torch.Tensor, Context]]:
        memories = _memories(self._cache, batch)
        replay = memories.replay
        alike: dict[tuple[int, int], list[tuple[int, Context]]] = {}
        for number, item in enumerate(batch.windows):
            context = replay.context(item.window, self._experts)
            if self._retrieved:
                context = memories.retrieved_past(item.window, self._experts)
            context = leaning(_placed(context, item.window), [item], self._cache)
            older = 0 if context.older_points is None else context.older_points.xyz.shape[1]
            alike.setdefault((len(replay.stack.memory), older), []).append((number, context))
        return [
            (torch.tensor([number for number, _ in found]), Context.joined([context for _, context in found]))
            for found in alike.values()
        ]


def _placed(context: Context, window: Window) -> Context:
    """Return a context that tells where it stands in odom: rows share it, and adapters and clouds are keyed by that."""
    if context.absolute_pose_xyyaw is not None:
        return context
    start = torch.from_numpy(np.asarray(window.start_odom_xyyaw, np.float64))[None]
    return replace(context, absolute_pose_xyyaw=start.to(context.latents.device))


def target_poses(batch: Batch) -> torch.Tensor:
    """Return the poses (B, 3) of the targets in odom, as the robot believes."""
    starts = np.stack([item.window.start_odom_xyyaw for item in batch.windows])
    return torch.from_numpy(se2.compose(starts, np.concatenate([item.poses_xyyaw for item in batch.windows])))


def _memories(cache: MemoryCache, batch: Batch) -> DriveMemories:
    return cache.of(batch.windows[0].window.recording_id)
