"""Rows of the planning table that need a planner: the world model, and the simulator as a perfect model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from come_nav.core.geometry import se2
from come_nav.core.protocols import Imaginer, Objective
from come_nav.core.types import Frame, Imagination, Plan
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.protocols.rows import HINDSIGHT, PERFECT_MODEL, WORLD_MODEL, Row
from come_nav.evaluation.suites.worlds import Place
from come_nav.navigation.objectives import view_objective
from come_nav.navigation.settings import NavigationSettings
from come_nav.planning.cem import CemPlanner
from come_nav.planning.objectives import ImageDistance, Smoothness
from come_nav.world_model.images import images_from_bytes, rgb_from_images
from come_nav.world_model.model import DiffusionWorldModel

# (window, decode) -> what imagines the ends of its candidates
MakeImaginer = Callable[[Window, bool], Imaginer]


def world_model_row(model: DiffusionWorldModel, config: NavigationSettings) -> Row:
    """Return the row of ``model`` under the planner and the objective of ``config``."""

    def imaginer(window: Window, decode: bool) -> Imaginer:
        offsets = (window.context_stamps_s * model.rate_hz).tolist()
        frames = window.over_footprint(window.context_frames())
        context = model.context_from_frames(frames, window.context_xyyaw, offsets)
        return model.imaginer(context, frames_ahead(window, config), config.imagination, decode=decode)

    return imagining_row(WORLD_MODEL, imaginer, config, model)


def imagining_row(name: str, make: MakeImaginer, config: NavigationSettings, model: DiffusionWorldModel) -> Row:
    """Return the row that plans with the configured search over what ``make``'s imaginer shows."""

    def plan(window: Window, generator: torch.Generator) -> Plan:
        view = view_objective(config.objective, model.images_from_rgb([window.goal_frame().rgb]), model)
        decode = config.objective.view_distance.startswith("image")
        return search(window, config, view, make(window, decode), generator)

    def imagine(window: Window, paths: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        images = make(window, True).imagine(paths, generator).images
        assert images is not None
        return images.cpu()

    def image(frame: Frame) -> torch.Tensor:
        return model.images_from_rgb([frame.rgb])[0].cpu()

    return Row(name, plan, imagine, image)


def frames_ahead(window: Window, config: NavigationSettings) -> float:
    """Return the time of a candidate's end in protocol frames.

    A rollout takes one step per waypoint; real stamps may make those a little longer or shorter than a frame.
    """
    return float(len(window.driven_xyyaw)) if config.imagination == "rollout" else window.rel_frames


def perfect_model_row(
    places: Mapping[str, Place], config: NavigationSettings, model: DiffusionWorldModel | None
) -> Row:
    """Return the row in which the simulator itself renders the view at the end of every candidate.

    With ``model`` the cost is the configured one (for latent costs the rendered view is encoded), so that the row
    differs from the world model's by the imagination alone; without a model, images are compared pixel by pixel.
    """
    encode = model if model is not None and not config.objective.view_distance.startswith("image") else None

    def plan(window: Window, generator: torch.Generator) -> Plan:
        if encode is not None:
            view: Objective = view_objective(
                config.objective, encode.images_from_rgb([window.goal_frame().rgb]), encode
            )
        else:
            kind: Literal["l1", "l2"] = "l2" if config.objective.view_distance == "image_l2" else "l1"
            view = ImageDistance(unit_image(window.goal_frame()), kind, config.objective.image_scales)
        imaginer = RenderedImaginer(places[window.recording_id], window.start, encode)
        return search(window, config, view, imaginer, generator)

    return Row(PERFECT_MODEL, plan, hindsight=HINDSIGHT)


def search(
    window: Window,
    config: NavigationSettings,
    view: Objective,
    imaginer: Imaginer,
    generator: torch.Generator,
) -> Plan:
    """Plan one window: the configured search, with the window's own time between waypoints."""
    twist = window.initial_twist
    planner = CemPlanner(
        replace(config.planner, horizon_steps=len(window.driven_xyyaw), dt_s=window.dt_s),
        [view, Smoothness(window.dt_s, initial_twist=torch.from_numpy(twist))],
        {view.name: config.objective.view_weight, "smoothness": config.objective.smoothness_weight},
    )
    return planner.plan(
        imaginer,
        generator,
        stamp_s=window.stamp_s,
        start_odom_xyyaw=window.start_odom_xyyaw,
        initial_twist=twist,
    )


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


def unit_image(frame: Frame) -> torch.Tensor:
    """Return a frame's colours (3, H, W) in [-1, 1] at its own size."""
    return images_from_bytes(torch.from_numpy(np.ascontiguousarray(frame.rgb.transpose(2, 0, 1))))
