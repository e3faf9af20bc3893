"""The long-term expert: low-rank adapters (LoRA, arXiv 2106.09685) of the base, trained on the running episode.

eps comes from the adapted weights, eps_bar from the untuned ones with the same context, so that their contrast is what
the episode taught (CoME, section on long-term memory). The adapter may be keyed by the target's absolute pose in the
episode's frame. The base is never touched: training and planning use copies that share its frozen tensors.

Cross-attention is left alone by default: its queries, keys and values are one raw tensor in NWM's layout, which
adapters of linear layers cannot reach; only its output projection ("cttn.out_proj") can be added to the targets.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from come_nav.core.errors import CheckpointError, ConfigError, ShapeError
from come_nav.core.geometry import se2
from come_nav.core.types import Context, ViewSource
from come_nav.experts.base import BaseExpert
from come_nav.experts.cdit import ABSOLUTE_POSE_VALUES
from come_nav.experts.lora_settings import LoraSettings
from come_nav.experts.passes import Condition, Pass, PassExpert

ADAPTER = "episode"  # peft's name of the adapter, part of its tensors' names
GAUGE_EXTENT_M = 10.0
FINGERPRINT_VALUES = 64  # per tensor
KEY_WAVELENGTHS = (16.0, 8.0, 4.0, 2.0, 1.0, 0.5)  # of the pose key, in units of the normalizer
ModuleT = TypeVar("ModuleT", bound=nn.Module)


class PoseKey(nn.Module):
    """Absolute poses (B, 4) to (B, width): waves of several lengths, two layers, the last one zero at the start.

    Added to what the network's own embedding ``inner`` answers, where it has one.
    """

    wave_numbers: Tensor

    def __init__(self, width: int, generator: torch.Generator, inner: nn.Module | None = None) -> None:
        super().__init__()
        features = 4 * len(KEY_WAVELENGTHS) + ABSOLUTE_POSE_VALUES
        with torch.device("meta"):  # where initial values are not drawn from torch's global generator
            first, last = nn.Linear(features, width), nn.Linear(width, width)
        self.first, self.last = first.to_empty(device="cpu"), last.to_empty(device="cpu")
        self.inner = inner
        self.register_buffer("wave_numbers", 2.0 * math.pi / torch.tensor(KEY_WAVELENGTHS), persistent=False)
        nn.init.normal_(self.first.weight, std=features**-0.5, generator=generator)
        for parameter in (self.first.bias, self.last.weight, self.last.bias):
            nn.init.zeros_(parameter)

    def forward(self, pose: Tensor) -> Tensor:
        """Embed x, y in units of the normalizer, sin yaw and cos yaw."""
        angles = (pose[:, :2, None] * self.wave_numbers).flatten(1)
        hidden = self.first(torch.cat([pose, angles.sin(), angles.cos()], dim=1))
        embedded: Tensor = self.last(nn.functional.silu(hidden))
        return embedded if self.inner is None else embedded + self.inner(pose)


class AdaptedExpert(BaseExpert):
    """A copy of a base expert with other weights; refuses contexts without the pose that its adapter is keyed by."""

    def network_output(  # noqa: D102  same as the base
        self,
        x_t: Tensor,
        t: Tensor,
        context: Context,
        action: Tensor,
        rel_time: Tensor,
        drop_context: Tensor | None = None,
        keep_past: bool = False,
    ) -> Tensor:
        keyed = isinstance(getattr(self.model, "pose_embedder", None), PoseKey)
        if keyed and context.absolute_pose_xyyaw is None:
            raise ShapeError("the context has no absolute_pose_xyyaw, which this adapter is keyed by")
        return super().network_output(x_t, t, context, action, rel_time, drop_context, keep_past)


class LongTermExpert(PassExpert):
    """Contrast of an episode's adapter against the untuned base.

    Without an adapter both sides are the same pass, which costs nothing and changes nothing.
    """

    def __init__(self, base: BaseExpert, settings: LoraSettings | None = None) -> None:
        """Take the untuned expert; it is shared, not copied."""
        self.base, self.settings = base, settings or LoraSettings()
        self._active: tuple[dict[str, Tensor], AdaptedExpert] | None = None

    @property
    def schedule_digest(self) -> str | None:
        """The base's."""
        return self.base.schedule_digest

    @property
    def has_adapter(self) -> bool:
        """Whether an episode's adapter is in use."""
        return self._active is not None

    def swap(self, tensors: Mapping[str, Tensor] | None) -> None:
        """Use another adapter from now on, or none. Readers see the old one or the new one, never a mixture.

        Raises:
            CheckpointError: for tensors that do not fit or are not finite; the old adapter stays in use.
        """
        if tensors is None:
            self._active = None
            return
        kept = dict(tensors)
        self._active = (kept, merged(self.base, kept, self.settings))  # one assignment: nobody sees half of it

    def shared_passes(self) -> tuple[Pass, Pass]:
        """Return the adapted and the untuned pass, both with the context."""
        active = self._active
        untuned = Pass(self.base, Condition())
        if active is None:
            return untuned, untuned
        tensors, expert = active
        if next(expert.parameters()).device != next(self.base.parameters()).device:  # the model was moved since
            expert = merged(self.base, tensors, self.settings)
            self._active = (tensors, expert)
        return Pass(expert, Condition()), untuned

    def through(self, view: ViewSource) -> LongTermThroughView:
        """Return the expert, both of whose sides look at ``view``; it follows this one's adapter."""
        return LongTermThroughView(self, view)


