"""Rows of the recall table that are there where they are asked for: other ways in which memories enter."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.experts import SPATIAL
from come_nav.core.geometry import se2
from come_nav.core.types import Context
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.protocols.quality import Batch, QualityRow
from come_nav.evaluation.suites.memory.drive_memories import DriveMemories, MemoryCache
from come_nav.evaluation.suites.memory.rows import BatchContexts, leaning
from come_nav.navigation.settings import ExpertsSettings
from come_nav.world_model.calibration.prior import LikelihoodPriorSettings
from come_nav.world_model.model import DiffusionWorldModel

LIKELIHOOD, ADAPTED_LIKELIHOOD, RETRIEVED = "likelihood", "base+ltm+likelihood", "retrieved"
STM_RETRIEVED = "stm-retrieved"
OPTIONAL_ROWS = (LIKELIHOOD, ADAPTED_LIKELIHOOD, RETRIEVED, STM_RETRIEVED)
LIKELIHOOD_TITLE, RETRIEVED_TITLE = "base + likelihood", "retrieved context"
ADAPTED_LIKELIHOOD_TITLE, STM_RETRIEVED_TITLE = "base+LTM + likelihood", "STM, retrieved frames"
GUIDED = {LIKELIHOOD: LIKELIHOOD_TITLE, ADAPTED_LIKELIHOOD: ADAPTED_LIKELIHOOD_TITLE}  # any model can have these
GUIDED_ON = {LIKELIHOOD: "base", ADAPTED_LIKELIHOOD: "base+ltm"}  # the row whose product the spatial memory corrects


def optional_rows(
    wanted: Collection[str], cache: MemoryCache, base: ExpertsSettings, adapted: ExpertsSettings
) -> list[QualityRow]:
    """Return the rows among OPTIONAL_ROWS that are wanted.

    Args:
        wanted: keys of rows.
        cache: of memories.
        base: what the base looks at.
        adapted: what the base and the long-term expert look at.
    """
    rows = []
    if LIKELIHOOD in wanted:
        rows.append(likelihood_row(LIKELIHOOD_TITLE, cache, BatchContexts(cache, base), base))
    if ADAPTED_LIKELIHOOD in wanted:
        rows.append(likelihood_row(ADAPTED_LIKELIHOOD_TITLE, cache, BatchContexts(cache, base), adapted))
    if RETRIEVED in wanted:
        rows.append(retrieved_row(cache, base))
    if STM_RETRIEVED in wanted:
        rows.append(retrieved_past_row(cache, base))
    return rows


def likelihood_row(title: str, cache: MemoryCache, contexts: BatchContexts, experts: ExpertsSettings) -> QualityRow:
    """Return the row of experts, corrected by what the spatial memory shows, as far as experts.likelihood trusts it.

    Any model has it: no network looks at the memory.
    """

    def imagine(batch: Batch) -> torch.Tensor:
        memories = cache.of(batch.windows[0].window.recording_id)
        model = memories.composed(guided(experts, memories.settings.experts.likelihood))
        return model.decode(contexts.predicted(model, batch)).cpu()[:, None]

    return QualityRow(title, imagine)


def guided(experts: ExpertsSettings, prior: LikelihoodPriorSettings) -> ExpertsSettings:
    """Return the same experts, whose product the spatial memory corrects as far as ``prior`` trusts it."""
    use = (*(name for name in experts.use if name != SPATIAL), SPATIAL)
    return replace(experts, use=use, spatial=1.0, likelihood=replace(prior, use=True))


def retrieved_row(cache: MemoryCache, base: ExpertsSettings) -> QualityRow:
    """Return the row of the base whose context is the newest frame and remembered ones that show the target's view.

    The network is the one that learned to look at the newest frames: nothing was trained for this.
    """

    def imagine(batch: Batch) -> torch.Tensor:
        memories = cache.of(batch.windows[0].window.recording_id)
        model, actions = memories.composed(base), batch.actions_xyyaw
        found = [
            retrieved_context(memories, model, item.window, action.double().numpy())
            for item, action in zip(batch.windows, actions, strict=True)
        ]
        context = leaning(Context.joined(found), batch.windows, cache)
        latents = model.predict(context, actions, batch.rel_frames, batch.generator())
        return model.decode(latents).cpu()[:, None]

    return QualityRow(RETRIEVED_TITLE, imagine)


def retrieved_past_row(cache: MemoryCache, base: ExpertsSettings) -> QualityRow:
    """Return the row of the short-term expert alone, which sees remembered frames in place of the newest ones.

    They are chosen as the robot chooses them (``retrieval``): for what lies ahead of it, without knowing the target.
    """
    contexts = BatchContexts(cache, base, retrieved=True)
    alone = replace(base, use=("short_term",), mode="average", base=0.0, short_term=1.0)

    def imagine(batch: Batch) -> torch.Tensor:
        memories = cache.of(batch.windows[0].window.recording_id)
        return memories.model.decode(contexts.predicted(memories.composed(alone), batch)).cpu()[:, None]

    return QualityRow(STM_RETRIEVED_TITLE, imagine)


def retrieved_context(
    memories: DriveMemories, model: DiffusionWorldModel, window: Window, action_xyyaw: NDArray[np.float64]
) -> Context:
    """Return the context of remembered frames that show the target, oldest first, and the newest frame.

    Where too few show any of it, the frames before the newest one fill up.
    """
    recording, start = window.recording, np.asarray(window.start_odom_xyyaw)
    wanted = model.context_frames - 1
    newest = recording.frame(window.start).over_footprint(recording.T_odom_base[window.start])
    camera, extrinsics = newest.intrinsics, newest.T_base_camera
    frames, poses = [newest], [start]
    if camera is not None and extrinsics is not None:
        target = se2.compose(start, action_xyyaw)
        retrieval, kept = memories.retrieval
        chosen = retrieval.query(target, camera, extrinsics, wanted, newest.stamp_s).indices
        for number in sorted((kept[index] for index in chosen), reverse=True):
            index = memories.drive.memory.start + number
            frames.insert(0, recording.frame(index).over_footprint(recording.T_odom_base[index]))
            poses.insert(0, memories.poses_xyyaw[number].numpy())
    missing = wanted + 1 - len(frames)
    for index in list(window.context)[-1 - missing : -1]:
        frames.insert(len(frames) - 1, recording.frame(index).over_footprint(recording.T_odom_base[index]))
        poses.insert(len(poses) - 1, np.asarray(recording.poses_xyyaw[index]))
    offsets = [(frame.stamp_s - newest.stamp_s) * model.rate_hz for frame in frames]
    return model.context_from_frames(frames, np.stack(poses), offsets, absolute_pose_xyyaw=start)
