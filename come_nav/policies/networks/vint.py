"""ViNT (Shah et al. 2023, arXiv 2306.14846): a token for each image and one for the goal, then attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from come_nav.policies.networks.attention import TokenDecoder
from come_nav.policies.networks.efficientnet import FEATURES, EfficientNetB0
from come_nav.policies.networks.gnm import waypoints_of
from come_nav.policies.settings import PolicySettings


class ViNT(nn.Module):
    """Distance to the goal and waypoints, of the newest images and the goal's image."""

    def __init__(self, settings: PolicySettings) -> None:
        super().__init__()
        self.settings = settings
        width = settings.encoding_size
        self.obs_encoder = EfficientNetB0(3)
        self.goal_encoder = EfficientNetB0(3 if settings.late_fusion else 6)
        self.compress_obs_enc = compression(width)
        self.compress_goal_enc = compression(width)
        heads, layers, factor = settings.heads, settings.layers, settings.ff_factor
        self.decoder = TokenDecoder(width, settings.frames + 1, heads, layers, factor)
        self.dist_predictor = nn.Sequential(nn.Linear(32, 1))
        self.action_predictor = nn.Sequential(nn.Linear(32, settings.waypoints * settings.action_numbers))

    def forward(self, images: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Return distance (B, 1) in protocol frames and waypoints (B, T, 4 or 2), as :class:`GNM` does."""
        sought = goal if self.settings.late_fusion else torch.cat([images[:, -3:], goal], dim=1)
        goal_token = self.compress_goal_enc(self.goal_encoder(sought))
        tokens = torch.cat([image_tokens(images, self.obs_encoder, self.compress_obs_enc), goal_token[:, None]], dim=1)
        x = self.decoder(tokens)
        return self.dist_predictor(x), waypoints_of(self.action_predictor(x), self.settings)


def compression(width: int, features: int = FEATURES) -> nn.Module:
    """Return the layer from an encoder's features to a token of ``width`` numbers."""
    return nn.Identity() if width == features else nn.Linear(features, width)


def image_tokens(images: Tensor, encoder: nn.Module, compress: nn.Module) -> Tensor:
    """Return a token for each image (B, frames, C) of stacked images (B, 3 * frames, H, W)."""
    frames = images.unflatten(1, (-1, 3))
    tokens: Tensor = compress(encoder(frames.transpose(0, 1).flatten(0, 1)))
    by_frame: Tensor = tokens.unflatten(0, (frames.shape[1], frames.shape[0]))
    return by_frame.transpose(0, 1)
