"""Rows of the quality table that need a world model: its autoencoder, its jump and its rollout, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from come_nav.core.types import Context, Frame
from come_nav.evaluation.protocols.quality import (
    AUTOENCODER,
    JUMP,
    ROLLOUT,
    TILTED_JUMP,
    Batch,
    ImagesFunction,
    QualityRow,
    copy_last_row,
    depth_warp_row,
    tilted_as_targets,
)
from come_nav.evaluation.suites.camera_model import unit_image
from come_nav.evaluation.suites.replay import Replay, open_loop
from come_nav.navigation.settings import NavigationSettings
from come_nav.navigation.stack import NavStack
from come_nav.world_model.model import DiffusionWorldModel


def quality_rows(
    wanted: Sequence[str], model: DiffusionWorldModel | None, navigation: NavigationSettings
) -> list[QualityRow]:
    """Return the rows that ``wanted`` names, in the order of the table; copying the last frame is always there."""
    rows = [copy_last_row()]
    if "depth" in wanted:
        rows.append(depth_warp_row())
    if model is not None:
        made: dict[str, Callable[[], QualityRow]] = {
            "autoencoder": lambda: autoencoder_row(model),
            "jump": lambda: jump_row(model, navigation),
            "tilted": lambda: jump_row(model, navigation, tilt_told=True),
            "rollout": lambda: rollout_row(model, navigation),
        }
        rows += [make() for name, make in made.items() if name in wanted]
    return rows


def images_of(model: DiffusionWorldModel | None) -> ImagesFunction:
    """Return how frames become the images that are compared: as the model sees them, or as they are without one."""

    def seen(frames: Sequence[Frame]) -> torch.Tensor:
        assert model is not None
        return model.images_from_rgb([frame.rgb for frame in frames]).cpu()

    def as_they_are(frames: Sequence[Frame]) -> torch.Tensor:
        return torch.stack([unit_image(frame.rgb) for frame in frames])

    return as_they_are if model is None else seen


def autoencoder_row(model: DiffusionWorldModel) -> QualityRow:
    """Return the row that encodes and decodes the true image."""

    def imagine(batch: Batch) -> torch.Tensor:
        return model.decode(model.encode(batch.truth.flatten(0, 1))).cpu().view_as(batch.truth)

    return QualityRow(AUTOENCODER, imagine)


def jump_row(model: DiffusionWorldModel, navigation: NavigationSettings, tilt_told: bool = False) -> QualityRow:
    """Return the row that imagines every target at once, all windows and horizons in one prediction.

    With ``tilt_told`` the camera is where it truly was at each target, in height, pitch and roll, too: a plan cannot
    know how a hand will hold it, but whether a view is imagined well shows only there.
    """
    replay = _replay(model, navigation)

    def imagine(batch: Batch) -> torch.Tensor:
        context = target_context(replay, batch, tilt_told)
        latents = model.predict(context, batch.actions_xyyaw, batch.rel_frames, batch.generator())
        return model.decode(latents).cpu().view_as(batch.truth)

    return QualityRow(TILTED_JUMP if tilt_told else JUMP, imagine)


def target_context(replay: Replay, batch: Batch, tilt_told: bool) -> Context:
    """Return the context of each target (B K rows); with ``tilt_told`` the camera is as it was at the target."""
    context = batched_context(replay, batch).repeated(batch.truth.shape[1])
    return tilted_as_targets(context, batch.windows) if tilt_told else context


def rollout_row(model: DiffusionWorldModel, navigation: NavigationSettings) -> QualityRow:
    """Return the row that imagines frame after frame along the true poses, all windows side by side."""
    replay = _replay(model, navigation)

    def imagine(batch: Batch) -> torch.Tensor:
        paths = torch.from_numpy(np.stack([item.path_xyyaw for item in batch.windows])).float()
        steps = model.rollout(batched_context(replay, batch), paths, batch.generator())
        at_targets = steps[:, torch.tensor(batch.windows[0].steps, device=steps.device) - 1]
        return model.decode(at_targets.flatten(0, 1)).cpu().view_as(batch.truth)

    return QualityRow(ROLLOUT, imagine)


def batched_context(replay: Replay, batch: Batch) -> Context:
    """Return what the robot's stack looks at from the starts of all windows, as one context of batch B."""
    return Context.joined([replay.context(item.window) for item in batch.windows])


def _replay(model: DiffusionWorldModel, navigation: NavigationSettings) -> Replay:
    return Replay(NavStack(model, open_loop(navigation)))
