"""Which camera a robot has and where it is mounted, drawn from ranges.

The ranges of the preset cover what the robots of public data sets carry: from 57 degrees (Kinect, RealSense D435's
colour at 69) to 110 (wide webcams), from 0.15 m (vacuum robots) to 1.5 m (Pepper, TIAGo and other service robots).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se3
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
        _check_ranges(self, "sensors.camera", limits)


@dataclass(frozen=True)
class MountedCamera:
    """A camera over the origin of base_link.

    Attributes:
        intrinsics: of its image.
        height_m: above the floor, m.
        pitch_rad: of the optical axis, positive = looks up.
        roll_rad: positive = clockwise, seen along the view.
    """

    intrinsics: CameraIntrinsics
    height_m: float = 0.5
    pitch_rad: float = 0.0
    roll_rad: float = 0.0

    @property
    def R_level_camera(self) -> NDArray[np.float64]:
        """Rotation (3, 3) of the optical frame against the one of a level camera at the same place."""
        return tilt(self.pitch_rad, self.roll_rad)

    @property
    def T_base_camera(self) -> NDArray[np.float64]:
        """Extrinsics (4, 4)."""
        return camera_in_base(self.height_m, self.pitch_rad, self.roll_rad)

    @property
    def rays_optical(self) -> NDArray[np.float64]:
        """Rays (H, W, 3) through the pixels in the optical frame, one metre deep."""
        own = self.intrinsics
        right, down = np.meshgrid(
            (np.arange(own.width) + 0.5 - own.cx) / own.fx, (np.arange(own.height) + 0.5 - own.cy) / own.fy
        )
        return np.stack([right, down, np.ones_like(right)], axis=-1)


def tilt(pitch_rad: float, roll_rad: float) -> NDArray[np.float64]:
    """Return the rotation (3, 3) from the optical frame of a tilted camera to that of a level one."""
    pitch, roll = ((math.cos(angle), math.sin(angle)) for angle in (pitch_rad, roll_rad))
    up = np.array([[1.0, 0.0, 0.0], [0.0, pitch[0], -pitch[1]], [0.0, pitch[1], pitch[0]]])
    turned = np.array([[roll[0], -roll[1], 0.0], [roll[1], roll[0], 0.0], [0.0, 0.0, 1.0]])
    return np.asarray(up @ turned)


def camera_in_base(camera_height_m: float, pitch_rad: float = 0.0, roll_rad: float = 0.0) -> NDArray[np.float64]:
    """Return T_base_camera (4, 4) of a camera over the origin of base_link that looks along x and up."""
    return se3.make_transform(se3.R_BODY_OPTICAL @ tilt(pitch_rad, roll_rad), np.array([0.0, 0.0, camera_height_m]))


@dataclass(frozen=True)
class CameraRanges:
    """What cameras are drawn from, evenly; the model's image is the largest centred square of theirs.

    Attributes:
        horizontal_fov_deg: field of view of the whole image's width, degrees.
        aspect: width over height of the whole image.
        height_m: of the camera above the floor, m.
        pitch_deg: up is positive, degrees.
        roll_deg: clockwise seen along the view is positive, degrees.
        off_centre: of the principal point, share of the square's side.
        stretch: of fy against fx, share.
    """

    horizontal_fov_deg: tuple[float, float] = (50.0, 110.0)
    aspect: tuple[float, float] = (1.0, 16.0 / 9.0)
    height_m: tuple[float, float] = (0.15, 1.5)
    pitch_deg: tuple[float, float] = (-20.0, 15.0)
    roll_deg: tuple[float, float] = (-2.0, 2.0)
    off_centre: float = 0.03
    stretch: float = 0.03

    def __post_init__(self) -> None:
        bounds = {
            "horizontal_fov_deg": (20.0, 120.0),
            "aspect": (1.0, 3.0),
            "height_m": (0.05, 2.0),
            "pitch_deg": (-30.0, 30.0),
            "roll_deg": (-15.0, 15.0),
        }
        _check_ranges(self, "cameras", bounds)
        check_range("cameras.off_centre", self.off_centre, 0.0, 0.2)
        check_range("cameras.stretch", self.stretch, 0.0, 0.2)

    def draw(self, image_size: int, generator: torch.Generator) -> MountedCamera:
        """Return a camera of a square image; the same generator state gives the same one."""
        share = torch.rand(8, generator=generator, dtype=torch.float64).tolist()

        def between(name: str, number: int) -> float:
            low, high = getattr(self, name)
            return float(low + (high - low) * share[number])

        focal = 0.5 * between("aspect", 1) / math.tan(0.5 * math.radians(between("horizontal_fov_deg", 0)))
        stretch = 1.0 + self.stretch * (2.0 * share[7] - 1.0)
        centre = (0.5 + self.off_centre * (2.0 * share[number] - 1.0) for number in (5, 6))
        fx, fy, cx, cy = (image_size * value for value in (focal, focal * stretch, *centre))
        return MountedCamera(
            CameraIntrinsics(image_size, image_size, fx, fy, cx, cy),
            between("height_m", 2),
            math.radians(between("pitch_deg", 3)),
            math.radians(between("roll_deg", 4)),
        )


def _check_ranges(settings: object, where: str, limits: dict[str, Range]) -> None:
    """Raise ConfigError where a range of ``settings`` leaves its limits or is turned round."""
    for name, (least, most) in limits.items():
        low, high = getattr(settings, name)
        for end in (low, high):
            check_range(f"{where}.{name}", end, least, most)
        if low > high:
            raise ConfigError(f"{where}.{name} must be low, high in this order, got {low}, {high}")


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