@dataclass(frozen=True)
class LongTermThroughView(PassExpert):
    """The long-term expert, both of whose sides look at another view than the context's: what the spatial memory shows.

    Its contrast is then what the episode taught beyond that view, and its untuned side is a pass that the spatial
    expert stands on anyway.
    """

    expert: LongTermExpert
    view: ViewSource

    @property
    def schedule_digest(self) -> str | None:
        """The base's."""
        return self.expert.schedule_digest

    def shared_passes(self) -> tuple[Pass, Pass]:
        """Return the adapted and the untuned pass with the view."""
        tuned, untuned = self.expert.shared_passes()
        condition = Condition(view=self.view)
        return Pass(tuned.network, condition), Pass(untuned.network, condition)


def adapted(base: BaseExpert, settings: LoraSettings, generator: torch.Generator) -> AdaptedExpert:
    """Return a trainable copy of ``base`` that answers as ``base`` does until it is trained.

    Only the adapter's tensors require gradients; all others are the base's own memory, frozen. They stay where they
    are when the base moves to another device: make a new copy then.
    """
    from peft import LoraConfig, inject_adapter_in_model

    expert = _copy(base)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=settings.pattern)
    with torch.random.fork_rng(devices=[]):  # peft draws its initial values from torch's global generator
        inject_adapter_in_model(config, expert.model, ADAPTER)
    if settings.pose_key:
        _add_pose_key(expert, generator)
    for name, parameter in expert.named_parameters():
        if f".lora_A.{ADAPTER}." in name:  # uniform as peft's, from the given generator
            bound = parameter.shape[1] ** -0.5
            drawn = torch.rand(parameter.shape, generator=generator, device=generator.device)
            parameter.data.copy_((2.0 * drawn - 1.0) * bound)
    return expert.train(base.training)


def merged(base: BaseExpert, tensors: Mapping[str, Tensor], settings: LoraSettings) -> AdaptedExpert:
    """Return a frozen copy of ``base`` with an adapter's updates added to its weights: as fast as the base itself.

    Args:
        base: the expert that the adapter was trained on.
        tensors: the adapter, by the names of :func:`adapted`'s trainable parameters.
        settings: of the adapter.

    Raises:
        CheckpointError: naming the tensor that does not fit or is not finite.
    """
    expert = _copy(base)
    device = next(base.parameters()).device
    tensors = {name: tensor.detach().to(device) for name, tensor in tensors.items()}
    if any(".pose_embedder." in name for name in tensors):
        _add_pose_key(expert, torch.Generator())
    own = dict(expert.named_parameters())
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"adapter tensor '{name}' holds NaN or infinite values; train the adapter again")
        target, _, part = name.partition(".lora_")
        if not part and name in own and own[name].shape == tensor.shape:
            _replace(expert, name, tensor.clone())
        elif part == f"A.{ADAPTER}.weight":
            up = tensors.get(f"{target}.lora_B.{ADAPTER}.weight")
            weight = own.get(f"{target}.weight")
            if up is None or weight is None or (up.shape[0], tensor.shape[1]) != weight.shape:
                raise CheckpointError(f"adapter tensor '{name}' does not fit this model; use the model it was made for")
            _replace(expert, f"{target}.weight", weight + settings.alpha / settings.rank * (up @ tensor))
        elif part != f"B.{ADAPTER}.weight":
            raise CheckpointError(f"adapter tensor '{name}' is not part of this model; use the model it was made for")
    return expert.eval()


