"""Colour as a small camera takes it: exposure and white balance that lag, noise, vignetting, motion blur, JPEG.

Sources:
    noise: EMVA Standard 1288, release 4.0, 2021 (photons are Poisson, reading adds Gaussian noise); in the
        image: variance a v + b (A. Foi et al., "Practical Poissonian-Gaussian Noise Modeling and Fitting for
        Single-Image Raw-Data", IEEE Trans. Image Processing 17(10), 2008). A normal of its variance stands for Poisson.
    exposure: a first-order lag of the logarithm towards a mean level, as in cameras' control loops (for instance
        libcamera's AGC algorithms); longer times first, gain when the longest time is reached.
    white balance: grey world (G. Buchsbaum, "A Spatial Processor Model for Object Colour Perception", J. Franklin
        Institute 310(1), 1980), followed with the same lag.
    vignetting: the cosine-fourth law of natural vignetting (for instance M. Aggarwal et al., "On Cosine-fourth and
        Vignetting Effects in Real Lenses", ICCV 2001), to a power below one for lenses that correct a part.
    motion blur: the mean over the exposure of the image shifted by the yaw rate; a point at x = X/Z moves by
        f (1 + x^2) w per second along its row (its small motion across rows is left out).
    JPEG: libjpeg's, through OpenCV.
Light is linear inside; a square stands for the display's curve (sRGB's lies within 0.03 of it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.types import CameraIntrinsics


@dataclass(frozen=True)
class ColourSettings:
    """A colour camera; zero switches a part off, and all zero is the ideal image.

    Attributes:
        exposure_target: mean linear level that automatic exposure steers to, 0 to 1; 0 = a fixed exposure.
        exposure_lag_s: time constant in which exposure follows the light, s.
        exposure_s: exposure time of an image whose mean is at the target without gain, s; 0 = no motion blur.
        longest_exposure_s: no longer exposure; darker images take gain instead, s.
        highest_gain: of exposure time and gain together, over the fixed exposure; lowest is its reciprocal.
        white_balance: share of the grey-world correction that is applied, 0 to 1.
        white_balance_lag_s: time constant in which white balance follows, s.
        full_well_e: electrons of a saturated pixel without gain; 0 = no noise.
        read_noise_e: standard deviation of reading a pixel, electrons.
        vignetting: exponent of cos^4, 0 to 1.
        jpeg_quality: 1 to 100; 0 = not compressed.
    """

    exposure_target: float = 0.0
    exposure_lag_s: float = 0.0
    exposure_s: float = 0.0
    longest_exposure_s: float = 0.033
    highest_gain: float = 16.0
    white_balance: float = 0.0
    white_balance_lag_s: float = 0.0
    full_well_e: float = 0.0
    read_noise_e: float = 0.0
    vignetting: float = 0.0
    jpeg_quality: int = 0

    def __post_init__(self) -> None:
        highest = {
            "exposure_target": 0.9, "exposure_lag_s": 60.0, "exposure_s": 1.0, "white_balance": 1.0,
            "white_balance_lag_s": 60.0, "full_well_e": 1e6, "read_noise_e": 1e4, "vignetting": 1.0,
            "jpeg_quality": 100,
        }  # fmt: skip
        for name, high in highest.items():
            check_range(f"sensors.colour.{name}", getattr(self, name), 0.0, high)
        check_range("sensors.colour.longest_exposure_s", self.longest_exposure_s, 0.0, 1.0, open_low=True)
        check_range("sensors.colour.highest_gain", self.highest_gain, 1.0, 1000.0)

    @property
    def perfect(self) -> bool:
        """Whether every part is off."""
        parts = (self.exposure_target, self.exposure_s, self.white_balance, self.full_well_e, self.vignetting)
        return not any(parts) and not self.jpeg_quality

    @property
    def meters(self) -> bool:
        """Whether a frame depends on what was seen before it."""
        return bool(self.exposure_target or self.white_balance)

    def variance(self, level: float, gain: float = 1.0) -> float:
        """Return the variance of a pixel at a linear ``level``, in squares of the full range: a v + b."""
        if not self.full_well_e:
            return 0.0
        return gain * level / self.full_well_e + (gain * self.read_noise_e / self.full_well_e) ** 2


@dataclass(frozen=True)
class Exposure:
    """How one frame is taken.

    Attributes:
        level: factor of linear light, over the fixed exposure.
        time_s: the shutter is open.
        gain: how much of the factor is gain.
        white: factors (3,) of red, green and blue.
    """

    level: float = 1.0
    time_s: float = 0.0
    gain: float = 1.0
    white: tuple[float, float, float] = (1.0, 1.0, 1.0)


class ExposureControl:
    """Follows the light: tell it each frame's mean colour, ask it how the next frame is taken."""

    def __init__(self, settings: ColourSettings) -> None:
        self.settings = settings
        self._log_level = 0.0
        self._log_white: NDArray[np.float64] = np.zeros(3)
        self._mean: NDArray[np.float64] | None = None
        self._stamp_s = 0.0

    def next(self, stamp_s: float, mean_rgb: NDArray[np.float64]) -> Exposure:
        """Return the exposure of the frame at ``stamp_s``, whose mean linear colour (3,) steers the frames after it.

        The first frame finds a camera that has settled on it.
        """
        settled = self._mean is None
        seen = mean_rgb if self._mean is None else self._mean
        after_s = stamp_s - self._stamp_s
        level, white = self._wanted(seen)
        self._log_level += (1.0 if settled else _share(after_s, self.settings.exposure_lag_s)) * (
            level - self._log_level
        )
        self._log_white += (1.0 if settled else _share(after_s, self.settings.white_balance_lag_s)) * (
            white - self._log_white
        )
        self._mean, self._stamp_s = mean_rgb, stamp_s
        return self._exposure()

    def _wanted(self, mean_rgb: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return logarithms of level and white that would suit a mean colour (3,)."""
        settings = self.settings
        mean = np.maximum(mean_rgb, 1e-4)
        limit = math.log(settings.highest_gain)
        level = math.log(settings.exposure_target / float(mean.mean())) if settings.exposure_target else 0.0
        white = settings.white_balance * (math.log(float(mean[1])) - np.log(mean))
        return min(max(level, -limit), limit), np.clip(white, -math.log(3.0), math.log(3.0))

    def _exposure(self) -> Exposure:
        level, settings = math.exp(self._log_level), self.settings
        time_s = min(level * settings.exposure_s, settings.longest_exposure_s)
        gain = level * settings.exposure_s / time_s if time_s > 0 else level
        red, green, blue = np.exp(self._log_white).tolist()
        return Exposure(level, time_s, gain, (red, green, blue))


class ColourCamera:
    """Takes images from ideal ones, each as its :class:`Exposure` says; holds no state between frames."""

    def __init__(self, settings: ColourSettings, intrinsics: CameraIntrinsics) -> None:
        self.settings, self.intrinsics = settings, intrinsics
        x = (torch.arange(intrinsics.width) + 0.5 - intrinsics.cx) / intrinsics.fx
        y = (torch.arange(intrinsics.height) + 0.5 - intrinsics.cy) / intrinsics.fy
        self._falloff = (1.0 + x.square() + y.square()[:, None]).pow(-2.0 * settings.vignetting)
        self._px_per_rad = intrinsics.fx * (1.0 + x.square())

    def take(
        self,
        images: torch.Tensor,
        exposures: Sequence[Exposure],
        yaw_rates_radps: Sequence[float],
        generators: Sequence[torch.Generator],
    ) -> NDArray[np.uint8]:
        """Return images (B, H, W, 3) uint8 of ideal ones (B, 3, H, W) in [-1, 1]."""
        settings, device = self.settings, images.device
        light = linear(images)
        for row, exposure, yaw_rate in zip(light, exposures, yaw_rates_radps, strict=True):
            self._blur(row, abs(yaw_rate) * exposure.time_s)
        factors = torch.tensor([[e.level * white for white in e.white] for e in exposures], device=device)
        light *= factors[:, :, None, None]
        if settings.vignetting:
            light *= self._falloff.to(device)
        if settings.full_well_e:
            gains = torch.tensor([exposure.gain for exposure in exposures], device=device)
            self._add_noise(light, gains.clamp(min=1e-6), generators)
        shown = light.clamp_(0.0, 1.0).sqrt_().mul_(255.0).round_().to(torch.uint8)
        rgb: NDArray[np.uint8] = shown.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return np.stack([jpeg(image, settings.jpeg_quality) for image in rgb]) if settings.jpeg_quality else rgb

    def _blur(self, light: torch.Tensor, turned_rad: float) -> None:
        """Replace ``light`` (3, H, W) by its mean over a shift along the rows, in place."""
        if turned_rad * float(self._px_per_rad.max()) < 1.0:
            return  # within one pixel
        half = 0.5 * (self._px_per_rad.to(light.device) * turned_rad).clamp(min=1.0)
        reach = int(float(half.max()) + 0.5)
        offsets = torch.arange(-reach, reach + 1, device=light.device)[:, None].float()
        covered = (torch.minimum(half, offsets + 0.5) - torch.maximum(-half, offsets - 0.5)).clamp(min=0.0)
        shares = covered.div_(2.0 * half)  # of the pixels beside it in each column's mean
        around = torch.nn.functional.pad(light, (reach, reach), mode="replicate")
        light.zero_()
        for tap, share in enumerate(shares):
            light.addcmul_(around.narrow(-1, tap, light.shape[-1]), share)

    def _add_noise(self, light: torch.Tensor, gains: torch.Tensor, generators: Sequence[torch.Generator]) -> None:
        """Add shot and read noise to ``light`` (B, 3, H, W), in place."""
        settings = self.settings
        draws = torch.empty(light.shape, device=generators[0].device)
        for row, generator in zip(draws, generators, strict=True):
            row.normal_(generator=generator)
        per_level = (gains / settings.full_well_e)[:, None, None, None]
        read = (gains * settings.read_noise_e / settings.full_well_e).square()[:, None, None, None]
        light.addcmul_(draws.to(light.device), (light * per_level).add_(read).sqrt_())


def linear(images: torch.Tensor) -> torch.Tensor:
    """Return linear light in [0, 1] of images in [-1, 1]."""
    return images.mul(0.5).add_(0.5).clamp_(0.0, 1.0).square_()


def jpeg(rgb: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return ``rgb`` (H, W, 3) after JPEG at ``quality``."""
    import cv2

    _, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])


def _share(after_s: float, lag_s: float) -> float:
    """Return how much of the way to its target a first-order lag has gone after a time."""
    return 1.0 if lag_s <= 0 else 1.0 - math.exp(-max(after_s, 0.0) / lag_s)
