"""Depth as a structured-light or stereo camera measures it.

Sources:
    noise along the axis: C. Nguyen, S. Izadi and D. Lovell, "Modeling Kinect Sensor Noise for Improved 3D
        Reconstruction and Tracking", 3DIMPVT 2012: sigma(z, theta) = floor + k (z - 0.4)^2 + a / sqrt(z) theta^2 /
        (pi/2 - theta)^2 with floor 1.2 mm, k 1.9 mm/m^2, a 0.1 mm; 0.8 px of noise across it.
    growth with z^2, disparity steps: K. Khoshelham and S. Oude Elberink, "Accuracy and Resolution of Kinect Depth Data
        for Indoor Mapping Applications", Sensors 12(2), 2012: a step of disparity q is z^2 q / (f b).
    depth looked up beside the pixel, so that edges fly: A. Handa et al., "A Benchmark for RGB-D Visual Odometry, 3D
        Reconstruction and SLAM", ICRA 2014 (after Barron and Malik 2013).
    missing where little light comes back: returned light goes with albedo cos(theta) / z^2 (Lambert's law).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from come_nav.core.checks import check_range
from come_nav.core.types import CameraIntrinsics

NEAREST_M = 0.4  # of Nguyen's formula, whose parabola has its least noise here
HALF_PI = 0.5 * math.pi


@dataclass(frozen=True)
class DepthSettings:
    """A depth camera; zero switches a part off, and all zero is true depth everywhere.

    Attributes:
        noise_floor_m: standard deviation at 0.4 m, m.
        noise_per_m: growth of the standard deviation with (z - 0.4 m)^2, 1/m.
        noise_of_angle: a of the standard deviation a / sqrt(z) theta^2 / (pi/2 - theta)^2 for incidence theta, m^1.5.
        disparity_step_px: depth comes in steps of this disparity, px of the sensor.
        sensor_focal_px: focal length of the sensor's own image, px.
        baseline_m: between the two cameras, or camera and projector, m; what only one of them sees is missing.
        lateral_mrad: standard deviation of the direction in which a pixel really looks, mrad; edges fly by it.
        near_m: nearer is missing, m.
        far_m: farther is missing, m; 0 = no limit.
        grazing_deg: surfaces met at a larger angle from their normal are missing, degrees; 90 = none.
        least_signal: missing where albedo cos(theta) / z^2 is below this, 1/m^2: dark, far and slanted surfaces.
        signal_spread: standard deviation of the logarithm of that signal, from speckle to speckle.
        speckle_mrad: width of a speckle: holes are blocks of it, mrad.
        shiny_from: missing where the colour image is at least this bright, 0 to 1: lamps, windows, reflections.
    """

    noise_floor_m: float = 0.0
    noise_per_m: float = 0.0
    noise_of_angle: float = 0.0
    disparity_step_px: float = 0.0
    sensor_focal_px: float = 580.0
    baseline_m: float = 0.0
    lateral_mrad: float = 0.0
    near_m: float = 0.0
    far_m: float = 0.0
    grazing_deg: float = 90.0
    least_signal: float = 0.0
    signal_spread: float = 0.0
    speckle_mrad: float = 0.0
    shiny_from: float = 0.0

    def __post_init__(self) -> None:
        highest = {
            "noise_floor_m": 1.0, "noise_per_m": 1.0, "noise_of_angle": 0.1, "disparity_step_px": 4.0,
            "baseline_m": 0.5, "lateral_mrad": 50.0, "near_m": 5.0, "far_m": 100.0, "grazing_deg": 90.0,
            "least_signal": 10.0, "signal_spread": 3.0, "speckle_mrad": 200.0, "shiny_from": 1.0,
        }  # fmt: skip
        for name, high in highest.items():
            check_range(f"sensors.depth.{name}", getattr(self, name), 0.0, high)
        check_range("sensors.depth.sensor_focal_px", self.sensor_focal_px, 10.0, 5000.0)
        if self.disparity_step_px and not self.baseline_m:
            check_range("sensors.depth.baseline_m with disparity_step_px", self.baseline_m, 0.0, 0.5, open_low=True)

    @property
    def perfect(self) -> bool:
        """Whether every part is off."""
        return self == DepthSettings(sensor_focal_px=self.sensor_focal_px)

    def axial_noise_m(self, z_m: torch.Tensor, incidence_rad: torch.Tensor) -> torch.Tensor:
        """Return the standard deviation along the axis, m, of depth ``z_m`` on surfaces met at ``incidence_rad``."""
        sigma = self.noise_floor_m + self.noise_per_m * (z_m - NEAREST_M).square()
        if self.noise_of_angle:
            slanted = incidence_rad.clamp(max=HALF_PI - 0.05)
            sigma = sigma + self.noise_of_angle * z_m.clamp(min=0.05).rsqrt() * (slanted / (HALF_PI - slanted)).square()
        return sigma

    def step_m(self, z_m: float) -> float:
        """Return the step between neighbouring depths at ``z_m``, m."""
        if not self.disparity_step_px:
            return 0.0
        return z_m * z_m * self.disparity_step_px / (self.sensor_focal_px * self.baseline_m)


class DepthCamera:
    """Measures true depth with the errors of ``settings``; holds no state between frames."""

    def __init__(self, settings: DepthSettings, intrinsics: CameraIntrinsics) -> None:
        self.settings, self.intrinsics = settings, intrinsics
        x = (torch.arange(intrinsics.width) + 0.5 - intrinsics.cx) / intrinsics.fx
        y = (torch.arange(intrinsics.height) + 0.5 - intrinsics.cy) / intrinsics.fy
        self._x, self._y = x, y[:, None]
        self._ray_length = (self._x.square() + self._y.square() + 1.0).sqrt()

    def measure(
        self, depth_m: torch.Tensor, images: torch.Tensor, generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        """Return measured depth (B, H, W), m, 0 where there is none.

        Args:
            depth_m: (B, H, W) true z-depth; 0 or NaN where nothing is.
            images: (B, 3, H, W) ideal colour in [-1, 1]; its luminance stands for the albedo.
            generators: one for each frame.
        """
        if self.settings.perfect:
            return depth_m
        settings = self.settings
        there = depth_m > 0
        true = depth_m.nan_to_num(0.0).clamp_(min=0.01)
        cosine = self._cosine(true)
        measured = self._jittered(true, generators) if settings.lateral_mrad else true
        if settings.noise_floor_m or settings.noise_per_m or settings.noise_of_angle:
            sigma = settings.axial_noise_m(true, arccos(cosine) if settings.noise_of_angle else cosine)
            measured = torch.addcmul(measured, sigma, _normal(true.shape, generators).to(true))
        if settings.disparity_step_px:
            step = settings.sensor_focal_px * settings.baseline_m / settings.disparity_step_px
            measured = step / (step / measured).round().clamp_(min=1.0)
        seen = there & self._seen(true, measured, cosine, images, generators)
        return measured * seen

    def _seen(
        self,
        true: torch.Tensor,
        measured: torch.Tensor,
        cosine: torch.Tensor,
        images: torch.Tensor,
        generators: Sequence[torch.Generator],
    ) -> torch.Tensor:
        """Return where the sensor measures at all, (B, H, W) bool."""
        settings = self.settings
        seen = (measured > settings.near_m) & (measured <= (settings.far_m or math.inf))
        if settings.grazing_deg < 90.0:
            seen &= cosine >= math.cos(math.radians(settings.grazing_deg))
        if settings.baseline_m:
            seen &= self._seen_by_both(true)
        if settings.shiny_from or settings.least_signal:
            red, green, blue = images.unbind(1)
            luminance = (0.1495 * red).add_(green, alpha=0.2935).add_(blue, alpha=0.057).add_(0.5)
            if settings.shiny_from:
                seen &= luminance < settings.shiny_from
            if settings.least_signal:
                signal = luminance.square_() * cosine / (true * true)  # the square undoes the display's curve
                seen &= signal > settings.least_signal * self._speckles(generators).to(signal)
        return seen

    def _cosine(self, depth_m: torch.Tensor) -> torch.Tensor:
        """Return the cosine of incidence (B, H, W) from the smaller of the two differences to the neighbours.

        On a plane inverse depth is linear in the image: 1/z = a x + b y + c, and (a, b, c) is along its normal.
        """
        inverse = depth_m.reciprocal()
        a = _gentle_slope(inverse, -1) * self.intrinsics.fx
        b = _gentle_slope(inverse, -2) * self.intrinsics.fy
        self._to(depth_m.device)
        c = torch.addcmul(torch.addcmul(inverse, a, self._x, value=-1.0), b, self._y, value=-1.0)
        length = torch.addcmul(torch.addcmul(c * c, a, a), b, b).sqrt_().mul_(self._ray_length)
        return (inverse / length.clamp_(min=1e-9)).clamp_(max=1.0)

    def _jittered(self, depth_m: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """Return depth looked up a little beside each pixel, to first order between it and its neighbours."""
        spread = 1e-3 * self.settings.lateral_mrad
        shape = (len(depth_m), 2, *depth_m.shape[1:])
        beside = _normal(shape, generators).to(depth_m)
        result = depth_m
        for axis, focal in ((-1, self.intrinsics.fx), (-2, self.intrinsics.fy)):
            offset = (beside[:, axis + 1] * (spread * focal)).clamp_(-1.0, 1.0)
            step = depth_m.diff(dim=axis)
            none = torch.zeros_like(depth_m.narrow(axis, 0, 1))
            ahead, behind = torch.cat([step, none], axis), torch.cat([none, step], axis)
            result = torch.addcmul(result, offset.clamp(min=0.0), ahead).addcmul_(offset.clamp_(max=0.0), behind)
        return result

    def _seen_by_both(self, depth_m: torch.Tensor) -> torch.Tensor:
        """Return what the second camera (or the projector), to the right of the first, is not shut off from.

        A pixel at column u lies at u - f b / z in the other image; one that something nearer, farther right in this
        image, covers there is in its shadow.
        """
        other = (
            torch.arange(depth_m.shape[-1], device=depth_m.device)
            - (self.settings.baseline_m * self.intrinsics.fx) / depth_m
        )
        first = other.flip(-1).cummin(-1).values.flip(-1)
        return other <= first + 0.5

    def _speckles(self, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """Return log-normal factors (B, H, W), the same over the width of a speckle."""
        height, width = self.intrinsics.height, self.intrinsics.width
        size = max(1, round(1e-3 * self.settings.speckle_mrad * self.intrinsics.fx))
        if not self.settings.signal_spread:
            return torch.ones(len(generators), height, width)
        coarse = (len(generators), -(-height // size), -(-width // size))
        factors = _normal(coarse, generators).mul_(self.settings.signal_spread).exp_()
        return factors.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, :height, :width]

    def _to(self, device: torch.device) -> None:
        if self._x.device != device:
            self._x, self._y, self._ray_length = (part.to(device) for part in (self._x, self._y, self._ray_length))


def _gentle_slope(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the difference per pixel to the neighbour before or after, whichever is smaller; 0 on ridges (minmod)."""
    step = values.diff(dim=axis)
    first, last = step.narrow(axis, 0, 1), step.narrow(axis, step.shape[axis] - 1, 1)
    before, after = torch.cat([first, step], axis), torch.cat([step, last], axis)
    return torch.clamp(before, min=after.clamp(max=0.0), max=after.clamp(min=0.0))


def arccos(cosine: torch.Tensor) -> torch.Tensor:
    """Return the angle of cosines in [0, 1] within 7e-5 rad (Abramowitz and Stegun 4.4.45), a third of acos's time."""
    series = cosine.mul(-0.0187293).add_(0.0742610).mul_(cosine).add_(-0.2121144).mul_(cosine).add_(1.5707288)
    return series.mul_((1.0 - cosine).clamp_(min=0.0).sqrt_())


def _normal(shape: Sequence[int], generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Return standard normal numbers (B, ...), row b from generator b, wherever that generator lives."""
    values = torch.empty(tuple(shape), device=generators[0].device)
    for row, generator in zip(values, generators, strict=True):
        row.normal_(generator=generator)
    return values
