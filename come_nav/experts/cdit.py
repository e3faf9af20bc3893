"""CDiT, the conditional diffusion transformer of Navigation World Models (arXiv 2412.03572), with additions.

The additions are off by default; without them the state dict and the function are those of NWM checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from come_nav.core.checks import check_shape
from come_nav.core.device.transfer import to_device
from come_nav.core.errors import ShapeError
from come_nav.core.settings import to_mapping
from come_nav.experts.cdit_settings import CDIT_SIZES, CDiTSettings
from come_nav.experts.embeddings import ActionEmbedder, PatchEmbedder, ScalarEmbedder, unpatchify
from come_nav.experts.layers import CDiTBlock, FinalLayer, layer_norm
from come_nav.experts.optional_inputs import CameraEmbedder, OlderFrames, OptionalInputs, ViewGroups, layer_weights
from come_nav.experts.rays import RAY_VALUES

__all__ = ["ABSOLUTE_POSE_VALUES", "CDIT_SIZES", "CONTEXT_POSE_VALUES", "CDiT", "CDiTSettings"]

CONTEXT_POSE_VALUES = 5  # x, y, sin yaw, cos yaw, time offset
ABSOLUTE_POSE_VALUES = 4  # x, y, sin yaw, cos yaw


class CDiT(nn.Module):
    """Predicts the noise in a target latent from context latents, an action and a relative time.

    The context tokens are never updated by the blocks, so the cost grows linearly with the context.
    """

    def __init__(  # noqa: PLR0913, PLR0917  the published constructor and the additions, in one flat list
        self,
        input_size: int = 28,
        context_size: int = 4,
        patch_size: int = 2,
        in_channels: int = 4,
        hidden_size: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        learn_sigma: bool = True,
        *,
        action_scale: float = 1.0,
        context_pose: bool = False,
        context_dropout: bool = False,
        extra_channels: int = 0,
        pose_embedding: bool = False,
        extra_skip: bool = False,
        view_groups: int = 0,
        latent_memory_channels: int = 0,
        older_frames: int = 0,
        older_patch_size: int = 4,
        pose_octaves: int = 0,
        camera_embedding: bool = False,
        ray_embedding: bool = False,
        older_attention: bool = False,
    ) -> None:
        super().__init__()
        self.settings = CDiTSettings(
            input_size,
            context_size,
            patch_size,
            in_channels,
            hidden_size,
            depth,
            num_heads,
            mlp_ratio,
            learn_sigma,
            action_scale,
            context_pose,
            context_dropout,
            extra_channels,
            pose_embedding,
            extra_skip,
            view_groups,
            latent_memory_channels,
            older_frames,
            older_patch_size,
            pose_octaves,
            camera_embedding,
            ray_embedding,
            older_attention,
        )
        self.grid = input_size // patch_size
        self.out_channels = 2 * in_channels if learn_sigma else in_channels
        self.x_embedder = PatchEmbedder(in_channels, hidden_size, patch_size)
        self.pos_embed = nn.Parameter(torch.empty(context_size + 1, self.grid**2, hidden_size))
        self.t_embedder = ScalarEmbedder(hidden_size)
        self.time_embedder = ScalarEmbedder(hidden_size)
        self.y_embedder = ActionEmbedder(hidden_size)
        self.blocks = nn.ModuleList(CDiTBlock(hidden_size, num_heads, mlp_ratio, older_attention) for _ in range(depth))
        self.final_layer = FinalLayer(hidden_size, patch_size**2 * self.out_channels)
        if context_pose:
            self.context_pose_embedder = nn.Linear(CONTEXT_POSE_VALUES + 4 * pose_octaves, hidden_size)
        if context_dropout:
            self.null_context = nn.Parameter(torch.empty(1, 1, hidden_size))
        if view_groups:
            self.view_groups = ViewGroups(view_groups, extra_channels, hidden_size, patch_size)
        elif extra_channels:
            self.extra_embedder = PatchEmbedder(extra_channels, hidden_size, patch_size, bias=False)
        if extra_skip:
            self.skip_layer = FinalLayer(hidden_size, patch_size**2 * in_channels * max(1, view_groups))
        if pose_embedding:
            self.pose_embedder = nn.Linear(ABSOLUTE_POSE_VALUES, hidden_size)
        if latent_memory_channels:
            self.latent_memory_embedder = PatchEmbedder(latent_memory_channels, hidden_size, patch_size, bias=False)
        if older_frames:
            self.older_frames = OlderFrames(in_channels, hidden_size, older_patch_size, input_size)
        if camera_embedding:
            self.camera_embedder = CameraEmbedder(hidden_size)
        if ray_embedding:
            self.ray_embedding = nn.Parameter(torch.zeros(RAY_VALUES, hidden_size))
        self._initialise()

    @classmethod
    def from_settings(cls, settings: CDiTSettings) -> CDiT:
        """Build from a settings record."""
        return cls(**to_mapping(settings))

    @torch.no_grad()
    def _initialise(self) -> None:
        """Xavier for linear layers, N(0, 0.02) for embeddings, zero for modulations, output and all additions."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, PatchEmbedder):
                nn.init.xavier_uniform_(module.proj.weight.flatten(1))
                if module.proj.bias is not None:
                    nn.init.zeros_(module.proj.bias)
        normal: list[Tensor] = [self.pos_embed]
        for module in self.modules():
            if isinstance(module, ScalarEmbedder):
                normal += [parameter for parameter in module.parameters() if parameter.ndim > 1]
        if self.settings.context_dropout:
            normal.append(self.null_context)
        if self.settings.older_frames:
            normal.append(self.older_frames.pos_embed)
        for weight in normal:
            nn.init.normal_(weight, std=0.02)
        for module in self._zero_at_first():
            for parameter in module.parameters():
                nn.init.zeros_(parameter)

    def _zero_at_first(self) -> list[nn.Module]:
        """Return what starts at zero, so that an untrained network is blind to every addition."""
        zero: list[nn.Module] = [self.final_layer.linear, self.final_layer.adaLN_modulation]
        blocks = [block for block in self.blocks if isinstance(block, CDiTBlock)]
        zero += [block.adaLN_modulation for block in blocks]
        zero += [block.older_cttn.out_proj for block in blocks if self.settings.older_attention]
        additions = ["context_pose_embedder", "pose_embedder", "extra_embedder", "skip_layer"]
        additions += ["view_groups", "latent_memory_embedder"]
        zero += [getattr(self, name) for name in additions if hasattr(self, name)]
        return [*zero, self.camera_embedder.mlp[-1]] if self.settings.camera_embedding else zero

    def forward(  # noqa: PLR0913  NWM's arguments and one per addition
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | None,
        x_cond: Tensor,
        rel_t: Tensor,
        *,
        context_pose: Tensor | None = None,
        drop_context: Tensor | None = None,
        extra: Tensor | None = None,
        absolute_pose: Tensor | None = None,
        optional: OptionalInputs | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Predict from noisy target latents.

        Args:
            x: (B, C, h, w) noisy target latents.
            t: (B,) diffusion steps of the full schedule.
            y: (B, 3) normalised action, or None for data without actions (the term is left out).
            x_cond: (B, T, C, h, w) context latents, oldest first; batch 1 is shared by all targets.
            rel_t: (B,) frames / 128 from the newest context frame to the target.
            context_pose: (B or 1, T, 5 + 4 octaves) x, y, sin yaw, cos yaw, time offset and the waves of each frame.
            drop_context: (B,) bool, True where the context is to be ignored; see :meth:`embed_context`.
            extra: (B, E, h, w) further target channels, for models with ``extra_channels``; None is all zero.
            absolute_pose: (B, 4) x, y, sin yaw, cos yaw, for models with ``pose_embedding``; None, and NaN in a row,
                leave it out.
            optional: what else the settings provide for; None is nothing of it.
            generator: for the noise that stands for a dropped context in models without a null token.

        Returns:
            (B, C or 2C, h, w) prediction, followed by the variance values where ``learn_sigma``.
        """
        tokens = self.x_embedder(x) + self.pos_embed[-1]
        if extra is not None:
            tokens = tokens + self.extra_embedder(extra)
        condition = self.embed_condition(t, y, rel_t, absolute_pose)
        optional = optional or OptionalInputs()
        tokens = self._with_views(tokens, optional)
        rays = optional.rays
        if rays is not None and drop_context is not None:  # nothing stands for a context that is not told
            rays = rays * ~drop_context[:, None, None]
        context = self._with_rays(self.embed_context(x_cond, context_pose, drop_context, generator), rays)
        context, known, older = self._with_older(context, optional)
        if self.settings.camera_embedding:
            condition = condition + self._embed_camera(optional)
        context = layer_norm(context)
        for block in self.blocks:
            tokens = block(tokens, condition, context, known, older)
        exact = self.final_layer.linear.weight.dtype
        with torch.autocast(tokens.device.type, enabled=False):  # near pure noise, eps divides by 0.006
            tokens, condition = tokens.to(exact), condition.to(exact)
            output = unpatchify(self.final_layer(tokens, condition), self.grid, self.settings.patch_size)
            if self.settings.extra_skip:
                output = self._with_skip(output, tokens, condition, extra, optional)
        return output

    def _with_views(self, tokens: Tensor, optional: OptionalInputs) -> Tensor:
        """Add the views of all sources, or what stands for none, and the latent memory."""
        if self.settings.view_groups:
            views, shown = optional.views, optional.shown
            given = views is not None and shown is not None
            tokens = tokens + (self.view_groups(views, shown) if given else self.view_groups.absent())
        if optional.latent_memory is not None:
            tokens = tokens + self.latent_memory_embedder(optional.latent_memory)
        return self._with_rays(tokens, optional.target_rays)

    def _with_rays(self, tokens: Tensor, rays: Tensor | None) -> Tensor:
        """Add the embedding of the rays (B or 1, L, 6) of tokens' patches, where they are told."""
        return tokens if rays is None else tokens + (rays.to(self.ray_embedding) @ self.ray_embedding).to(tokens.dtype)

    def _with_older(
        self, context: Tensor, optional: OptionalInputs
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor] | None]:
        """Return the context's tokens with those of older frames before them, and which of all are there.

        With ``older_attention``, older frames' tokens come by themselves as well, layer-normed, and which are there.
        """
        older, pose, frames = optional.older, optional.older_pose, optional.older_known
        if older is None or pose is None or frames is None or older.shape[1] == 0:
            return context, None, None
        tokens = self._with_rays(self.older_frames(older, self.context_pose_embedder(pose)), optional.older_rays)
        known = self.older_frames.known(frames)
        rows = max(len(tokens), len(known), len(context))
        both = torch.cat([tokens.expand(rows, -1, -1), context.expand(rows, -1, -1)], dim=1)
        present = torch.ones(len(known), context.shape[1], dtype=torch.bool, device=known.device)
        alone = (layer_norm(tokens), known) if self.settings.older_attention else None
        return both, torch.cat([known, present], dim=1), alone

    def _embed_camera(self, optional: OptionalInputs) -> Tensor:
        camera = optional.camera
        embedded: Tensor = self.camera_embedder.null if camera is None else self.camera_embedder(camera)
        return embedded

    def _with_skip(
        self, output: Tensor, tokens: Tensor, condition: Tensor, extra: Tensor | None, optional: OptionalInputs
    ) -> Tensor:
        """Add what is shown to the prediction, gated: one view, or those of all sources as they lie over another."""
        if extra is not None:
            return self._add_skip(output, tokens, condition, extra)
        views, shown = optional.views, optional.shown
        if views is None or shown is None:
            return output
        channels, settings = self.settings.in_channels, self.settings
        gates = unpatchify(self.skip_layer(tokens, condition), self.grid, settings.patch_size)
        gates = gates.unflatten(1, (settings.view_groups, channels))
        layers = layer_weights(views, shown, channels).to(views.dtype) * views[:, :, :channels]
        prediction = output[:, :channels] + (gates * layers).sum(1)
        return torch.cat([prediction, output[:, channels:]], dim=1)

    def _add_skip(self, output: Tensor, tokens: Tensor, condition: Tensor, extra: Tensor) -> Tensor:
        """Add the gated first extra channels to the prediction; variance values stay as they are."""
        channels = self.settings.in_channels
        gate = unpatchify(self.skip_layer(tokens, condition), self.grid, self.settings.patch_size)
        prediction = output[:, :channels] + gate * extra[:, :channels]
        return torch.cat([prediction, output[:, channels:]], dim=1)

    def embed_condition(
        self, t: Tensor, y: Tensor | None, rel_t: Tensor, absolute_pose: Tensor | None = None
    ) -> Tensor:
        """Return the sum (B, width) of the embeddings of diffusion step, relative time, action and absolute pose."""
        scale = self.settings.action_scale
        condition: Tensor = self.t_embedder(t) + self.time_embedder(rel_t * scale)
        if y is not None:
            condition = condition + self.y_embedder(y * scale)
        if absolute_pose is not None:
            told = torch.isfinite(absolute_pose).all(dim=1, keepdim=True)
            embedded = self.pose_embedder(absolute_pose.nan_to_num())
            condition = condition + torch.where(told, embedded, torch.zeros_like(embedded))
        return condition

    def embed_context(
        self,
        x_cond: Tensor,
        context_pose: Tensor | None = None,
        drop_context: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return context tokens (B or 1, T*L, width); the batch of ``x_cond`` is kept unless a sample is dropped.

        A dropped context is the learned null token in every place. Models without one (NWM's) see latents of pure
        noise instead, as CoME's released code does: one draw from ``generator`` for all samples, so that a prediction
        does not depend on the batch that it is computed in.
        """
        settings = self.settings
        spec = f"B {settings.context_size} {settings.in_channels} {settings.input_size} {settings.input_size}"
        check_shape("x_cond", x_cond, spec)
        if drop_context is not None and not settings.context_dropout:
            place = x_cond.device if generator is None else generator.device
            noise = torch.randn((1, *x_cond.shape[1:]), generator=generator, device=place)
            noise = to_device(noise, x_cond.device, x_cond.dtype)
            x_cond = torch.where(drop_context[:, None, None, None, None], noise, x_cond)
        frames = self.x_embedder(x_cond.flatten(0, 1)).unflatten(0, x_cond.shape[:2]) + self.pos_embed[:-1]
        if settings.context_pose:
            if context_pose is None:
                raise ShapeError("context_pose (B, T, 5) is needed: this CDiT was built with context_pose=True")
            frames = frames + self.context_pose_embedder(context_pose)[:, :, None]
        tokens: Tensor = frames.flatten(1, 2)
        if drop_context is not None and settings.context_dropout:
            tokens = torch.where(drop_context[:, None, None], self.null_context.to(tokens.dtype), tokens)
        return tokens
