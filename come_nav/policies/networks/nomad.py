"""NoMaD (Sridhar et al. 2023, arXiv 2310.07896): actions by diffusion, with a goal or, where it is masked, without."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from come_nav.policies.networks.attention import PositionalEncoding, attention_layer
from come_nav.policies.networks.conditional_unet import ConditionalUnet1D
from come_nav.policies.networks.efficientnet import FEATURES, EfficientNetB0, scaled
from come_nav.policies.networks.vint import compression, image_tokens
from come_nav.policies.settings import PolicySettings


class GoalMaskedEncoder(nn.Module):
    """ViNT's encoder with group normalisation, whose goal token can be masked; the mean of the tokens comes out."""

    def __init__(self, settings: PolicySettings) -> None:
        super().__init__()
        width = settings.encoding_size
        features = scaled(FEATURES, settings.encoder_width)
        self.obs_encoder = EfficientNetB0(3, True, settings.encoder_width)
        self.goal_encoder = EfficientNetB0(6, True, settings.encoder_width)
        self.compress_obs_enc = compression(width, features)
        self.compress_goal_enc = compression(width, features)
        self.positional_encoding = PositionalEncoding(width, settings.frames + 1)
        self.sa_layer = attention_layer(width, settings.heads, settings.ff_factor)
        self.sa_encoder = nn.TransformerEncoder(self.sa_layer, settings.layers, enable_nested_tensor=False)

    def forward(self, images: Tensor, goal: Tensor, goal_masked: Tensor) -> Tensor:
        """Return conditions (B * G, C) of images (B, 3 * frames, H, W), G goals of each, and masks (B * G,) bool.

        ``goal`` is (B * G, 3, H, W), those of one context in a row. Images are encoded once for all of their goals, and
        masked goals not at all: nothing of them would reach the conditions.
        """
        share = len(goal) // len(images)
        seen = image_tokens(images, self.obs_encoder, self.compress_obs_enc).repeat_interleave(share, dim=0)
        wanted = self._goal_tokens(images[:, -3:].repeat_interleave(share, dim=0), goal, goal_masked)
        tokens = torch.cat([seen, wanted[:, None]], dim=1)
        hidden = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        hidden[:, -1] = goal_masked
        out = self.sa_encoder(self.positional_encoding(tokens), src_key_padding_mask=hidden)
        shown = (~hidden).to(out.dtype)[..., None]
        mean: Tensor = (out * shown).sum(dim=1) / shown.sum(dim=1)
        return mean

    def _goal_tokens(self, newest: Tensor, goal: Tensor, goal_masked: Tensor) -> Tensor:
        """Return tokens (B, C), zero where masked; one is encoded at least, so that every weight has a gradient."""
        rows = (~goal_masked).nonzero()[:, 0]
        if not len(rows):
            rows = torch.zeros(1, dtype=torch.long, device=goal.device)
        found = self.compress_goal_enc(self.goal_encoder(torch.cat([newest[rows], goal[rows]], dim=1)))
        tokens: Tensor = found.new_zeros(len(goal), found.shape[1]).index_copy(0, rows, found)
        return tokens


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