def diffusion_loss(
    expert: BaseExpert,
    x_0: Tensor,
    context: Context,
    action: Tensor,
    rel_time: Tensor,
    generator: torch.Generator,
    *,
    levels: Tensor | None = None,
    context_dropout: float = 0.0,
) -> Tensor:
    """Return the mean squared error of the network's target (noise or velocity) at random noise levels.

    Args:
        expert: predicts; it must know its schedule.
        x_0: (B, C, h, w) clean target latents.
        context: of batch B.
        action: (B, 3) target poses in the newest context frame's base.
        rel_time: (B,) protocol frames.
        generator: of noise, levels and dropout.
        levels: (L,) steps of the schedule to draw from, all by default; a sampler of few steps visits only those.
        context_dropout: share of samples that do not see their context.

    Raises:
        ConfigError: for an expert without a schedule.
    """
    if expert.abar is None:
        raise ConfigError("an expert must know its noise schedule to be trained; pass schedule= when it is made")
    batch, device = len(x_0), x_0.device
    choices = torch.arange(len(expert.abar)) if levels is None else levels.cpu()
    t = choices[torch.randint(len(choices), (batch,), generator=generator)].to(device)
    noise = torch.randn(x_0.shape, generator=generator).to(device)
    drop = (torch.rand(batch, generator=generator) < context_dropout).to(device)
    abar = expert.abar[t][:, None, None, None]
    signal, sigma = abar.sqrt().to(x_0), (1.0 - abar).sqrt().to(x_0)
    x_t = signal * x_0 + sigma * noise
    output = expert.network_output(x_t, t, context, action, rel_time, drop if context_dropout else None)
    target = signal * noise - sigma * x_0 if expert.prediction == "v" else noise
    return (output[:, : x_0.shape[1]] - target).square().mean()


def random_gauge(poses_xyyaw: Tensor, generator: torch.Generator, extent_m: float = GAUGE_EXTENT_M) -> Tensor:
    """Return poses (B, ..., 3) of B windows, each window in a random frame of its own.

    For training a base that is told absolute poses: they then say nothing about the world, only an adapter that sees
    one episode in one frame can make use of them. Yaw is uniform, the origin uniform within ``extent_m`` on both axes.
    """
    batch = poses_xyyaw.shape[0]
    drawn = 2.0 * torch.rand(batch, 3, generator=generator, device=generator.device) - 1.0
    gauge = (drawn * torch.tensor([extent_m, extent_m, math.pi], device=drawn.device)).to(poses_xyyaw)
    moved: Tensor = se2.compose(gauge.reshape(batch, *[1] * (poses_xyyaw.ndim - 2), 3), poses_xyyaw)
    return moved


def adapter_metadata(base: BaseExpert, settings: LoraSettings) -> dict[str, Any]:
    """Return what must agree for an adapter to be loaded again; plain JSON values."""
    return {
        "kind": "lora",
        "rank": settings.rank,
        "alpha": settings.alpha,
        "targets": list(settings.targets),
        "pose_key": settings.pose_key,
        "schedule": base.schedule_digest,
        "base": fingerprint(base),
    }


def fingerprint(network: nn.Module) -> str:
    """Return what tells networks of one shape but other weights apart: a digest of evenly spaced values."""
    digest = hashlib.sha256()
    for name, own in sorted(network.state_dict().items()):
        values = own.detach().flatten()
        chosen = values[:: max(1, len(values) // FINGERPRINT_VALUES)].float().cpu()
        digest.update(f"{name} {tuple(own.shape)}".encode() + chosen.numpy().tobytes())
    return digest.hexdigest()[:16]


def _copy(base: BaseExpert) -> AdaptedExpert:
    """Return the same network around the same tensors, as parameters of their own that need no gradients."""
    expert = AdaptedExpert(sharing_copy(base.model), base.normalizer)
    expert.prediction = base.prediction
    expert.register_buffer("abar", base.abar, persistent=False)
    return expert


def sharing_copy(module: ModuleT) -> ModuleT:
    """Return a copy of the module tree whose parameters and buffers are views of the same memory."""
    memo: dict[int, Any] = {id(own): nn.Parameter(own.detach(), requires_grad=False) for own in module.parameters()}
    memo |= {id(buffer): buffer for buffer in module.buffers()}
    return copy.deepcopy(module, memo)


def _add_pose_key(expert: BaseExpert, generator: torch.Generator) -> None:
    inner = getattr(expert.model, "pose_embedder", None)
    key = PoseKey(expert.model.settings.hidden_size, generator, inner)
    expert.model.pose_embedder = key.to(next(expert.parameters()).device)  # type: ignore[assignment]


def _replace(module: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(path), leaf, nn.Parameter(tensor, requires_grad=False))
