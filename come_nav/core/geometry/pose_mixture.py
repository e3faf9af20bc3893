"""Mixtures of normal distributions over planar poses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from come_nav.core.geometry.se2 import integrate_twist, wrap_angle

LOG_SQRT_2PI = 0.9189385332046727
LEAST_SIGMA = 0.03  # m and rad, of priors of motion: what is sharper than that is of no use, and rash


@dataclass(frozen=True)
class PoseMixture:
    """Where something will be at T times: for each of B, a mixture of K normal distributions with diagonal covariance.

    Yaw counts as the shorter way round, so that a spread well below half a turn is meant.

    Attributes:
        times_s: (B, T) ahead.
        log_weights: (B, T, K), normalised.
        means_xyyaw: (B, T, K, 3).
        sigmas: (B, T, K, 3) standard deviations, m, m and rad.
    """

    times_s: Tensor
    log_weights: Tensor
    means_xyyaw: Tensor
    sigmas: Tensor

    def log_density(self, poses_xyyaw: Tensor, least_sigma: float = 0.0) -> Tensor:
        """Return the log density (B, T) of poses (B, T, 3), no standard deviation below ``least_sigma`` (m and rad)."""
        sigmas = self.sigmas.clamp(min=least_sigma)
        away = poses_xyyaw[..., None, :] - self.means_xyyaw
        away = torch.cat([away[..., :2], wrap_angle(away[..., 2:])], dim=-1) / sigmas
        each = (-0.5 * away**2 - sigmas.log() - LOG_SQRT_2PI).sum(dim=-1)
        return torch.logsumexp(self.log_weights + each, dim=-1)

    def log_peak(self, least_sigma: float = 0.0) -> Tensor:
        """Return the log density (B, T) in the middle of the component where it is largest."""
        middles = self.means_xyyaw.unbind(dim=-2)
        return torch.stack([self.log_density(middle, least_sigma) for middle in middles]).amax(dim=0)

    @property
    def mean_xyyaw(self) -> Tensor:
        """The mean pose (B, T, 3); of yaw, the direction of the mean unit vector."""
        weights = self.log_weights.exp()[..., None]
        xy = (weights * self.means_xyyaw[..., :2]).sum(dim=-2)
        yaw = self.means_xyyaw[..., 2:]
        mean_yaw = torch.atan2((weights * yaw.sin()).sum(dim=-2), (weights * yaw.cos()).sum(dim=-2))
        return torch.cat([xy, mean_yaw], dim=-1)


def poses_at_constant_twist(twist: Tensor, times_s: Tensor) -> Tensor:
    """Return where a twist (B, 2), m/s and rad/s, leads at times (B, T): poses (B, T, 3)."""
    return integrate_twist(twist[:, None, 0], twist[:, None, 1], times_s)
