"""What a robot's sensors take on a drive that is known from its beginning to its end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.sim.people import crowd_of
from come_nav.sim.sensors.chain import DELIVERY, FRAME, SensorChain, generator_of, mean_colour, to_uint8
from come_nav.sim.sensors.colour import Exposure, ExposureControl
from come_nav.sim.sensors.settings import SensorSettings
from come_nav.sim.sensors.timing import draw_delivery
from come_nav.sim.spaces import EpisodeRenderer

METER_WIDTH, METER_BATCH = 16, 256  # of the images that steer exposure


class DriveCapture:
    """Takes the frames of a drive; a frame is the same in whatever order they are asked for."""

    def __init__(
        self,
        renderer: EpisodeRenderer,
        world_index: int,
        stamps_s: NDArray[np.float64],
        poses_world_xyyaw: NDArray[np.float64],
        yaw_rates_radps: NDArray[np.float64],
        sensors: SensorSettings,
        seed: int,
    ) -> None:
        """Join a renderer and its world, the true motion at N stamps, and sensors whose errors follow from ``seed``."""
        self._renderer, self._world_index = renderer, world_index
        self._stamps_s, self._poses, self._yaw_rates = stamps_s, poses_world_xyyaw, yaw_rates_radps
        self._sensors, self._seed = sensors, seed
        self._chain = SensorChain(sensors, renderer.intrinsics)
        self._crowd = crowd_of(renderer, renderer.worlds[world_index])

    def frames(self, start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return colour (B, H, W, 3) and depth (B, H, W), m, of frames ``start`` to ``stop`` - 1."""
        images, depth = self._render(self._renderer, self._taken_at_xyyaw[start:stop])
        if self._crowd is not None:
            self._crowd.paint(images, depth, self._taken_at_xyyaw[start:stop], self._stamps_s[start:stop])
        if self._sensors.perfect_images:
            return to_uint8(images), depth.cpu().numpy()
        generators = [generator_of(self._seed, FRAME, index) for index in range(start, stop)]
        yaw_rates: Sequence[float] = self._yaw_rates[start:stop].tolist()
        return self._chain.capture(images, depth, self._exposures[start:stop], yaw_rates, generators)

    def _render(
        self, renderer: EpisodeRenderer, poses_world_xyyaw: NDArray[np.float64]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        poses = torch.from_numpy(poses_world_xyyaw)
        return renderer.render(poses, torch.full((len(poses),), self._world_index))

    @cached_property
    def _taken_at_xyyaw(self) -> NDArray[np.float64]:
        """True poses (N, 3) at which the frames were really taken: a stamp is off by what was drawn for it."""
        timing = self._sensors.timing
        if not timing.stamp_jitter_s:
            return self._poses
        errors_s = [
            draw_delivery(timing, generator_of(self._seed, DELIVERY, index)).stamp_error_s
            for index in range(len(self._stamps_s))
        ]
        return poses_at(self._stamps_s, self._poses, self._stamps_s - np.array(errors_s))

    @cached_property
    def _exposures(self) -> list[Exposure]:
        """How every frame is taken; steered by small images of the whole drive."""
        control = ExposureControl(self._sensors.colour)
        means: list[NDArray[np.float64]] = []
        if self._sensors.colour.meters:
            camera = self._renderer.intrinsics
            rows = max(2, round(METER_WIDTH * camera.height / camera.width))
            meter = self._renderer.with_camera(camera.scaled(METER_WIDTH, rows))
            for start in range(0, len(self._stamps_s), METER_BATCH):
                images, _ = self._render(meter, self._taken_at_xyyaw[start : start + METER_BATCH])
                means += [mean_colour(image, 1) for image in images]
        else:
            means = [np.ones(3)] * len(self._stamps_s)
        return [control.next(float(stamp), mean) for stamp, mean in zip(self._stamps_s, means, strict=True)]


def poses_at(
    stamps_s: NDArray[np.float64], poses_xyyaw: NDArray[np.float64], wanted_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return poses (M, 3) at times (M,) between timed poses (N, 3); those before and after are the ends'."""
    if len(stamps_s) == 1:
        return np.repeat(poses_xyyaw, len(wanted_s), axis=0)
    after = np.clip(np.searchsorted(stamps_s, wanted_s, side="right"), 1, len(stamps_s) - 1)
    before = after - 1
    share = np.clip((wanted_s - stamps_s[before]) / (stamps_s[after] - stamps_s[before]), 0.0, 1.0)
    return se2.interpolate(poses_xyyaw[before], poses_xyyaw[after], share)
