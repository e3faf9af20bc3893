"""Shape of a CDiT: NWM's, and what may be added to it."""

from __future__ import annotations

from dataclasses import dataclass

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError

# depth, hidden_size, num_heads of the published sizes; all have patch_size 2
CDIT_SIZES: dict[str, dict[str, int]] = {
    "S": {"depth": 12, "hidden_size": 384, "num_heads": 6},
    "B": {"depth": 12, "hidden_size": 768, "num_heads": 12},
    "L": {"depth": 24, "hidden_size": 1024, "num_heads": 16},
    "XL": {"depth": 28, "hidden_size": 1152, "num_heads": 16},
}


@dataclass(frozen=True)
class CDiTSettings:
    """Shape of a CDiT; the defaults are NWM's CDiT-XL/2.

    Attributes:
        input_size: rows and columns of the latent grid.
        context_size: context frames.
        patch_size: rows and columns of one token's patch.
        in_channels: latent channels C.
        hidden_size: token width.
        depth: blocks.
        num_heads: attention heads.
        mlp_ratio: MLP width over token width.
        learn_sigma: 2C output channels (prediction and variance values) instead of C.
        action_scale: factor on action and relative time before their sinusoids, whose fastest period is 2 pi;
            small models need about 30 to 100 to tell near poses apart. 1 in NWM.
        context_pose: tell each context frame's pose and time to its tokens.
        context_dropout: a learned null token stands for an absent context.
        extra_channels: further input channels of the target, e.g. a rendered memory and its visibility.
        extra_skip: the first C extra channels also reach the output, through a gate per cell and channel that the
            tokens set: what is rendered well need not pass the width of a token.
        pose_embedding: tell the target's absolute pose, the recall key of the long-term expert.
        view_groups: sources whose views come apart, each in ``extra_channels`` channels and with its own null; 0 = one
            view for all. The order is that of :class:`come_nav.core.context.ContextViews`.
        latent_memory_channels: channels kept for a memory of latents; zero at the start, and where there is none.
        older_frames: most frames before the context that have tokens of their own; needs ``context_pose``.
        older_patch_size: rows and columns of one such token's patch.
        pose_octaves: tell x and y of context frames as sinusoids of so many octaves as well, 8 scaled metres and less.
        camera_embedding: tell the camera's fields of view, height, pitch and roll.
        ray_embedding: tell the tokens of context, older frames and target the rays of their patches (Pluecker
            coordinates, :mod:`come_nav.experts.rays`), all in the newest frame's base; needs ``view_groups``, whose
            contexts know the camera.
        older_attention: the target attends to the frames before the context by themselves as well, in each block.
    """

    input_size: int = 28
    context_size: int = 4
    patch_size: int = 2
    in_channels: int = 4
    hidden_size: int = 1152
    depth: int = 28
    num_heads: int = 16
    mlp_ratio: float = 4.0
    learn_sigma: bool = True
    action_scale: float = 1.0
    context_pose: bool = False
    context_dropout: bool = False
    extra_channels: int = 0
    pose_embedding: bool = False
    extra_skip: bool = False
    view_groups: int = 0
    latent_memory_channels: int = 0
    older_frames: int = 0
    older_patch_size: int = 4
    pose_octaves: int = 0
    camera_embedding: bool = False
    ray_embedding: bool = False
    older_attention: bool = False

    def __post_init__(self) -> None:
        for field in ("input_size", "context_size", "patch_size", "in_channels", "depth", "num_heads"):
            check_range(f"cdit.{field}", getattr(self, field), 1)
        check_range("cdit.hidden_size", self.hidden_size, 3)
        check_range("cdit.mlp_ratio", self.mlp_ratio, 0.0, open_low=True)
        check_range("cdit.action_scale", self.action_scale, 0.0, open_low=True)
        for field in ("extra_channels", "view_groups", "latent_memory_channels", "older_frames", "pose_octaves"):
            check_range(f"cdit.{field}", getattr(self, field), 0)
        self._check_optional_inputs()
        if self.extra_skip and self.extra_channels < self.in_channels:
            raise ConfigError(
                f"cdit.extra_skip needs extra_channels of at least in_channels {self.in_channels}, "
                f"got {self.extra_channels}"
            )
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"cdit.hidden_size must be a multiple of num_heads {self.num_heads}, got {self.hidden_size}"
            )
        if self.input_size % self.patch_size:
            raise ConfigError(
                f"cdit.input_size must be a multiple of patch_size {self.patch_size}, got {self.input_size}"
            )

    def _check_optional_inputs(self) -> None:
        if self.view_groups and self.extra_channels <= self.in_channels:
            raise ConfigError(
                f"cdit.view_groups needs extra_channels above in_channels {self.in_channels} (latents and the share "
                f"that is known), got {self.extra_channels}"
            )
        if self.ray_embedding and not self.view_groups:
            raise ConfigError("cdit.ray_embedding needs view_groups, whose contexts know the camera; got view_groups 0")
        if self.older_attention and not self.older_frames:
            raise ConfigError("cdit.older_attention needs older_frames above 0, got 0")
        if self.older_frames and (not self.context_pose or self.input_size % self.older_patch_size):
            raise ConfigError(
                f"cdit.older_frames needs context_pose and an older_patch_size that divides input_size "
                f"{self.input_size}, got context_pose {self.context_pose}, older_patch_size {self.older_patch_size}"
            )
