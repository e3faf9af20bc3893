"""GNM (Shah et al. 2022, arXiv 2210.03370): stacked images through two MobileNetV2, to a distance and waypoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from come_nav.policies.networks.mobilenet import FEATURES, mobilenet_features
from come_nav.policies.settings import PolicySettings


class GNM(nn.Module):
    """Distance to the goal and waypoints, of the newest images stacked on channels and the goal's image."""

    def __init__(self, settings: PolicySettings) -> None:
        super().__init__()
        self.settings = settings
        width = settings.encoding_size
        self.obs_mobilenet = mobilenet_features(3 * settings.frames)
        self.compress_observation = nn.Sequential(nn.Linear(FEATURES, width), nn.ReLU())
        self.goal_mobilenet = mobilenet_features(3 * (settings.frames + 1))
        self.compress_goal = nn.Sequential(nn.Linear(FEATURES, 1024), nn.ReLU(), nn.Linear(1024, width), nn.ReLU())
        self.linear_layers = nn.Sequential(nn.Linear(2 * width, 256), nn.ReLU(), nn.Linear(256, 32), nn.ReLU())
        self.dist_predictor = nn.Sequential(nn.Linear(32, 1))
        self.action_predictor = nn.Sequential(nn.Linear(32, settings.waypoints * settings.action_numbers))

    def forward(self, images: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Return distance (B, 1) in protocol frames and waypoints (B, T, 4 or 2), spacings and cos, sin of the yaw.

        ``images`` (B, 3 * frames, H, W) oldest first and ``goal`` (B, 3, H, W) have ImageNet's mean and spread removed.
        """
        seen = self.compress_observation(_pooled(self.obs_mobilenet(images)))
        sought = self.compress_goal(_pooled(self.goal_mobilenet(torch.cat([images, goal], dim=1))))
        x = self.linear_layers(torch.cat([seen, sought], dim=1))
        return self.dist_predictor(x), waypoints_of(self.action_predictor(x), self.settings)


def waypoints_of(numbers: Tensor, settings: PolicySettings) -> Tensor:
    """Return waypoints (B, T, 2 or 4) of a head's numbers (B, T * N): steps summed up, headings of length 1."""
    steps = numbers.unflatten(1, (settings.waypoints, settings.action_numbers))
    places = torch.cumsum(steps[..., :2], dim=1)
    return torch.cat([places, functional.normalize(steps[..., 2:], dim=-1)], dim=-1) if settings.learn_angle else places


def _pooled(maps: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(maps, 1).flatten(start_dim=1)
