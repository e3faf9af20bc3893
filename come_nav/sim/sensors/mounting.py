"""Which camera a robot has and where it is mounted, drawn from ranges.

The ranges of the preset cover what the robots of public data sets carry: from 57 degrees (Kinect, RealSense D435's
colour at 69) to 110 (wide webcams), from 0.15 m (vacuum robots) to 1.5 m (Pepper, TIAGo and other service robots).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError
from come_nav.core.types import CameraIntrinsics

Range = tuple[float, float]


@dataclass(frozen=True)
class CameraSettings:
    """Ranges that a camera is drawn from, uniformly; equal ends fix a value.

    Attributes:
        hfov_deg: width of view, degrees, 10 to 120; 0 = such that the central square of the image is 90 wide.
        height_m: above the floor, m.
        pitch_deg: of the optical axis, degrees, positive = looks up.
        aspect: width over height; for cameras whose size in pixels is not asked for.
    """

    hfov_deg: Range = (0.0, 0.0)
    height_m: Range = (0.5, 0.5)
    pitch_deg: Range = (0.0, 0.0)
    aspect: Range = (1.0, 1.0)

    def __post_init__(self) -> None:
        narrowest = 0.0 if self.hfov_deg == (0.0, 0.0) else 10.0
        limits = {
            "hfov_deg": (narrowest, 120.0),
            "height_m": (0.05, 2.2),
            "pitch_deg": (-30.0, 30.0),
            "aspect": (0.5, 3.0),
        }
        for name, (low, high) in limits.items():
            ends = getattr(self, name)
            for end in ends:
                check_range(f"sensors.camera.{name}", end, low, high)
            if ends[0] > ends[1]:
                raise ConfigError(f"sensors.camera.{name} must be a range [low, high], got {list(ends)}")


@dataclass(frozen=True)
class MountedCamera:
    """A camera over the origin of base_link: intrinsics, height above the floor and pitch (positive = looks up)."""

    intrinsics: CameraIntrinsics
    height_m: float = 0.5
    pitch_rad: float = 0.0


def default_fov_rad(width: int, height: int) -> float:
    """Return how wide the robot's camera of that many pixels sees: 90 degrees of a square one, 106 of 320x240."""
    return 2.0 * math.atan(width / min(width, height))


def draw_camera(
    settings: CameraSettings,
    generator: torch.Generator,
    short_side_px: int = 64,
    size_px: tuple[int, int] | None = None,
) -> MountedCamera:
    """Draw a camera.

    Args:
        settings: the ranges.
        generator: four numbers are drawn.
        short_side_px: of the image, where ``size_px`` is None; the other side follows from the aspect, and is even.
        size_px: width and height, as asked for.
    """
    shares = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    ranges = (settings.hfov_deg, settings.height_m, settings.pitch_deg, settings.aspect)
    hfov, height, pitch, aspect = (
        low + (high - low) * share for (low, high), share in zip(ranges, shares, strict=True)
    )
    if size_px is None:
        longer = max(aspect, 1.0 / aspect)
        long_px = short_side_px if longer == 1.0 else 2 * round(0.5 * longer * short_side_px)
        size_px = (long_px, short_side_px) if aspect >= 1.0 else (short_side_px, long_px)
    intrinsics = CameraIntrinsics.from_field_of_view(*size_px, math.radians(hfov) or default_fov_rad(*size_px))
    return MountedCamera(intrinsics, height, math.radians(pitch))
