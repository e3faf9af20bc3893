"""Rows of the recall table: compositions of memory experts, and what geometry or a copy can do without any model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.core.geometry.point_rendering import fill_unseen
from come_nav.core.types import Context
from come_nav.evaluation.protocols.protocol import Window, extrinsics_over_footprint
from come_nav.evaluation.protocols.quality import Batch, QualityRow, copy_last_row
from come_nav.evaluation.reports.memory_tables import CONTEXT_GEOMETRY, GEOMETRY, NEAREST
from come_nav.evaluation.suites.memory.cache import Memories, MemoryCache
from come_nav.evaluation.suites.memory.compositions import EXPERTS, TITLES, ComposedRow, CompositionWeights
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import context_view

REFERENCES = ("copy", "nearest", "geometry", "context")
RECALL_ROWS = (*REFERENCES, *TITLES)
AskedT = TypeVar("AskedT")


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
    contexts = batch_contexts(model, older_frames)
    rows = [copy_last_row()]
    if "nearest" in wanted:
        rows.append(nearest_row(cache))
    if "geometry" in wanted:
        rows.append(geometry_row(cache, model))
    if "context" in wanted and model.depth is not None:
        rows.append(context_geometry_row(contexts, model))
    compositions = weights.compositions(wanted, contrast)
    rows += [composition_row(composed_row, cache, contexts) for composed_row in compositions]
    return rows, compositions


def available_rows(wanted: Sequence[str], asked: bool, model: DiffusionWorldModel) -> list[str]:
    """Return the rows that this model has experts for; raise ConfigError where one of the others was asked for."""
    if model.depth is not None:
        return list(wanted)
    missing = [key for key in wanted if {"short_term", "spatial"} & {*EXPERTS.get(key, ())} or key == "context"]
    if missing and asked:
        raise ConfigError(f"--rows {', '.join(missing)}: this model looks at no views, so it has no such expert")
    return [key for key in wanted if key not in missing]


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
        extrinsics = start_extrinsics([item.window for item in batch.windows])
        return geometry_images(_memories(cache, batch), target_poses(batch), extrinsics, model.image_size)[:, None]

    return QualityRow(GEOMETRY, imagine)


def geometry_images(
    memories: Memories, poses_odom_xyyaw: torch.Tensor, T_base_camera: torch.Tensor | None, image_size: int
) -> torch.Tensor:
    """Return what the cloud shows from poses (S, 3), (S, 3, H, W) in [-1, 1], filled from coarser and coarser means."""
    image, known, _ = memories.views.views(poses_odom_xyyaw.float(), image_size, T_base_camera)
    return fill_unseen(image, known.bool())


def start_extrinsics(windows: Sequence[Window]) -> torch.Tensor | None:
    """Return how the camera was mounted over the planar pose at the start of each window (B, 4, 4); None if unknown."""
    extrinsics = [extrinsics_over_footprint(window.recording, [window.start]) for window in windows]
    known = [extrinsics for extrinsics in extrinsics if extrinsics is not None]
    return torch.from_numpy(np.concatenate(known)) if len(known) == len(extrinsics) else None


def context_geometry_row(contexts: NewestContext[Batch], model: DiffusionWorldModel) -> QualityRow:
    """Return the row that shows the context's own points (of estimated depth) from the target."""

    def imagine(batch: Batch) -> torch.Tensor:
        context = contexts.of(batch)
        actions = actions_of(batch).to(context.latents.device)
        view = context_view(context, actions, model.image_size, model.reprojection)
        return view.filled.cpu()[:, None]

    return QualityRow(CONTEXT_GEOMETRY, imagine)


def composition_row(composed_row: ComposedRow, cache: MemoryCache, contexts: NewestContext[Batch]) -> QualityRow:
    """Return the row that composes experts: one prediction for all windows of a batch."""

    def imagine(batch: Batch) -> torch.Tensor:
        model = _memories(cache, batch).composed(composed_row)
        times = torch.from_numpy(np.concatenate([item.rel_frames for item in batch.windows])).float()
        context, actions = contexts.of(batch), actions_of(batch)
        latents = model.predict(context, actions, times, batch.generator(model.device))
        return model.decode(latents).cpu()[:, None]

    return QualityRow(composed_row.name, imagine)


class NewestContext(Generic[AskedT]):
    """The context of the window or batch that was asked for last: all rows that evaluate it share it."""

    def __init__(self, make: Callable[[AskedT], Context]) -> None:
        self._make = make
        self._newest: tuple[AskedT, Context] | None = None

    def of(self, asked: AskedT) -> Context:
        """Return the context of ``asked``."""
        if self._newest is None or self._newest[0] is not asked:
            self._newest = (asked, self._make(asked))
        return self._newest[1]


def batch_contexts(model: DiffusionWorldModel, older_frames: int) -> NewestContext[Batch]:
    """Return what makes the contexts of a batch's windows, joined."""

    def make(batch: Batch) -> Context:
        return Context.joined([memory_context(model, item.window, older_frames) for item in batch.windows])

    return NewestContext(make)


def memory_context(model: DiffusionWorldModel, window: Window, older_frames: int) -> Context:
    """Return a window's context with the frames before it and with its pose in odom: all that experts may ask for."""
    poses = np.asarray(window.recording.poses_xyyaw, float)
    older = range(max(0, window.context[0] - older_frames), window.context[0])
    past = window.over_footprint([window.recording.frame(index) for index in older], older)
    return model.context_from_frames(
        window.over_footprint(window.context_frames()),
        poses[list(window.context)],
        (window.context_stamps_s * model.rate_hz).tolist(),
        older=list(zip(past, poses[list(older)], strict=True)),
        absolute_pose_xyyaw=poses[window.start],
    )


def actions_of(batch: Batch) -> torch.Tensor:
    """Return where each target lies (B, 3) in its start frame, as the robot believes."""
    return torch.from_numpy(np.concatenate([item.poses_xyyaw for item in batch.windows])).float()


def target_poses(batch: Batch) -> torch.Tensor:
    """Return the poses (B, 3) of the targets in odom, as the robot believes."""
    starts = np.stack([item.window.start_odom_xyyaw for item in batch.windows])
    return torch.from_numpy(se2.compose(starts, np.concatenate([item.poses_xyyaw for item in batch.windows])))


def _memories(cache: MemoryCache, batch: Batch) -> Memories:
    return cache.of(batch.windows[0].window.recording_id)
