"""The base expert: a CDiT that looks at the short context, with and without it (Expert protocol)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from come_nav.core.checks import check_choice
from come_nav.core.device.transfer import to_device
from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.geometry import se2
from come_nav.core.types import Context, ContextViews
from come_nav.experts.cdit import CDiT
from come_nav.experts.forwards import Forwards
from come_nav.experts.normalizer import Normalizer
from come_nav.experts.optional_inputs import OptionalInputs
from come_nav.experts.passes import Condition, Pass, Query, batched, schedule_digest
from come_nav.experts.rays import patch_rays

__all__ = ["NULL_CONTEXT_SEED", "BaseExpert", "Prediction", "SignalSchedule"]

Prediction = Literal["eps", "v"]
NULL_CONTEXT_SEED = 0  # one fixed noise stands for "no context" in models without a null token, at every step alike


class SignalSchedule(Protocol):
    """The part of a noise schedule that an expert needs."""

    @property
    def alphas_cumprod(self) -> NDArray[np.floating[Any]]:
        """(steps,) abar of the full schedule."""
        ...


class BaseExpert(nn.Module):
    """Noise predictions of a CDiT from actions in metres.

    Args:
        model: the denoiser.
        normalizer: of the actions that the denoiser was trained on.
        schedule: the full noise schedule; only prediction "v" needs it.
        prediction: what the denoiser's first C channels are: "eps", the noise (NWM), or "v" = sqrt(abar) noise -
            sqrt(1 - abar) x_0, which keeps its digits at the noisiest steps and so suits samplers of few steps.
    """

    abar: Tensor | None

    def __init__(
        self,
        model: CDiT,
        normalizer: Normalizer,
        schedule: SignalSchedule | None = None,
        prediction: Prediction = "eps",
    ) -> None:
        super().__init__()
        check_choice("expert.prediction", prediction, get_args(Prediction))
        if prediction == "v" and schedule is None:
            raise ConfigError("expert.prediction 'v' needs the noise schedule; pass schedule=")
        self.model = model
        self.normalizer = normalizer
        self.prediction: Prediction = prediction
        abar = None if schedule is None else torch.as_tensor(schedule.alphas_cumprod, dtype=torch.float64)
        self.register_buffer("abar", abar, persistent=False)
        self._forwards = Forwards()

    @torch.no_grad()
    def start_from_view(self) -> None:
        """Let an untrained network of velocity prediction answer the view in its extra channels, if it has any.

        At the noisiest step v is -x_0, so a skip gate of -1 passes the view on as the clean latents; from zero, the
        optimiser would need a thousand steps to get there. Noise prediction has no such constant, and starts at zero.
        """
        if self.prediction == "v" and self.model.settings.extra_skip:
            self.model.skip_layer.linear.bias.fill_(-1.0)

    def scores(
        self, x_t: Tensor, t: Tensor, context: Context, action: Tensor, rel_time: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return noise with and without the context, both (B, C, h, w), from one batch of 2B (see Expert)."""
        sides = [own.condition for own in self.shared_passes()]
        both = self.noises(sides, Query(x_t, t, context, action, rel_time))
        return both[0], both[1]

    def shared_passes(self) -> tuple[Pass, Pass]:
        """Return the passes with the context and without it (see :mod:`come_nav.experts.passes`)."""
        return Pass(self, Condition()), Pass(self, Condition(context=False))

    @property
    def schedule_digest(self) -> str | None:
        """Name of the noise schedule; None for an expert that was not told its schedule."""
        return None if self.abar is None else schedule_digest(self.abar.cpu())

    def noises(self, conditions: Sequence[Condition], query: Query) -> Tensor:
        """Return the noise (P, B, C, h, w) under P conditions from one batch of P*B."""
        settings = self.model.settings
        wide, drop = batched(conditions, query, settings.extra_channels > 0, apart=settings.view_groups > 0)
        epsilon = self._epsilon(wide.x_t, wide.t, wide.context, wide.action, wide.rel_time, drop)
        stacked: Tensor = epsilon.unflatten(0, (len(conditions), len(query.x_t)))
        return stacked

    @property
    def reads_latents(self) -> bool:
        """Whether the network has learned to look at a memory of latents through channels of its own."""
        if not self.model.settings.latent_memory_channels:
            return False
        return bool(self.model.latent_memory_embedder.proj.weight.any())

    def eps(self, x_t: Tensor, t: Tensor, context: Context, action: Tensor, rel_time: Tensor) -> Tensor:
        """Return only the noise with the context (B, C, h, w): half the work of :meth:`scores`."""
        return self._epsilon(x_t, t, context, action, rel_time, None)

    def eps_with_variance(self, x_t: Tensor, t: Tensor, context: Context, action: Tensor, rel_time: Tensor) -> Tensor:
        """Return the noise and, from models that learn it, the variance values behind it: (B, C or 2C, h, w)."""
        output = self.network_output(x_t, t, context, action, rel_time)
        channels = x_t.shape[1]
        return torch.cat([self._to_epsilon(output[:, :channels], x_t, t), output[:, channels:]], dim=1)

    def network_output(
        self,
        x_t: Tensor,
        t: Tensor,
        context: Context,
        action: Tensor,
        rel_time: Tensor,
        drop_context: Tensor | None = None,
        keep_past: bool = False,
    ) -> Tensor:
        """Return the denoiser's own output (B, C or 2C, h, w) in float32; training compares it with its target.

        Args:
            x_t: (B, C, h, w) noisy target latents.
            t: (B,) diffusion steps.
            context: of batch B, or 1 for all.
            action: (B, 3) target pose (dx m, dy m, dyaw rad) in the newest context frame's base.
            rel_time: (B,) time from that frame to the target, protocol frames.
            drop_context: (B,) bool, where the context is to be ignored, and with it all that shows the past.
            keep_past: with ``drop_context``, ignore only the context's own tokens (networks with ``view_groups``).
        """
        options: dict[str, Any] = {}
        settings = self.model.settings
        if settings.context_pose:
            options["context_pose"] = self._context_pose(context.poses_xyyaw, context.frame_offsets)
        if settings.extra_channels and not settings.view_groups:
            options["extra"] = _view(context, len(x_t), drop_context)
        if (
            settings.view_groups
            or settings.older_frames
            or settings.camera_embedding
            or settings.latent_memory_channels
        ):
            inputs = self._optional(context, len(x_t), None if keep_past else drop_context)
            options["optional"] = self._with_rays(inputs, context, action) if settings.ray_embedding else inputs
        if context.absolute_pose_xyyaw is not None and hasattr(self.model, "pose_embedder"):
            target = se2.compose(context.absolute_pose_xyyaw.to(action), action)
            options["absolute_pose"] = self.normalizer.absolute_pose(target)
        if drop_context is not None:
            options["drop_context"] = drop_context
            if not settings.context_dropout:  # noise stands for "no context", the same on every device
                options["generator"] = torch.Generator().manual_seed(NULL_CONTEXT_SEED)
        options |= {"x": x_t, "t": t, "y": self.normalizer.action(action), "x_cond": context.latents}
        output = self._forwards(self.model, options | {"rel_t": self.normalizer.relative_time(rel_time)})
        return output.float()

    def _context_pose(self, poses_xyyaw: Tensor, frame_offsets: Tensor) -> Tensor:
        return self.normalizer.context_pose(poses_xyyaw, frame_offsets, self.model.settings.pose_octaves)

    def _optional(self, context: Context, batch: int, drop_context: Tensor | None) -> OptionalInputs:
        """Return what the network is told beside its context; what shows the past is dropped with the context."""
        settings, inputs = self.model.settings, OptionalInputs()
        if settings.view_groups:
            views, shown = _views_apart(context.views, batch)
            if shown is not None and drop_context is not None:
                shown = shown & ~drop_context[:, None]
            inputs = replace(inputs, views=views, shown=shown)
        latent = context.views.latent_memory if settings.latent_memory_channels else None
        if latent is not None:
            inputs = replace(inputs, latent_memory=latent if drop_context is None else _kept(latent, drop_context))
        older = context.older if settings.older_frames else None
        if older is not None:
            known = older.known if drop_context is None else older.known & ~drop_context[:, None]
            pose = self._context_pose(older.poses_xyyaw, older.frame_offsets)
            inputs = replace(inputs, older=older.latents, older_pose=pose, older_known=known)
        return replace(inputs, camera=context.views.camera) if settings.camera_embedding else inputs

    def _with_rays(self, inputs: OptionalInputs, context: Context, action: Tensor) -> OptionalInputs:
        """Return the inputs with the rays of all tokens' patches in the newest frame's base, if the camera is known."""
        camera, settings, older = context.views.camera, self.model.settings, context.older
        if camera is None:
            return inputs
        scale_m, grid = self.normalizer.scale_m, self.model.grid
        past = None
        if older is not None and settings.older_frames:
            past = patch_rays(camera, older.poses_xyyaw, settings.input_size // settings.older_patch_size, scale_m)
        return replace(
            inputs,
            rays=patch_rays(camera, context.poses_xyyaw, grid, scale_m),
            older_rays=past,
            target_rays=patch_rays(camera, action[:, None], grid, scale_m),
        )

    def _epsilon(
        self, x_t: Tensor, t: Tensor, context: Context, action: Tensor, rel_time: Tensor, drop: Tensor | None
    ) -> Tensor:
        output = self.network_output(x_t, t, context, action, rel_time, drop)[:, : x_t.shape[1]]
        return self._to_epsilon(output, x_t, t)

    def _to_epsilon(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        if self.abar is None or self.prediction == "eps":
            return output
        abar = self.abar[t][:, None, None, None]
        return abar.sqrt().to(x_t) * output + (1.0 - abar).sqrt().to(x_t) * x_t


def _views_apart(views: ContextViews, batch: int) -> tuple[Tensor | None, Tensor | None]:
    """Return the views of all sources (B, 3, E, h, w), zero where there is none, and which rows (B, 3) look at which.

    Where it is not said, a row looks at all that there are.
    """
    sources = (views.context, views.longer, views.memory)
    given = next((view for view in sources if view is not None), None)
    if given is None:
        return None, None
    empty = torch.zeros_like(given)
    several = torch.stack([_rows(empty if view is None else view, batch) for view in sources], 1)
    shown = views.shown
    if shown is None:
        shown = to_device(torch.tensor([[view is not None for view in sources]]), given.device)
    return several, _rows(shown, batch)


def _rows(values: Tensor, batch: int) -> Tensor:
    """Return values of one row, or of the rows of one pass, for a batch of one or several passes."""
    return values if len(values) == batch else values.repeat(batch // len(values), *[1] * (values.ndim - 1))


def _kept(values: Tensor, dropped: Tensor) -> Tensor:
    return values * ~dropped[:, None, None, None]


def _view(context: Context, batch: int, drop_context: Tensor | None) -> Tensor:
    """Return the view at each target (B, E, h, w); all zero where the context is to be ignored."""
    view = context.views.context
    if view is None:
        raise ShapeError("the context has no view of its frames, which this model's extra channels are for")
    view = _rows(view, batch)  # one context may be shared by a batch of conditional and unconditional samples
    return view if drop_context is None else _kept(view, drop_context)
