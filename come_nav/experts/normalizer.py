"""Metres and radians to the numbers that a denoiser was trained on; saved in every checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError
from come_nav.core.geometry.se2 import wrap_angle

RELATIVE_TIME_FRAMES = 128.0  # NWM divides times in frames by this
LONGEST_WAVE = 8.0  # of context poses, in units of the normalizer
CONTEXT_TIME_FRAMES = 8.0  # brings the time offsets of context frames near one


@dataclass(frozen=True)
class Normalizer:
    """Maps actions (dx m, dy m, dyaw rad) to a denoiser's units; yaw stays in radians.

    Attributes:
        kind: "scale" divides dx, dy by ``scale_m``, so that zero means standing still; "range" is NWM's mapping of
            dx, dy in waypoint spacings from [min_xy, max_xy] to [-1, 1], where zero is NOT standing still.
        scale_m: metres per unit for "scale"; also the unit of context poses in both kinds.
        spacing_m: waypoint spacing for "range": recon .25, scand .38, tartan_drive .72, sacson .255 (NWM).
        min_xy, max_xy: ends of the range in spacings, forward and left.
    """

    kind: Literal["scale", "range"] = "scale"
    scale_m: float = 1.0
    spacing_m: float = 0.25
    min_xy: tuple[float, float] = (-2.5, -4.0)
    max_xy: tuple[float, float] = (5.0, 4.0)

    def __post_init__(self) -> None:
        check_range("normalizer.scale_m", self.scale_m, 0.0, open_low=True)
        check_range("normalizer.spacing_m", self.spacing_m, 0.0, open_low=True)
        if any(low >= high for low, high in zip(self.min_xy, self.max_xy, strict=True)):
            raise ConfigError(f"normalizer.max_xy must exceed min_xy {self.min_xy}, got {self.max_xy}")

    @classmethod
    def metric(cls, scale_m: float) -> Normalizer:
        """Return the plain normaliser, for which zero is standing still."""
        return cls(kind="scale", scale_m=scale_m)

    @classmethod
    def nwm(cls, spacing_m: float) -> Normalizer:
        """Return NWM's normaliser for a dataset of the given waypoint spacing."""
        return cls(kind="range", spacing_m=spacing_m)

    def action(self, action_xyyaw: Tensor) -> Tensor:
        """Map actions (..., 3) in metres and radians to the denoiser's units."""
        factor, offset = self._affine(action_xyyaw)
        return torch.cat([action_xyyaw[..., :2] * factor + offset, wrap_angle(action_xyyaw[..., 2:])], dim=-1)

    def action_from_normalized(self, normalized: Tensor) -> Tensor:
        """Map actions (..., 3) in the denoiser's units back to metres and radians."""
        factor, offset = self._affine(normalized)
        return torch.cat([(normalized[..., :2] - offset) / factor, normalized[..., 2:]], dim=-1)

    def relative_time(self, frames: Tensor) -> Tensor:
        """Map times in protocol frames to NWM's units."""
        return frames / RELATIVE_TIME_FRAMES

    def context_pose(self, poses_xyyaw: Tensor, frame_offsets: Tensor, octaves: int = 0) -> Tensor:
        """Return (B, T, 5 + 4 octaves): x, y, sin yaw, cos yaw and time of context frames with poses (B, T, 3).

        Sines and cosines of x and y follow, of a wavelength of 8 units and so many halvings of it.
        """
        x, y, yaw = (poses_xyyaw[..., index] for index in range(3))
        time = frame_offsets.to(poses_xyyaw) / CONTEXT_TIME_FRAMES
        values = [x / self.scale_m, y / self.scale_m, yaw.sin(), yaw.cos(), time]
        for octave in range(octaves):
            turns = 2.0 * math.pi * 2.0**octave / LONGEST_WAVE
            values += [wave(turns * values[axis]) for axis in (0, 1) for wave in (torch.sin, torch.cos)]
        return torch.stack(values, dim=-1)

    def absolute_pose(self, pose_xyyaw: Tensor) -> Tensor:
        """Return (..., 4): x, y, sin yaw, cos yaw of poses (..., 3) in the frame of an episode."""
        x, y, yaw = (pose_xyyaw[..., index] for index in range(3))
        return torch.stack([x / self.scale_m, y / self.scale_m, yaw.sin(), yaw.cos()], dim=-1)

    def _affine(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return factor and offset (2,) of ``normalized = metres * factor + offset``."""
        if self.kind == "scale":
            return like.new_full((2,), 1.0 / self.scale_m), like.new_zeros(2)
        low, high = like.new_tensor(self.min_xy), like.new_tensor(self.max_xy)
        return 2.0 / (self.spacing_m * (high - low)), -2.0 * low / (high - low) - 1.0
