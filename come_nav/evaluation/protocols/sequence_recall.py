"""What a memory of sequences shows of places that are come back to: views at known poses, by age and by context.

The last frames of a walk are asked for, one after the other: each is imagined from the frames before it, all of them
true, and then shown. The same frames are asked whatever the context; a longer context only begins earlier. What is
asked has the age of the newest frame before it that was seen from the same pose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2
from come_nav.core.protocols import Recording
from come_nav.evaluation.metrics.image_metrics import psnr, sharpness_ratio, ssim
from come_nav.evaluation.metrics.statistics import MIN_CLUSTERS, Interval, bootstrap_mean, paired_difference
from come_nav.sim.builtin import ideal_camera
from come_nav.sim.mazes.walks import distinct_poses, walk
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.world_sets import MAZE, world_set
from come_nav.sim.worlds import generate_world
from come_nav.world_model.images import images_from_bytes
from come_nav.world_model.sequence.model import SequenceModel

SAME_POSE, FAR = 1e-3, 1e3
AGES = (10, 50, 100, 200, 400)  # frames; upper ends of the groups of ages
NEVER = "never seen"
IN_CONTEXT = f"over {AGES[0]}, in the context"  # what a memory of the context alone can know
METRICS = ("psnr_db", "ssim", "sharpness")
NEAR_M, NEAR_RAD = 0.3, math.radians(20.0)  # a quarter of a cell; of walks whose poses are no lattice
YAW_WEIGHT_M = 1.2  # of the cosine's fall between two headings, against metres: half a turn counts as two cells
Answer = Callable[["SequenceWindow", int], Tensor]


@dataclass(frozen=True)
class SequenceRecallSettings:
    """How memories of sequences are asked.

    Attributes:
        worlds: seeds of the mazes.
        contexts: frames before the first that is asked.
        asked: frames at the end of each walk that are asked for.
        seed: of the walks, of the noise and of the intervals.
        steps: of the sampler; the model's own where None.
    """

    worlds: tuple[int, ...]
    contexts: tuple[int, ...] = (100, 200, 400)
    asked: int = 24
    seed: int = 0
    steps: int | None = None

    def __post_init__(self) -> None:
        if not self.worlds or not self.contexts:
            raise ConfigError("recall of sequences needs at least one world and one context")
        for context in self.contexts:
            check_range("contexts", context, 1)
        check_range("asked", self.asked, 1)

    @property
    def frames(self) -> int:
        """Frames of each walk."""
        return max(self.contexts) + self.asked


@dataclass(frozen=True)
class SequenceWalks:
    """Walks through mazes, each view rendered once.

    Attributes:
        images: (V, 3, H, W) in [-1, 1].
        poses_xyyaw: (W, N, 3) in each world.
        views: (W, N) which image each frame is.
        ages: (W, N) frames since the same pose was seen last; -1 = never.
    """

    images: Tensor
    poses_xyyaw: Tensor
    views: Tensor
    ages: NDArray[np.int64]


@dataclass(frozen=True)
class SequenceWindow:
    """What is given, T = context + asked frames: latents (W, T, C, h, w), and poses and actions (W, T, 3)."""

    latents: Tensor
    poses_xyyaw: Tensor
    actions_xyyaw: Tensor
    context: int


def recall_walks(settings: SequenceRecallSettings) -> SequenceWalks:
    """Walk through the mazes and render what is seen."""
    images, poses, views, start = [], [], [], 0
    for seed in settings.worlds:
        world = generate_world(seed, world_set(MAZE))
        walked, _ = walk(world, settings.frames, settings.seed)
        distinct, numbers = distinct_poses(walked)
        images.append(Raycaster([world], ideal_camera()).render(torch.from_numpy(distinct))[0])
        poses.append(torch.from_numpy(walked))
        views.append(torch.from_numpy(numbers) + start)
        start += len(distinct)
    numbers_of_frames = torch.stack(views)
    return SequenceWalks(torch.cat(images), torch.stack(poses), numbers_of_frames, ages_of(numbers_of_frames.numpy()))


def recorded_walks(recordings: Sequence[Recording], settings: SequenceRecallSettings, scale: float) -> SequenceWalks:
    """Return the last frames of walks that were recorded elsewhere, whose poses are never the same twice.

    Args:
        recordings: one for each of ``settings.worlds``, images of the size that the models look at.
        settings: how many frames are asked, from which contexts.
        scale: metres that a metre of theirs counts as, so that cells are as large as those of training.

    Raises:
        DataError: where a walk is too short.
    """
    images, poses = [], []
    for recording in recordings:
        first = len(recording) - settings.frames
        if first < 0:
            raise DataError(f"{recording.name} has {len(recording)} frames, and {settings.frames} are asked for")
        rgb = np.stack([recording.frame(index).rgb for index in range(first, len(recording))])
        images.append(images_from_bytes(torch.from_numpy(rgb).permute(0, 3, 1, 2)))
        walked = torch.from_numpy(np.asarray(recording.poses_xyyaw[first:], float)).clone()
        walked[:, :2] *= scale
        poses.append(walked)
    views = torch.arange(len(poses) * settings.frames).view(len(poses), settings.frames)
    walked_xyyaw = torch.stack(poses)
    return SequenceWalks(torch.cat(images), walked_xyyaw, views, ages_by_pose(walked_xyyaw.numpy()))


def ages_by_pose(poses_xyyaw: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many frames ago each walker (W, N, 3) was last about where it is; -1 where never.

    About: within NEAR_M and NEAR_RAD, and elsewhere since: who moves slowly comes back to nothing.
    """
    ages = np.full(poses_xyyaw.shape[:2], -1)
    for row, own in enumerate(poses_xyyaw):
        for index in range(len(own)):
            gap = own[:index] - own[index]
            near = (np.hypot(gap[:, 0], gap[:, 1]) < NEAR_M) & (np.abs(se2.wrap_angle(gap[:, 2])) < NEAR_RAD)
            away = np.flatnonzero(~near)
            before = np.flatnonzero(near[: away[-1]]) if len(away) else away
            ages[row, index] = index - before[-1] if len(before) else -1
    return ages


