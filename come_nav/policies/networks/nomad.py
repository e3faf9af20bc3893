"""NoMaD (Sridhar et al. 2023, arXiv 2310.07896): actions by diffusion, with a goal or, where it is masked, without."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from come_nav.policies.networks.attention import PositionalEncoding, attention_layer
from come_nav.policies.networks.conditional_unet import ConditionalUnet1D
from come_nav.policies.networks.efficientnet import EfficientNetB0
from come_nav.policies.networks.vint import compression, image_tokens
from come_nav.policies.settings import PolicySettings


class GoalMaskedEncoder(nn.Module):
    """ViNT's encoder with group normalisation, whose goal token can be masked; the mean of the tokens comes out."""

    def __init__(self, settings: PolicySettings) -> None:
        super().__init__()
        width = settings.encoding_size
        self.obs_encoder = EfficientNetB0(3, group_norm=True)
        self.goal_encoder = EfficientNetB0(6, group_norm=True)
        self.compress_obs_enc = compression(width)
        self.compress_goal_enc = compression(width)
        self.positional_encoding = PositionalEncoding(width, settings.frames + 1)
        self.sa_layer = attention_layer(width, settings.heads, settings.ff_factor)
        self.sa_encoder = nn.TransformerEncoder(self.sa_layer, settings.layers, enable_nested_tensor=False)

    def forward(self, images: Tensor, goal: Tensor, goal_masked: Tensor) -> Tensor:
        """Return conditions (B, C) of stacked images (B, 3 * frames, H, W), goals (B, 3, H, W) and masks (B,) bool."""
        goal_token = self.compress_goal_enc(self.goal_encoder(torch.cat([images[:, -3:], goal], dim=1)))
        tokens = torch.cat([image_tokens(images, self.obs_encoder, self.compress_obs_enc), goal_token[:, None]], dim=1)
        hidden = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        hidden[:, -1] = goal_masked
        out = self.sa_encoder(self.positional_encoding(tokens), src_key_padding_mask=hidden)
        shown = (~hidden).to(out.dtype)[..., None]
        mean: Tensor = (out * shown).sum(dim=1) / shown.sum(dim=1)
        return mean


class DistanceHead(nn.Module):
    """Three linear layers from a condition to the distance in protocol frames."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = (width // 4, width // 16)
        self.network = nn.Sequential(
            nn.Linear(width, inner[0]), nn.ReLU(), nn.Linear(inner[0], inner[1]), nn.ReLU(), nn.Linear(inner[1], 1)
        )

    def forward(self, condition: Tensor) -> Tensor:
        """Return (B, 1) of conditions (B, C)."""
        out: Tensor = self.network(condition)
        return out


class NoMaD(nn.Module):
    """Encoder, noise predictor and distance head."""

    def __init__(self, settings: PolicySettings) -> None:
        super().__init__()
        self.settings = settings
        width = settings.encoding_size
        self.vision_encoder = GoalMaskedEncoder(settings)
        self.noise_pred_net = ConditionalUnet1D(2, width, settings.down_dims, settings.cond_predict_scale)
        self.dist_pred_net = DistanceHead(width)
