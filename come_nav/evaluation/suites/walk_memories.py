"""What the robot's own stack answers where memories of sequences are asked: views of a walk that is come back to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from come_nav.core.errors import DataError
from come_nav.core.experts import LONG_TERM
from come_nav.core.geometry import se2
from come_nav.core.protocols import Recording
from come_nav.evaluation.protocols.sequence_recall import SequenceRecallSettings
from come_nav.evaluation.reports.composition_tables import marks_of
from come_nav.evaluation.suites.memory.compositions import TITLES, CompositionWeights
from come_nav.evaluation.suites.memory.drive_memories import composed_model, experts_of, with_likelihood
from come_nav.evaluation.suites.memory.optional_rows import guided
from come_nav.evaluation.suites.memory.passes import passes_of_rows
from come_nav.evaluation.suites.memory.rows import available_rows
from come_nav.evaluation.suites.replay import odometry_at, open_loop, show
from come_nav.navigation.planning.imagining import bound
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
from come_nav.navigation.stack import NavStack
from come_nav.sim.builtin import ideal_camera
from come_nav.sim.episodes import EpisodeRecording
from come_nav.sim.mazes.walks import walked_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.world_sets import MAZE, world_set
from come_nav.sim.worlds import generate_world
from come_nav.world_model.model import DiffusionWorldModel

COMPOSED = ("base", "base+stm", "base+ltm", "base+sltm", "stm+ltm", "all")
CLOUD, LATENTS = "base + cloud of colours", "base + cloud of latents"
Rows = Mapping[str, ExpertsSettings]


def maze_recordings(settings: SequenceRecallSettings) -> list[EpisodeRecording]:
    """Return the walks that are asked, as a robot records them: with depth and odometry that do not err."""
    found = []
    for seed in settings.worlds:
        world = generate_world(seed, world_set(MAZE))
        episode = walked_episode(world, settings.frames, settings.seed)
        found.append(EpisodeRecording(episode, Raycaster([world], ideal_camera())))
    return found


def composed_rows(model: DiffusionWorldModel, navigation: NavigationSettings, weights: CompositionWeights) -> Rows:
    """Return the rows of a stack that keeps a cloud of colours: compositions, and the base that the cloud corrects.

    Compositions of experts that the model has not are left out.
    """
    older = navigation.experts.older_frames
    keys = available_rows(COMPOSED, False, model)
    rows = {TITLES[key]: experts_of(weights.composed_row(key, True), model, older) for key in keys}
    return {**rows, CLOUD: guided(rows[TITLES["base"]], navigation.experts.likelihood)}


def marks_of_rows(model: DiffusionWorldModel, weights: CompositionWeights) -> dict[str, str]:
    """Return row -> mark of the compositions that are fewer passes, or another row, than their names say."""
    keys = available_rows(COMPOSED, False, model)
    return marks_of(passes_of_rows([weights.composed_row(key, True) for key in keys], model))


def latent_rows(model: DiffusionWorldModel, navigation: NavigationSettings, weights: CompositionWeights) -> Rows:
    """Return the row of a stack that keeps a cloud of latents, by which the base is corrected."""
    base = experts_of(weights.composed_row("base", True), model, navigation.experts.older_frames)
    return {LATENTS: guided(base, navigation.experts.likelihood)}


def with_latents(navigation: NavigationSettings) -> NavigationSettings:
    """Return the settings of a robot whose spatial memory keeps latents."""
    return replace(navigation, spatial=replace(navigation.spatial, features="latent"))


def answered_views(
    model: DiffusionWorldModel,
    navigation: NavigationSettings,
    recording: Recording,
    frames: range,
    asked: int,
    rows: Rows,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Return the images (asked, 3, H, W) in [-1, 1] that each row imagines, each from all true frames before it.

    The stack observes ``frames``, trains its adapter on them where a row looks at one, is asked for the view of the
    next frame, then observes that as well, as long as one is asked: its clouds grow, the adapter stays as it is. Frames
    are one step of the protocol apart.

    Raises:
        DataError: for a frame that the stack does not keep, an expert that cannot work, or no adapter that could be
            trained.
    """
    use = dict.fromkeys(name for experts in rows.values() for name in experts.use)
    settings = open_loop(navigation, tuple(use))
    if any(experts.likelihood.use for experts in rows.values()):
        settings = with_likelihood(settings)
    stack = NavStack(model, settings, background_training=False)
    show(stack, recording, frames)
    if LONG_TERM in use:
        stack.episode.train()
        if stack.episode.adapter is None:
            raise DataError(f"{recording.name}: no adapter could be trained: too few frames in a row")
    one_step = replace(settings.planner, horizon_steps=1, v_knots=1, w_knots=1, dt_s=1.0 / recording.rate_hz)
    answers: dict[str, list[torch.Tensor]] = {name: [] for name in rows}
    for index in range(frames.stop, frames.stop + asked):
        motion = se2.relative(*recording.poses_xyyaw[[index - 1, index]])
        path = torch.from_numpy(motion).float()[None, None]
        context = stack.context(next(iter(rows.values())))  # all rows are told the same past
        if context is None:
            raise DataError(f"{recording.name}: too few frames before frame {index} to imagine from")
        _check_newest(stack, recording, index - 1)  # which the motion to the next one begins at
        for name, experts in rows.items():
            found = composed_model(stack, experts, f"{recording.name}: row '{name}'")
            images = bound(found, context, one_step, settings, True).imagine(path, generator).images
            assert images is not None
            answers[name].append(images[0].cpu())
        stack.observe(recording.frame(index), odometry_at(recording, index))
    return {name: torch.stack(found) for name, found in answers.items()}


def _check_newest(stack: NavStack, recording: Recording, index: int) -> None:
    newest = stack.memory.newest
    if newest is None or newest.stamp_s != float(recording.stamps_s[index]):
        raise DataError(f"{recording.name}: frame {index} was not kept, and the next one is asked from there")


def rows_of_walks(
    model: DiffusionWorldModel,
    navigation: NavigationSettings,
    weights: CompositionWeights,
    recordings: Sequence[Recording],
    context: int,
    settings: SequenceRecallSettings,
) -> dict[str, torch.Tensor]:
    """Return what each row answers to all walks, (W, asked, 3, H, W) in [-1, 1]."""
    stop = settings.frames - settings.asked
    frames = range(stop - context, stop)
    robots = (
        (navigation, composed_rows(model, navigation, weights)),
        (with_latents(navigation), latent_rows(model, navigation, weights)),
    )
    answers: dict[str, list[torch.Tensor]] = {}
    for recording in recordings:
        generator = torch.Generator().manual_seed(settings.seed)
        for robot, rows in robots:
            found = answered_views(model, robot, recording, frames, settings.asked, rows, generator)
            for name, images in found.items():
                answers.setdefault(name, []).append(images)
    return {name: torch.stack(found) for name, found in answers.items()}
