"""From what is remembered to what the planner imagines with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import PlanningError
from come_nav.core.experts import SHORT_TERM
from come_nav.core.protocols import Imaginer, WorldModel
from come_nav.core.types import Context, Frame, Imagination, Plan, PlanStatus
from come_nav.memory.frame_memory import FrameMemory
from come_nav.memory.short_term import Remembered, ShortTermBuffer
from come_nav.navigation.memories.episode_memories import EpisodeMemories
from come_nav.navigation.navigation_model import NavigationModel
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
from come_nav.planning.objectives import with_spread
from come_nav.planning.settings import PlannerSettings
from come_nav.world_model.images import rgb_from_images

PosedFrame = tuple[Frame, NDArray[np.float64]]  # and where base_link stood (3,) in odom


def context_of(
    model: NavigationModel,
    memory: ShortTermBuffer,
    names: Sequence[str],
    older_frames: int,
    remembered: FrameMemory | None = None,
) -> Context | None:
    """Return the newest frames as the world model takes them, or None while there are too few.

    They come with what the memory experts ``names`` need, such as ``older_frames`` for the short-term one: those before
    the newest, or those ``remembered`` that show what lies ahead.

    Frame offsets are the times that the stamps tell, not whole frames.
    """
    frames = memory.context_frames(model.context_frames)
    if not frames:
        return None
    latents = torch.stack([frame.features for frame in frames if frame.features is not None])
    poses = np.stack([frame.pose_odom_xyyaw for frame in frames])
    offsets = [(frame.stamp_s - frames[-1].stamp_s) * model.rate_hz for frame in frames]
    past: dict[str, Any] = {}
    if names:
        count = older_frames if SHORT_TERM in names else 0
        older = memory.newest_frames(len(frames) + count)[: -len(frames)]
        past["older"] = [(own.frame, own.pose_odom_xyyaw) for own in older]
        if remembered is not None and count:
            past["older"] = found = with_remembered(past["older"], remembered, frames, count)
            past["older_offsets"] = [(own.stamp_s - frames[-1].stamp_s) * model.rate_hz for own, _ in found]
        past["absolute_pose_xyyaw"] = frames[-1].pose_odom_xyyaw
    return model.context_from_frames([frame.frame for frame in frames], poses, offsets, latents=latents, **past)


def with_remembered(
    older: Sequence[PosedFrame], remembered: FrameMemory, context: Sequence[Remembered], count: int
) -> list[PosedFrame]:
    """Return ``count`` frames, oldest first: those ``remembered`` that show what lies ahead, the newest fill up.

    Args:
        older: the newest frames before the context, oldest first.
        remembered: the frames of the episode.
        context: frames that are looked at anyway.
        count: frames in all, where there are so many.
    """
    most = min(count, remembered.config.frames or count)
    found = remembered.showing(context[-1], most, context[0].stamp_s)
    known = {frame.stamp_s for frame, _ in found}
    others = [own for own in older if own[0].stamp_s not in known]
    newest = others[max(0, len(others) - (count - len(found))) :]
    return sorted([*newest, *found], key=lambda own: own[0].stamp_s)


def bound(
    model: NavigationModel, context: Context, planner: PlannerSettings, settings: NavigationSettings, decode: bool
) -> Imaginer:
    """Return what imagines the ends of paths as long as ``planner`` searches them."""
    # A rollout takes one step for each pose; real stamps may make those a little longer or shorter than a frame.
    steps_per_pose = 1.0 if settings.imagination == "rollout" else planner.dt_s * model.rate_hz
    return model.imaginer(context, planner.horizon_steps * steps_per_pose, settings.imagination, decode=decode)


@dataclass(frozen=True)
class Imaginers:
    """What imagines the candidates of a plan, what then shows the view at its end if wanted, and who is left out.

    ``by_model`` where a world model imagines the candidates, so that noises differ.
    """

    candidates: Imaginer
    shown: Imaginer | None = None
    warnings: Sequence[str] = ()
    by_model: bool = False


def imaginers_for(
    by_view: bool,
    context: Context | None,
    episode: EpisodeMemories,
    experts: ExpertsSettings | None,
    planner: PlannerSettings,
    settings: NavigationSettings,
) -> Imaginers:
    """Return what imagines for a goal whose view counts or (not ``by_view``) does not."""
    if context is None:
        return Imaginers(PathsOnly())
    model, warnings = episode.model(experts)
    shown = bound(model, context, planner, settings, True) if settings.show_imagined else None
    if not by_view:
        return Imaginers(PathsOnly(), shown)
    decode = settings.objective.view_distance.startswith("image")
    return Imaginers(bound(model, context, planner, settings, decode), shown, warnings, by_model=True)


def doubt_at_end(imaginers: Imaginers, plan: Plan, draws: int, seed: int) -> float | None:
    """Return how much the view at the end of a plan varies over ``draws`` noises; None where no model imagined it.

    Its noises are its own: the chance of the plans to come stays as it is.
    """
    if draws == 0 or plan.status is not PlanStatus.OK or not imaginers.by_model:
        return None
    generator, path = torch.Generator().manual_seed(seed), torch.from_numpy(plan.poses_xyyaw).float()[None]
    spread = with_spread([imaginers.candidates.imagine(path, generator) for _ in range(draws)])[0].spread
    return None if spread is None else float(spread[0])


class PathsOnly:
    """Imagines nothing: goals that are poses need no images."""

    def imagine(self, poses_xyyaw: torch.Tensor, generator: torch.Generator) -> Imagination:
        """Return the paths alone."""
        return Imagination(poses_xyyaw)


def imagined_rgb(
    model: WorldModel, imaginer: Imaginer, poses_xyyaw: torch.Tensor, generator: torch.Generator
) -> NDArray[np.uint8]:
    """Return uint8 images (S, H, W, 3) of the views imagined at the end of paths (S, T, 3)."""
    imagination = imaginer.imagine(poses_xyyaw, generator)
    images = imagination.images
    if images is None and imagination.latents is not None:
        images = model.decode(imagination.latents)
    if images is None:
        raise PlanningError("the imaginer returns neither images nor latents")
    return rgb_from_images(images)
