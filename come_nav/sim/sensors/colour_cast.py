"""Colours of a drive seen otherwise, as cameras process them and rooms of another taste have them.

It is a change of what the camera delivers, after exposure, noise and JPEG; the lens's share is of the camera itself.

Domain randomisation (Tobin et al. 2017, arXiv 1703.06907): a network that meets every cast of colours in training takes
those of unseen parts from what it is shown, not from the palette of the simulator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from come_nav.sim.sensors.chain import generator_of

CAST_STREAM = 65  # number of the random stream
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
LOG2_GAIN, LOG_GAMMA, CHANNEL_SHARE, HUE_RAD = 0.8, 0.35, 0.15, math.pi  # of values, at the ends of spread 1
SATURATION = (0.1, 1.5)


@dataclass(frozen=True)
class ColourCast:
    """A change of colours, the same for all images of a drive.

    Attributes:
        gamma: exponent of each value in [0, 1].
        matrix: (3, 3) that is applied to RGB after it: hue, saturation, gain of each channel.
        vignetting: share of the preset's that the drive's lens has; for the camera to apply, not in a call. A network
            that knows one lens can take its falloff for that of all cameras.
    """

    gamma: float
    matrix: Tensor
    vignetting: float = 1.0

    @classmethod
    def draw(cls, spread: float, seed: int) -> ColourCast:
        """Draw a cast for the drive of this ``seed``; spread 0 changes nothing, 1 changes most."""
        generator = generator_of(seed, CAST_STREAM)
        gain, gamma, saturation, hue, *channels = (2.0 * torch.rand(7, generator=generator) - 1.0).tolist()
        lens = 1.0 - spread * float(torch.rand((), generator=generator))
        to_end = SATURATION[1] - 1.0 if saturation > 0.0 else 1.0 - SATURATION[0]
        grey = torch.tensor(LUMA).expand(3, 3)
        colour = _turned_hue(spread * hue * HUE_RAD) - grey  # of what is not grey
        scale = torch.tensor([1.0 + spread * CHANNEL_SHARE * channel for channel in channels])
        matrix = grey + (1.0 + spread * saturation * to_end) * colour
        brightness = 2.0 ** (spread * gain * LOG2_GAIN)
        return cls(math.exp(spread * gamma * LOG_GAMMA), brightness * scale[:, None] * matrix, lens)

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (N, 3, H, W) in [-1, 1], changed."""
        values = images.add(1.0).mul(0.5).clamp(0.0, 1.0) ** self.gamma
        changed = torch.einsum("ij,njhw->nihw", self.matrix.to(values), values)
        cast: Tensor = changed.clamp(0.0, 1.0).mul(2.0).sub(1.0)
        return cast


def _turned_hue(angle_rad: float) -> Tensor:
    """Return the matrix (3, 3) that turns colours by ``angle_rad`` about grey and keeps their luma (YIQ)."""
    to_yiq = torch.tensor([LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)], dtype=torch.float64)
    cosine, sine = math.cos(angle_rad), math.sin(angle_rad)
    turn = torch.tensor([[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]], dtype=torch.float64)
    turned: Tensor = (torch.linalg.inv(to_yiq) @ turn @ to_yiq).float()
    return turned