def ages_of(views: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many frames ago each frame's view (W, N) was seen last; -1 where never."""
    ages = np.full(views.shape, -1)
    for row, own in enumerate(views):
        last: dict[int, int] = {}
        for index, view in enumerate(own.tolist()):
            ages[row, index] = index - last[view] if view in last else -1
            last[view] = index
    return ages


def window_of(walks: SequenceWalks, latents: Tensor, context: int, asked: int) -> SequenceWindow:
    """Return the last ``context`` + ``asked`` frames of each walk; ``latents`` (V, C, h, w) are of its images."""
    part = slice(walks.views.shape[1] - context - asked, None)
    poses = walks.poses_xyyaw[:, part]
    places = se2.relative(poses[:, :1], poses)
    return SequenceWindow(latents[walks.views[:, part]], places, se2.motions(poses), context)


@torch.no_grad()
def imagined(model: SequenceModel, window: SequenceWindow, settings: SequenceRecallSettings) -> Tensor:
    """Return the latents (W, asked, C, h, w) that a model imagines, each from all true frames before it."""
    generator = torch.Generator().manual_seed(settings.seed)
    network, now = model.network, window.context
    parts = window.latents, window.poses_xyyaw, window.actions_xyyaw
    state = network.all_observed(None, *(part[:, :now] for part in parts))
    answers = []
    while now < window.latents.shape[1]:
        poses, actions = window.poses_xyyaw[:, now], window.actions_xyyaw[:, now]
        answers.append(model.imagine(state, poses, actions, generator, settings.steps))
        state = network.all_observed(state, *(part[:, now : now + 1] for part in parts))
        now += 1
    return torch.stack(answers, 1)


def copied(window: SequenceWindow) -> Tensor:
    """Return the newest frame before each one that is asked (W, asked, C, h, w)."""
    return window.latents[:, window.context - 1 : -1]


def nearest_remembered(window: SequenceWindow) -> Tensor:
    """Return the frame before each one that is asked whose pose is nearest to its pose (W, asked, C, h, w)."""
    rows, answers = torch.arange(len(window.latents)), []
    for now in range(window.context, window.latents.shape[1]):
        newest_first = _distances(window, now, now).flip(1).argmin(1)
        answers.append(window.latents[rows, now - 1 - newest_first])
    return torch.stack(answers, 1)


def retrieved(
    model: SequenceModel, window: SequenceWindow, settings: SequenceRecallSettings, remembered: int, newest: int
) -> Tensor:
    """Return the latents (W, asked, C, h, w) that a model imagines from few of the true frames before each one.

    It is shown the ``remembered`` frames whose poses are nearest to the one that is asked, a pose once, and the
    ``newest`` ones, in the order in which they were seen: retrieval, at a cost that does not grow.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    rows, answers = torch.arange(len(window.latents))[:, None], []
    for now in range(window.context, window.latents.shape[1]):
        older = max(1, now - newest)
        far = _distances(window, older, now) + _seen_again(window, older) * FAR
        chosen = far.topk(min(remembered, older), largest=False).indices
        recent = torch.arange(older, now).expand(len(rows), -1)
        index = torch.cat([chosen, recent], 1).sort(1).values
        shown = window.poses_xyyaw[rows, index]
        # motions between the frames that are shown, for the ones between them are not
        state = model.network.all_observed(None, window.latents[rows, index], shown, se2.motions(shown))
        poses, actions = window.poses_xyyaw[:, now], window.actions_xyyaw[:, now]
        answers.append(model.imagine(state, poses, actions, generator, settings.steps))
    return torch.stack(answers, 1)


def _distances(window: SequenceWindow, frames: int, now: int) -> Tensor:
    """Return how far (W, frames) the poses of the first frames are from that of frame ``now``, metres."""
    gap = window.poses_xyyaw[:, :frames] - window.poses_xyyaw[:, now : now + 1]
    far: Tensor = gap[..., :2].norm(dim=-1) + YAW_WEIGHT_M * (1.0 - gap[..., 2].cos())
    return far


def _seen_again(window: SequenceWindow, frames: int) -> Tensor:
    """Return which of the first frames (W, frames) have the pose of a later one among them."""
    keys = window.poses_xyyaw[:, :frames]
    keys = torch.cat([keys[..., :2], keys[..., 2:].cos(), keys[..., 2:].sin()], -1)
    same = torch.cdist(keys, keys, compute_mode="donot_use_mm_for_euclid_dist") < SAME_POSE
    return same.triu(1).any(2)


def evaluate_answers(
    latents: Tensor, decode: Callable[[Tensor], Tensor], walks: SequenceWalks, worlds: Sequence[int]
) -> list[dict[str, Any]]:
    """Return one record for each latent (W, asked, C, h, w): world, age and the metrics of its image.

    Images are what the autoencoder decodes; they are compared with what the camera saw.
    """
    asked = latents.shape[1]
    records = []
    for row, world in enumerate(worlds):
        images, truth = decode(latents[row]).cpu(), walks.images[walks.views[row, -asked:]]
        found = [psnr(images, truth, (-1.0, 1.0)), ssim(images, truth, (-1.0, 1.0)), sharpness_ratio(images, truth)]
        for index in range(asked):
            values = {name: float(own[index]) for name, own in zip(METRICS, found, strict=True)}
            records.append({"world": world, "age": int(walks.ages[row, index - asked]), **values})
    return records


def age_group(age: int) -> str:
    """Return the name of the group of an age in frames."""
    if age < 0:
        return NEVER
    low = 1
    for high in AGES:
        if age <= high:
            return f"{low}-{high}"
        low = high + 1
    return f"over {AGES[-1]}"


def summarised(
    records: Sequence[Mapping[str, Any]],
    seed: int,
    baseline: Sequence[Mapping[str, Any]] | None = None,
    context: int | None = None,
) -> dict[str, Any]:
    """Return means with intervals by age and of all that was seen before at all, resampled by world.

    With a ``baseline`` of the same frames, "gain_psnr_db" is the paired difference to it. With a ``context``, what was
    seen within so many frames is a group of its own. Means over fewer than MIN_CLUSTERS worlds have no interval (null).
    """
    groups: dict[str, list[int]] = {"all": list(range(len(records)))}
    for index, record in enumerate(records):
        groups.setdefault(age_group(record["age"]), []).append(index)
        if record["age"] > AGES[0]:
            groups.setdefault(f"over {AGES[0]}, seen", []).append(index)
        if context is not None and AGES[0] < record["age"] <= context:
            groups.setdefault(IN_CONTEXT, []).append(index)
    summary: dict[str, Any] = {}
    for name, members in groups.items():
        worlds = [records[index]["world"] for index in members]

        def values(metric: str, of: Sequence[Mapping[str, Any]], chosen: list[int] = members) -> NDArray[np.float64]:
            return np.array([of[index][metric] for index in chosen])

        found: dict[str, Interval] = {
            metric: bootstrap_mean(values(metric, records), seed, worlds) for metric in METRICS
        }
        if baseline is not None:
            found["gain_psnr_db"] = paired_difference(
                values("psnr_db", records), values("psnr_db", baseline), seed, worlds
            )
        summary[name] = {metric: _told(interval) for metric, interval in found.items()}
    return summary


def _told(interval: Interval) -> dict[str, Any]:
    """Return an interval for a file; of too few worlds the value alone, since windows of one world are much alike."""
    enough = interval.clusters >= MIN_CLUSTERS
    return asdict(interval) | ({} if enough else {"low": None, "high": None})
