"""A mixture density network (Bishop 1994) of where a robot will be: images, depth and its own motion in, poses out.

It stands in for the prior of a robot that goes on as it moves now: people and drivers turn where a wall stands before
them, go through doors and slow down, and a view tells where. It knows nothing of a goal; that is the imagination's
business, and the two multiply: prior times likelihood.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from come_nav.core.geometry import se2
from come_nav.core.geometry.pose_mixture import PoseMixture, poses_at_constant_twist
from come_nav.policies.motion.settings import MotionSettings

VIEWS = 2  # images that it looks at: the newest and the oldest
CHANNELS = 5  # red, green, blue, inverse depth in 1/m, and where depth is known
SCALE = (0.175, 0.175, 0.3)  # of the way from the constant twist that counts as 1 after 1 s: m, m, rad
LOG_SIGMA = (-5.0, 3.0)  # of the same units
NEAREST_M = 0.2  # inverse depth is bounded there


class MotionNetwork(nn.Module):
    """Views, facts and times to mixtures of poses, each around where the present twist leads."""

    def __init__(self, settings: MotionSettings) -> None:
        super().__init__()
        self.settings = settings
        width, hidden, half = settings.width, settings.hidden, settings.width // 2
        self.encoder = nn.Sequential(
            nn.Conv2d(CHANNELS, half, 4, stride=4),
            Residual(half),
            nn.Conv2d(half, width, 2, stride=2),
            Residual(width),
            Residual(width),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, 16, 1),
            nn.Flatten(),
        )
        self.facts = nn.Sequential(nn.Linear(settings.facts, 128), nn.SiLU(), nn.Linear(128, 256), nn.SiLU())
        seen = VIEWS * 16 * (settings.image_size // 8) ** 2
        self.join = nn.Sequential(nn.LayerNorm(seen + 256), nn.Linear(seen + 256, hidden), nn.LayerNorm(hidden))
        self.time = nn.Linear(4, hidden)
        self.head = nn.Sequential(
            nn.SiLU(), nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        self.out = nn.Linear(hidden, 7 * settings.components)
        nn.init.zeros_(self.out.weight)
        nn.init.normal_(self.out.bias, std=0.5)  # components that are alike would stay alike

    def forward(self, views: Tensor, facts: Tensor, twist: Tensor, times_s: Tensor) -> PoseMixture:
        """Return mixtures of poses (B, T, K, 3) in the newest base.

        Args:
            views: (B, 2, 5, S, S) images in [-1, 1], inverse depth and where that is known; newest, then oldest.
            facts: (B, F) of :func:`motion_facts`.
            twist: (B, 2) present speed, m/s, and yaw rate, rad/s.
            times_s: (B, T) ahead, s, > 0.
        """
        share = times_s * self.settings.rate_hz / self.settings.max_steps
        waves = torch.stack([share, share**2, torch.sin(3.0 * share), torch.cos(3.0 * share)], dim=-1)
        seen = self.encoder(views.flatten(0, 1)).view(len(views), -1)
        joined = self.join(torch.cat([seen, self.facts(facts).to(seen)], dim=1))
        numbers = self.out(self.head(joined[:, None] + self.time(waves))).float()
        numbers = numbers.unflatten(-1, (self.settings.components, 7))
        scale = numbers.new_tensor(SCALE) * times_s[..., None, None]
        onward = poses_at_constant_twist(twist, times_s.float())
        means = onward[:, :, None] + numbers[..., 1:4] * scale
        sigmas = numbers[..., 4:].clamp(*LOG_SIGMA).exp() * scale
        return PoseMixture(times_s, numbers[..., 0].log_softmax(-1), means, sigmas)


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W)."""
        added: Tensor = x + self.layers(x)
        return added


def motion_views(images: Tensor, depth_m: Tensor) -> Tensor:
    """Return (B, 2, 5, S, S) of images (B, T, 3, S, S) in [-1, 1] and z-depth (B, T, S, S) in m, 0 or NaN = unknown."""
    ends = torch.tensor([images.shape[1] - 1, 0])
    images, depth_m = images[:, ends], torch.nan_to_num(depth_m[:, ends])
    known = depth_m > 0.0
    inverse = torch.where(known, 1.0 / depth_m.clamp(min=NEAREST_M), 0.0)
    return torch.cat([images.float(), inverse[:, :, None].float(), known[:, :, None].float()], dim=2)


def motion_facts(poses_xyyaw: Tensor, camera: Tensor, T_base_camera: Tensor, rate_hz: float) -> tuple[Tensor, Tensor]:
    """Return facts (B, F) and twist (B, 2) of context poses (B, T, 3) in the newest base, oldest first.

    ``camera`` (B, 4) are fx, fy, cx, cy as fractions of the image's size, ``T_base_camera`` (B, 4, 4) of the optical
    frame.
    """
    newest = poses_xyyaw[:, -1:]
    step = se2.relative(poses_xyyaw[:, -2], newest[:, 0])
    twist = torch.stack([step[:, 0], step[:, 2]], dim=1) * rate_hz
    earlier = se2.relative(newest, poses_xyyaw[:, :-1]).flatten(1)
    down_rad = torch.asin((-T_base_camera[:, 2, 2]).clamp(-1.0, 1.0))
    mounting = torch.stack([T_base_camera[:, 2, 3], down_rad], dim=1)
    return torch.cat([twist, earlier, camera, mounting], dim=1).float(), twist.float()
