"""What the sensors of a drive deliver: the camera that it was driven with, and depth that was measured or estimated.

:class:`DriveSensors` stands between what is rendered and what is learned from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from come_nav.core.geometry.point_rendering import camera_fractions
from come_nav.core.geometry.se2 import wrap_angle
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.chain import SensorChain, generator_of, mean_colour
from come_nav.sim.sensors.colour import Exposure, ExposureControl
from come_nav.sim.sensors.colour_cast import ColourCast
from come_nav.sim.sensors.mounting import MountedCamera
from come_nav.sim.sensors.settings import sensor_settings
from come_nav.sim.worlds import World
from come_nav.world_model.depth import DepthEstimator
from come_nav.world_model.depth_of_frames import completed_depth
from come_nav.world_model.images import images_from_bytes

Estimate = Callable[[Tensor, Tensor], Tensor]  # images (N, 3, S, S) in [-1, 1] and camera (1, 4) -> z-depth (N, S, S) m
SENSOR_STREAM = 64  # number of the random stream
MEMORY_SEED = 500_000_003  # added to a drive's seed for the sensors of the time before it
WINDOW = 4  # frames that estimates are scaled to what was measured in together, as contexts are when they are used
FRAMES_PER_CALL = 128


@dataclass(frozen=True)
class EstimatedDepth:
    """An :data:`Estimate` that can be sent to another process."""

    estimator: DepthEstimator

    @torch.no_grad()
    def __call__(self, images: Tensor, camera: Tensor) -> Tensor:
        """Return z-depth (N, S, S) in m of images (N, 3, S, S), computed where the estimator is."""
        device = next(self.estimator.parameters()).device
        return self.estimator.depth_m(images.to(device), camera.to(device))


@dataclass(frozen=True)
class DriveSenses:
    """How the frames of drives become what a network is given.

    Attributes:
        estimate: depth where none is measured; None leaves true depth everywhere.
        facts: views of memories carry age and trust.
        rate_hz: frames per second, for ages.
        sensors: preset of the sensors.
        colour_spread: how far each drive's colours may be from those that are rendered; 0 leaves them.
    """

    estimate: Estimate | None = None
    facts: bool = False
    rate_hz: float = 4.0
    sensors: str = "ideal"
    colour_spread: float = 0.0

    def sensors_of(self, intrinsics: CameraIntrinsics, seed: int, before: bool = False) -> DriveSensors:
        """Return the sensors of the drive of this ``seed``, or of the time ``before`` it: in the same colours."""
        cast = ColourCast.draw(self.colour_spread, seed) if self.colour_spread else None
        return DriveSensors(self.sensors, intrinsics, seed + MEMORY_SEED * before, self.rate_hz, cast=cast)


def renderer_of(world: World, camera: MountedCamera, device: str) -> Raycaster:
    """Return what renders ``world`` through ``camera`` on ``device``."""
    return Raycaster.of_camera([world], camera, device)


class DriveSensors:
    """The sensors of one drive, or of single views: what is rendered in, what they would deliver out.

    Args:
        preset: of :mod:`come_nav.sim.sensors`; "ideal" changes nothing.
        intrinsics: of the images.
        seed: of all errors; each frame's depend on it and on the frame's number alone.
        rate_hz: frames per second, for exposure and white balance that lag.
        taken: number of the first frame, where another process takes those before it.
        cast: changes the colours of all images alike, and how much of the preset's vignetting the lens has.
    """

    def __init__(
        self,
        preset: str,
        intrinsics: CameraIntrinsics,
        seed: int,
        rate_hz: float,
        taken: int = 0,
        cast: ColourCast | None = None,
    ) -> None:
        self._settings = sensor_settings(preset)
        if cast is not None:
            colour = self._settings.colour
            colour = replace(colour, vignetting=cast.vignetting * colour.vignetting)
            self._settings = replace(self._settings, colour=colour)
        self._chain, self._seed, self._rate_hz = SensorChain(self._settings, intrinsics), seed, rate_hz
        self._control, self._taken, self._cast = ExposureControl(self._settings.colour), taken, cast
        self.exposures: list[Exposure] = []

    def frames(self, images: Tensor, depth_m: Tensor, yaw_rates_radps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next N frames of the drive: images (N, 3, S, S) in [-1, 1], depth (N, S, S) m, 0 = unknown."""
        if self._settings.perfect_images:
            return self._shown(images), depth_m
        new: list[Exposure] = []
        for image in images:
            stamp_s = (len(self.exposures) + len(new)) / self._rate_hz
            new.append(self._control.next(stamp_s, mean_colour(image)))
        self.exposures += new
        return self._captured(images, depth_m, new, yaw_rates_radps.tolist())

    def beside(self, images: Tensor, depth_m: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Return views from beside the drive, of a robot at rest, exposed as frames number ``frame`` (N,) were."""
        if self._settings.perfect_images:
            return self._shown(images), depth_m
        exposures = [self.exposures[index] for index in frame.tolist()]
        return self._captured(images, depth_m, exposures, [0.0] * len(images))

    def alone(self, images: Tensor, depth_m: Tensor) -> tuple[Tensor, Tensor]:
        """Return views that have nothing to do with one another, each of a camera that has settled."""
        if self._settings.perfect_images:
            return self._shown(images), depth_m
        settled = [ExposureControl(self._settings.colour).next(0.0, mean_colour(image)) for image in images]
        return self._captured(images, depth_m, settled, [0.0] * len(images))

    def _captured(
        self, images: Tensor, depth_m: Tensor, exposures: list[Exposure], yaw_rates_radps: list[float]
    ) -> tuple[Tensor, Tensor]:
        numbers = range(self._taken, self._taken + len(images))
        self._taken += len(images)
        generators = [generator_of(self._seed, SENSOR_STREAM, number) for number in numbers]
        rgb, measured = self._chain.capture(images, depth_m, exposures, yaw_rates_radps, generators)
        seen = torch.from_numpy(rgb).to(images.device).permute(0, 3, 1, 2)
        return self._shown(images_from_bytes(seen.contiguous())), torch.from_numpy(measured).to(depth_m)

    def _shown(self, images: Tensor) -> Tensor:
        return images if self._cast is None else self._cast(images)


def yaw_rates(poses_xyyaw: Tensor, rate_hz: float) -> Tensor:
    """Return how fast a robot turned at each of its poses (N, 3), rad/s: the mean since the pose before."""
    turned = wrap_angle(poses_xyyaw[1:, 2] - poses_xyyaw[:-1, 2])
    rates: Tensor = torch.cat([turned[:1], turned]) * rate_hz if len(turned) else poses_xyyaw.new_zeros(1)
    return rates


def known_depth(
    images: Tensor, depth_m: Tensor, measured: bool, camera: MountedCamera, senses: DriveSenses
) -> tuple[Tensor, Tensor]:
    """Return depth (N, S, S) as a robot knows it, and where it was measured (N, S, S) bool.

    A robot with a depth camera has its readings, and between them the estimate, scaled to them; a robot without has the
    estimate alone.
    """
    present = torch.isfinite(depth_m) & (depth_m > 0.0) & measured
    if senses.estimate is None:
        return depth_m, present
    fractions = camera_fractions(camera.intrinsics).to(images)
    estimated = torch.cat([senses.estimate(chunk, fractions) for chunk in images.split(FRAMES_PER_CALL)])
    if not measured:
        return estimated, present
    reading = torch.where(present, depth_m, torch.zeros_like(depth_m))
    parts = zip(reading.split(WINDOW), estimated.split(WINDOW), strict=True)
    return torch.cat([completed_depth(*part) for part in parts]), present
