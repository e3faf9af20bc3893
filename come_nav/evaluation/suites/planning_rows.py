"""Rows of the planning tables that search: the robot's own ``NavStack.plan``, with the world model or another imaginer.

The simulator as a perfect model is one of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch

from come_nav.core.geometry import se2
from come_nav.core.protocols import Imaginer
from come_nav.core.types import Frame, Imagination, Plan
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.protocols.rows import HINDSIGHT, HYBRID, PERFECT_MODEL, WORLD_MODEL, Row
from come_nav.evaluation.suites.camera_model import CameraModel
from come_nav.evaluation.suites.replay import Replay, open_loop
from come_nav.evaluation.suites.worlds import Place
from come_nav.navigation.navigation_model import NavigationModel
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
from come_nav.navigation.stack import NavStack
from come_nav.planning.settings import PlannerSettings
from come_nav.world_model.images import rgb_from_images
from come_nav.world_model.model import DiffusionWorldModel

# (window, decode) -> what imagines the ends of its candidates
MakeImaginer = Callable[[Window, bool], Imaginer]
ReplayOf = Callable[[Window], Replay]


def world_model_row(model: DiffusionWorldModel, navigation: NavigationSettings) -> Row:
    """Return the row of ``model`` alone; each window is an episode that just began."""
    replay = Replay(NavStack(model, open_loop(navigation)))
    return searching_row(WORLD_MODEL, lambda window: replay, model)


def hybrid_row(model: DiffusionWorldModel, navigation: NavigationSettings) -> Row:
    """Return the row of ``model`` and registration together, as the robot plans; each window is a new episode."""
    replay = Replay(NavStack(model, open_loop(navigation)))
    return replace(searching_row(HYBRID, lambda window: replay, model, registers=True), imagine=None)


def searching_row(
    name: str,
    replay_of: ReplayOf,
    model: NavigationModel,
    experts: ExpertsSettings | None = None,
    make: MakeImaginer | None = None,
    registers: bool = False,
    planner: PlannerSettings | None = None,
) -> Row:
    """Return the row that plans as the robot does.

    Args:
        name: of the row.
        replay_of: the stack of a window's drive.
        model: its model, which sees the real frames that imagined ones are compared with.
        experts: what the imagination looks at; as the stack's settings say where None.
        make: another imaginer than the stack's own.
        registers: whether goal images are registered as well, and certain ones driven to.
        planner: the search; as the stack's settings say where None.
    """

    def imaginer(window: Window, decode: bool) -> Imaginer:
        return replay_of(window).imaginer(window, experts, decode) if make is None else make(window, decode)

    def plan(window: Window, generator: torch.Generator) -> Plan:
        replay = replay_of(window)
        decode = replay.stack.settings.objective.view_distance.startswith("image")
        given = None if make is None else make(window, decode)
        return replay.plan(window, generator, experts, given, registers, planner)

    def imagine(window: Window, paths: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        images = imaginer(window, True).imagine(paths, generator).images
        assert images is not None
        return images.cpu()

    def image(frame: Frame) -> torch.Tensor:
        return model.images_from_rgb([frame.rgb])[0].cpu()

    return Row(name, plan, imagine, image)


def perfect_model_row(
    places: Mapping[str, Place], navigation: NavigationSettings, model: DiffusionWorldModel | None
) -> Row:
    """Return the row in which the simulator itself renders the view at the end of every candidate.

    With ``model`` the cost is the configured one (for latent costs the rendered view is encoded), so that the row
    differs from the world model's by the imagination alone; without a model, images are compared pixel by pixel.
    """
    view_distance = navigation.objective.view_distance
    encode = None if view_distance.startswith("image") else model
    eyes: NavigationModel = CameraModel(navigation.memory.rate_hz) if encode is None else encode
    if encode is None:
        pixels = replace(navigation.objective, view_distance="image_l2" if view_distance == "image_l2" else "image_l1")
        navigation = replace(navigation, objective=pixels)
    replay = Replay(NavStack(eyes, open_loop(navigation)))

    def plan(window: Window, generator: torch.Generator) -> Plan:
        imaginer = RenderedImaginer(places[window.recording_id], window.start, encode)
        return replay.plan(window, generator, imaginer=imaginer)

    return Row(PERFECT_MODEL, plan, hindsight=HINDSIGHT)


class RenderedImaginer:
    """Imaginer that renders the view at the end of each candidate in the true world."""

    def __init__(self, place: Place, start: int, encode: DiffusionWorldModel | None) -> None:
        self._renderer = place.renderer
        self._start_world_xyyaw = torch.from_numpy(np.asarray(place.poses_world_xyyaw[start], float))
        self._encode = encode

    def imagine(self, poses_xyyaw: torch.Tensor, generator: torch.Generator) -> Imagination:
        """Render the last pose of each candidate (S, T, 3); also encode where the cost compares latents."""
        ends = se2.compose(self._start_world_xyyaw.expand(len(poses_xyyaw), 3), poses_xyyaw[:, -1].double().cpu())
        images, _ = self._renderer.render(ends.float())
        latents = None if self._encode is None else self._encode.encode(as_model_sees(images, self._encode))
        return Imagination(poses_xyyaw, None if latents is None else latents.to(poses_xyyaw), images.to(poses_xyyaw))


def as_model_sees(images: torch.Tensor, model: DiffusionWorldModel) -> torch.Tensor:
    """Bring rendered images (B, 3, H, W) to the model's size, by the same way that camera images take."""
    if images.shape[-2:] == (model.image_size, model.image_size):
        return images
    return model.images_from_rgb(list(rgb_from_images(images)))
