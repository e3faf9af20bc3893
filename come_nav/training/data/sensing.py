"""What the sensors of a drive deliver: the camera that it was driven with, and depth that was measured or estimated.

One function, :func:`sensed`, stands between what is rendered and what is learned from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from come_nav.core.checks import check_choice
from come_nav.core.geometry.point_rendering import camera_fractions
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.tilted_camera import TiltedCamera, TiltedRaycaster
from come_nav.sim.worlds import World
from come_nav.world_model.depth import DepthEstimator

Estimate = Callable[[Tensor, Tensor], Tensor]  # images (N, 3, S, S) in [-1, 1] and camera (1, 4) -> z-depth (N, S, S) m


@dataclass(frozen=True)
class EstimatedDepth:
    """An :data:`Estimate` that can be sent to another process."""

    estimator: DepthEstimator

    @torch.no_grad()
    def __call__(self, images: Tensor, camera: Tensor) -> Tensor:
        """Return z-depth (N, S, S) in m of images (N, 3, S, S), computed where the estimator is."""
        device = next(self.estimator.parameters()).device
        return self.estimator.depth_m(images.to(device), camera.to(device))


PRESETS = ("ideal",)
LEAST_RATIO, MOST_RATIO = 0.2, 5.0  # of measured over estimated depth; what lies outside is no scale but an error
FRAMES_PER_CALL = 128


@dataclass(frozen=True)
class DriveSenses:
    """How the frames of drives become what a network is given.

    Attributes:
        estimate: depth where none is measured; None leaves true depth everywhere.
        facts: views of memories carry age and trust.
        rate_hz: frames per second, for ages.
        sensors: preset of the sensors.
    """

    estimate: Estimate | None = None
    facts: bool = False
    rate_hz: float = 4.0
    sensors: str = "ideal"


def renderer_of(world: World, camera: TiltedCamera, device: str) -> TiltedRaycaster:
    """Return what renders ``world`` through ``camera`` on ``device``."""
    return TiltedRaycaster(Raycaster([world], camera.intrinsics, device=device), camera)


def sensed(images: Tensor, depth_m: Tensor, sensors: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, S, S) in [-1, 1] and depth (N, S, S) m, NaN = unknown, as sensors would deliver them.

    Args:
        images: as rendered.
        depth_m: true z-depth.
        sensors: name of a preset; "ideal" changes nothing.
        generator: of all errors.
    """
    check_choice("data.sensors", sensors, PRESETS)
    return images, depth_m


def known_depth(
    images: Tensor, depth_m: Tensor, measured: bool, camera: TiltedCamera, senses: DriveSenses
) -> tuple[Tensor, Tensor]:
    """Return depth (N, S, S) as a robot knows it, and where it was measured (N, S, S) bool.

    A robot with a depth camera has its readings, and between them the estimate, scaled to them frame by frame; a robot
    without has the estimate alone.
    """
    present = torch.isfinite(depth_m) & (depth_m > 0.0) & measured
    if senses.estimate is None:
        return depth_m, present
    fractions = camera_fractions(camera.intrinsics).to(images)
    estimated = torch.cat([senses.estimate(chunk, fractions) for chunk in images.split(FRAMES_PER_CALL)])
    if not measured:
        return estimated, present
    ratio = torch.where(present, depth_m / estimated, torch.nan).flatten(1).nanmedian(dim=1).values
    usable = (ratio > LEAST_RATIO) & (ratio < MOST_RATIO)
    scaled = estimated * torch.where(usable, ratio, torch.ones_like(ratio))[:, None, None]
    return torch.where(present, depth_m, scaled), present
