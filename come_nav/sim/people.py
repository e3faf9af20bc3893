"""People who walk through a built-in world, painted into what a camera sees there.

Each walks a closed way between free places at a constant speed. A person is an upright silhouette that faces the
camera, shaded as if it were round; it hides what is behind it and is hidden by what is before it. Robots do not run
into people, and people walk through robots: they are there to be seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.driving.grid_planner import GridPlanner
from come_nav.sim.spaces import DriveSpace, EpisodeRenderer
from come_nav.sim.worlds import World

SPEED_MPS = (0.6, 1.2)  # of people indoors
STOPS = 4
CLEARANCE_M = 0.3
NEAREST_M, FARTHEST_M = 0.4, 15.0
HIPS_M, SHOULDERS_M, HEAD_M, HEIGHT_M = 0.88, 1.42, 1.58, 1.72
LIGHT = 0.8


@dataclass(frozen=True)
class Walker:
    """One person: a closed way (N, 2) in the world, a speed, a share of full size, and colours of parts (3, 3)."""

    way_xy: NDArray[np.float64]
    speed_mps: float
    size: float
    colours: NDArray[np.float64]

    def at(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return positions (B, 2) at times (B,)."""
        steps = np.hypot(*np.diff(self.way_xy, axis=0).T)
        along = np.concatenate([[0.0], np.cumsum(steps)])
        place = (self.speed_mps * times_s) % along[-1]
        return np.stack([np.interp(place, along, self.way_xy[:, axis]) for axis in (0, 1)], axis=-1)


class Crowd:
    """The people of one world, seen by one camera."""

    def __init__(self, walkers: list[Walker], intrinsics: CameraIntrinsics, height_m: float, pitch_rad: float) -> None:
        self.walkers = walkers
        x = (torch.arange(intrinsics.width) + 0.5 - intrinsics.cx) / intrinsics.fx
        y = ((intrinsics.cy - torch.arange(intrinsics.height) - 0.5) / intrinsics.fy)[:, None]
        cosine, sine = math.cos(pitch_rad), math.sin(pitch_rad)
        self._forward, self._left, self._up = cosine - y * sine, -x, sine + y * cosine
        self._height_m = height_m
        self._widest = float((x.abs().max() / self._forward.min()).atan()) + 0.6

    def paint(
        self,
        images: torch.Tensor,
        depth_m: torch.Tensor,
        poses_world_xyyaw: NDArray[np.float64],
        times_s: NDArray[np.float64],
    ) -> None:
        """Paint everybody into images (B, 3, H, W) in [-1, 1] and z-depth (B, H, W), in place."""
        for walker in self.walkers:
            places = np.concatenate([walker.at(times_s), np.zeros((len(times_s), 1))], axis=1)
            seen = se2.relative(poses_world_xyyaw, places)
            for index, (ahead, aside, _) in enumerate(seen):
                away = math.hypot(ahead, aside)
                if NEAREST_M < away < FARTHEST_M and abs(math.atan2(aside, ahead)) < self._widest:
                    self._paint_one(images[index], depth_m[index], (ahead / away, aside / away), away, walker)

    def _paint_one(
        self,
        image: torch.Tensor,
        depth_m: torch.Tensor,
        direction: tuple[float, float],
        away_m: float,
        walker: Walker,
    ) -> None:
        forward, left, up = (part.to(image.device) for part in (self._forward, self._left, self._up))
        towards = forward * direction[0] + left * direction[1]
        z = away_m / towards.clamp(min=1e-3)
        aside = z * (left * direction[0] - forward * direction[1]) / walker.size
        height = (self._height_m + z * up) / walker.size
        part, edge = _silhouette(aside, height)
        shown = (part >= 0) & (towards > 0.05) & (z < depth_m)
        if not bool(shown.any()):
            return
        shade = LIGHT * (0.55 + 0.45 * (1.0 - edge.clamp(0.0, 1.0).square()).sqrt())
        colours = torch.as_tensor(walker.colours, dtype=image.dtype, device=image.device)[part.clamp(min=0)]
        painted = (colours * shade[..., None]).permute(2, 0, 1).mul(2.0).sub_(1.0)
        image.copy_(torch.where(shown, painted, image))
        depth_m.copy_(torch.where(shown, z, depth_m))


def crowd_of(renderer: EpisodeRenderer, world: DriveSpace) -> Crowd | None:
    """Return the people of a world as the renderer's camera sees them; None where nobody walks."""
    if not isinstance(world, World) or world.settings.people == 0:
        return None
    return Crowd(walkers_of(world), renderer.intrinsics, renderer.camera_height_m, renderer.pitch_rad)


def walkers_of(world: World) -> list[Walker]:
    """Return the people of a world: the same ones for the same seed and visit."""
    rng = np.random.default_rng([world.seed, 4, world.settings.visit])
    planner = GridPlanner(world, CLEARANCE_M)
    return [_walker(planner, rng) for _ in range(world.settings.people)]


def _walker(planner: GridPlanner, rng: np.random.Generator) -> Walker:
    stops = [planner.random_point(rng, CLEARANCE_M) for _ in range(STOPS)]
    legs = [planner.plan(start, stop) for start, stop in zip(stops, [*stops[1:], stops[0]], strict=True)]
    ways = [leg for leg in legs if leg is not None and len(leg) > 1]
    x, y = stops[0]
    way = np.concatenate(ways) if ways else np.array([[x, y], [x + 0.01, y]])
    skin = np.array([0.85, 0.62, 0.5]) * rng.uniform(0.4, 1.1)
    colours: NDArray[np.float64] = np.stack([rng.uniform(0.05, 0.6, 3), rng.uniform(0.1, 0.95, 3), skin])
    return Walker(way, float(rng.uniform(*SPEED_MPS)), float(rng.uniform(0.85, 1.08)), colours.clip(0.0, 1.0))


def _silhouette(aside_m: torch.Tensor, height_m: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the part at each point (0 legs, 1 trunk, 2 head, -1 none), and how far it is towards the part's edge."""
    distance = aside_m.abs()
    legs = (distance - 0.1).abs() / 0.08
    wide = 0.17 + 0.06 * ((height_m - HIPS_M) / (SHOULDERS_M - HIPS_M)).clamp(0.0, 1.0)
    trunk = distance / wide
    head = torch.hypot(distance / 0.1, (height_m - HEAD_M) / (HEIGHT_M - HEAD_M))
    part = torch.full(distance.shape, -1, dtype=torch.long, device=distance.device)
    edge = torch.ones_like(distance)
    for number, (reach, inside) in enumerate(
        (
            (legs, (height_m > 0.0) & (height_m <= HIPS_M)),
            (trunk, (height_m > HIPS_M) & (height_m <= SHOULDERS_M)),
            (head, height_m > SHOULDERS_M),
        )
    ):
        here = inside & (reach < 1.0)
        part = torch.where(here, number, part)
        edge = torch.where(here, reach, edge)
    return part, edge
