"""What robots, drivers and recordings need of a place, be it built of boxes or read from a mesh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.types import CameraIntrinsics

GRID_M = 0.05


class DriveSpace(Protocol):
    """A place to drive in; metres, floor at z = 0."""

    @property
    def seed(self) -> int:
        """Seed of a procedural world, negative for a mesh."""
        ...

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1)."""
        ...

    @property
    def distance_grid(self) -> NDArray[np.float32]:
        """(X, Y) distance of the centres of 5 cm cells, counted from (x0, y0), to the nearest obstacle."""
        ...

    @property
    def solid(self) -> NDArray[np.float64] | None:
        """(M, 5) footprints for exact tests, or None when the grid decides."""
        ...

    @property
    def rooms(self) -> torch.Tensor:
        """(R, 4) rectangles x0, y0, x1, y1."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """Entries for a recording's metadata."""
        ...

    def free(self, points_xy: torch.Tensor, radius_m: float) -> torch.Tensor:
        """Whether discs at points (..., 2) touch nothing, as bool (...)."""
        ...

    def room_of(self, points_xy: torch.Tensor) -> torch.Tensor:
        """Index (...) of the room of each point (..., 2), or -1."""
        ...

    def polygons(self) -> list[tuple[NDArray[np.float64], tuple[float, float, float]]]:
        """Shapes (corners (P, 2), colour) that make a map."""
        ...


class EpisodeRenderer(Protocol):
    """A camera on a robot in one of several places (:class:`Raycaster` or :class:`MeshRaycaster`)."""

    @property
    def worlds(self) -> Sequence[DriveSpace]:
        """The places."""
        ...

    @property
    def intrinsics(self) -> CameraIntrinsics:
        """The camera."""
        ...

    @property
    def camera_height_m(self) -> float:
        """Height of the camera above the floor."""
        ...

    @property
    def pitch_rad(self) -> float:
        """Pitch of its optical axis, positive = looks up."""
        ...

    def with_camera(self, intrinsics: CameraIntrinsics) -> EpisodeRenderer:
        """Return a renderer of the same places with another camera in the same place on the robot."""
        ...

    def render(
        self, poses_world_xyyaw: torch.Tensor, world_index: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (B, 3, H, W) in [-1, 1] and depth (B, H, W) in metres for poses (B, 3)."""
        ...
