"""Cameras of many robots: drawn at random, and rendered with any pitch and roll by the level ray-caster."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.raycaster import Raycaster

OVERSAMPLING = 2  # per axis, of colours where a level view is turned: near floor is finer in it than in the result
OUTLINE = 0.1  # where interpolated and nearest inverse depth differ by more than this share lies an outline
MARGIN_PX = 2.0


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
        for name, (least, most) in bounds.items():
            low, high = getattr(self, name)
            check_range(f"cameras.{name}", low, least, most)
            check_range(f"cameras.{name}", high, least, most)
            if low > high:
                raise ConfigError(f"cameras.{name} must be low, high in this order, got {low}, {high}")
        check_range("cameras.off_centre", self.off_centre, 0.0, 0.2)
        check_range("cameras.stretch", self.stretch, 0.0, 0.2)

    def draw(self, image_size: int, generator: torch.Generator) -> TiltedCamera:
        """Return a camera of a square image; the same generator state gives the same one."""
        share = torch.rand(8, generator=generator, dtype=torch.float64).tolist()

        def between(name: str, number: int) -> float:
            low, high = getattr(self, name)
            return float(low + (high - low) * share[number])

        focal = 0.5 * between("aspect", 1) / math.tan(0.5 * math.radians(between("horizontal_fov_deg", 0)))
        stretch = 1.0 + self.stretch * (2.0 * share[7] - 1.0)
        centre = (0.5 + self.off_centre * (2.0 * share[number] - 1.0) for number in (5, 6))
        fx, fy, cx, cy = (image_size * value for value in (focal, focal * stretch, *centre))
        return TiltedCamera(
            CameraIntrinsics(image_size, image_size, fx, fy, cx, cy),
            between("height_m", 2),
            math.radians(between("pitch_deg", 3)),
            math.radians(between("roll_deg", 4)),
        )


@dataclass(frozen=True)
class TiltedCamera:
    """A camera over base_link's origin: its image, its height above the floor (m), pitch (up) and roll, rad."""

    intrinsics: CameraIntrinsics
    height_m: float = 0.5
    pitch_rad: float = 0.0
    roll_rad: float = 0.0

    @property
    def R_level_camera(self) -> NDArray[np.float64]:
        """Rotation (3, 3) of the optical frame against the one of a level camera at the same place."""
        pitch, roll = (
            (math.cos(self.pitch_rad), math.sin(self.pitch_rad)),
            (math.cos(self.roll_rad), math.sin(self.roll_rad)),
        )
        up = np.array([[1.0, 0.0, 0.0], [0.0, pitch[0], -pitch[1]], [0.0, pitch[1], pitch[0]]])
        turned = np.array([[roll[0], -roll[1], 0.0], [roll[1], roll[0], 0.0], [0.0, 0.0, 1.0]])
        return np.asarray(up @ turned)

    @property
    def T_base_camera(self) -> NDArray[np.float64]:
        """Extrinsics (4, 4)."""
        return se3.make_transform(se3.R_BODY_OPTICAL @ self.R_level_camera, np.array([0.0, 0.0, self.height_m]))


class TiltedRaycaster:
    """Renders worlds through a camera of any pitch and roll (a ``ViewRenderer``): a wide level view, turned.

    Turning about the centre of a camera moves no point against another, so it needs no depth and loses nothing but the
    sharpness of a resampling; the level view is rendered as fine as the camera's centre, and finer towards the floor.
    """

    def __init__(self, raycaster: Raycaster, camera: TiltedCamera) -> None:
        """Look into the worlds of ``raycaster``, whose own camera does not count."""
        self.camera, self.intrinsics, self.camera_height_m = camera, camera.intrinsics, camera.height_m
        self.level_view = camera.pitch_rad == 0.0 and camera.roll_rad == 0.0
        intrinsics = camera.intrinsics if self.level_view else _level_cover(camera)
        self._raycaster = raycaster.with_camera(intrinsics, camera.height_m)
        device = raycaster.device
        self._colour_grid, _ = _lookup(camera, intrinsics, OVERSAMPLING, device)
        self._depth_grid, self._rise = _lookup(camera, intrinsics, 1, device)

    @torch.no_grad()
    def render(self, poses_world_xyyaw: Tensor, world_index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W) in [-1, 1] and z-depth (B, H, W) in m; see :meth:`Raycaster.render`."""
        images, depth = self._raycaster.render(poses_world_xyyaw, world_index)
        if self.level_view:
            return images, depth
        rows = len(images)
        places, depth_places = (grid.expand(rows, -1, -1, -1) for grid in (self._colour_grid, self._depth_grid))
        fine = grid_sample(images, places, "bilinear", "border", align_corners=False)
        inverse = 1.0 / depth[:, None]  # linear over the image of a plane, so that interpolating it is exact there
        nearest, smooth = (
            grid_sample(inverse, depth_places, mode, "border", align_corners=False)[:, 0]
            for mode in ("nearest", "bilinear")
        )
        of_surface = torch.where((smooth / nearest - 1.0).abs() < OUTLINE, smooth, nearest)
        return avg_pool2d(fine, OVERSAMPLING), 1.0 / (of_surface * self._rise)


def _rays(camera: TiltedCamera, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rays (R, C, 3) of unit depth through pixels, in the level camera's optical frame."""
    own = camera.intrinsics
    right, down = np.meshgrid((columns - own.cx) / own.fx, (rows - own.cy) / own.fy)
    rays = np.stack([right, down, np.ones_like(right)], -1) @ camera.R_level_camera.T
    if rays[..., 2].min() < 0.05:
        raise ConfigError(
            f"a camera pitched by {math.degrees(camera.pitch_rad):.0f} degrees with so wide a view sees straight down "
            "or up, which the built-in worlds cannot show: lower its pitch or its field of view"
        )
    return np.asarray(rays)


def _level_cover(camera: TiltedCamera) -> CameraIntrinsics:
    """Return the level camera of the same focal length whose image holds everything that ``camera`` sees."""
    own = camera.intrinsics
    rows: NDArray[np.float64] = np.linspace(0.0, own.height, 17, dtype=np.float64)
    rays = _rays(camera, rows, np.linspace(0.0, own.width, 17, dtype=np.float64))
    slopes = rays[..., :2] / rays[..., 2:]
    focal = np.array([own.fx, own.fy])
    low, high = (edge * focal for edge in (slopes.min((0, 1)), slopes.max((0, 1))))
    width, height = (math.ceil(extent + 2.0 * MARGIN_PX) for extent in high - low)
    return CameraIntrinsics(width, height, own.fx, own.fy, MARGIN_PX - low[0], MARGIN_PX - low[1])


def _lookup(camera: TiltedCamera, level: CameraIntrinsics, fine: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return where in the level image each pixel lies (1, H, W, 2) in [-1, 1], and the level depth of its unit ray."""
    own = camera.intrinsics
    rows, columns = ((np.arange(size * fine) + 0.5) / fine for size in (own.height, own.width))
    rays = _rays(camera, rows, columns)
    u = (level.fx * rays[..., 0] / rays[..., 2] + level.cx) / level.width
    v = (level.fy * rays[..., 1] / rays[..., 2] + level.cy) / level.height
    grid = torch.from_numpy(np.stack([u, v], -1)[None] * 2.0 - 1.0)
    return grid.float().to(device), torch.from_numpy(rays[..., 2]).float().to(device)
