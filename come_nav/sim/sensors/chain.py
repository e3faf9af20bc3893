"""The sensor chain: from what a renderer shows to what the robot's sensors deliver."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.types import CameraIntrinsics
from come_nav.sim.sensors.colour import ColourCamera, Exposure, linear
from come_nav.sim.sensors.depth import DepthCamera
from come_nav.sim.sensors.settings import SensorSettings

METER_STRIDE = 4  # every fourth pixel of every fourth row is enough for a mean
FRAME, DELIVERY, CAMERA = 1, 2, 3  # streams of random numbers


class SensorChain:
    """Colour and depth of frames, as ``settings`` degrade them."""

    def __init__(self, settings: SensorSettings, intrinsics: CameraIntrinsics) -> None:
        self.settings = settings
        self._colour = ColourCamera(settings.colour, intrinsics)
        self._depth = DepthCamera(settings.depth, intrinsics)

    def capture(
        self,
        images: torch.Tensor,
        depth_m: torch.Tensor,
        exposures: Sequence[Exposure],
        yaw_rates_radps: Sequence[float],
        generators: Sequence[torch.Generator],
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return colour (B, H, W, 3) uint8 and depth (B, H, W) float32, m, 0 = unknown, of ideal frames.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            depth_m: (B, H, W) true z-depth.
            exposures: of each frame, from an :class:`ExposureControl`.
            yaw_rates_radps: of each frame while its shutter is open.
            generators: one for each frame, so that a frame does not depend on what was taken before it.
        """
        measured = self._depth.measure(depth_m, images, generators).cpu().numpy()
        if self.settings.colour.perfect:
            return to_uint8(images), measured
        return self._colour.take(images, exposures, yaw_rates_radps, generators), measured


def mean_colour(image: torch.Tensor, stride: int = METER_STRIDE) -> NDArray[np.float64]:
    """Return the mean linear colour (3,) of an ideal image (3, H, W) in [-1, 1], as a light meter sees it."""
    mean: NDArray[np.float64] = linear(image[:, ::stride, ::stride]).mean((1, 2)).double().cpu().numpy()
    return mean


def generator_of(*numbers: int) -> torch.Generator:
    """Return a generator that depends on these numbers (seed, stream, index) alone."""
    seed = int(np.random.SeedSequence([abs(number) for number in numbers]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed >> 1)


def to_uint8(images: torch.Tensor) -> NDArray[np.uint8]:
    """Return images (B, H, W, 3) uint8 of images (B, 3, H, W) in [-1, 1]."""
    scaled = images.add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    rgb: NDArray[np.uint8] = scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return rgb
