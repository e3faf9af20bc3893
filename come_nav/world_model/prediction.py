"""Prediction: latents at other poses and times, drawn from the product of the experts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from come_nav.core.checks import check_shape
from come_nav.core.device.transfer import to_device
from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.geometry import se2
from come_nav.core.protocols import Expert
from come_nav.core.types import Context, ViewSource
from come_nav.experts.base import BaseExpert
from come_nav.experts.forwards import forwards
from come_nav.experts.passes import AnyViewExpert, Condition, Query
from come_nav.world_model.calibration.likelihood import corrected_noise
from come_nav.world_model.composition import ExpertProduct, ProductNoise
from come_nav.world_model.contexts import repeat_for_particles, slide
from come_nav.world_model.parts import ModelParts
from come_nav.world_model.sampling.sampler import noise_source, sample
from come_nav.world_model.views import rendered_views, seen_from, weight_on_memory


@torch.inference_mode()
def predict(
    parts: ModelParts,
    context: Context,
    actions_xyyaw: Tensor,
    rel_frames: Tensor,
    generator: torch.Generator,
    *,
    shared_noise: bool = False,
) -> Tensor:
    """Return latents (S, C, h, w) at poses (S, 3), ``rel_frames`` (S,) after the newest context frame.

    Args:
        parts: of the model.
        context: of batch 1 (shared by all candidates) or S.
        actions_xyyaw: target poses in the newest context frame's base, metres and radians.
        rel_frames: times of the targets in protocol frames.
        generator: source of all noise.
        shared_noise: start all candidates from one noise, so that they differ by their actions alone.

    Raises:
        ShapeError: when the batch sizes do not agree.
        ConfigError: for particles together with a guidance interval, or weights that do not fit the experts.
    """
    count = check_shape("actions_xyyaw", actions_xyyaw, "S 3")["S"]
    check_shape("rel_frames", rel_frames, f"{count}")
    if len(context) not in (1, count):
        raise ShapeError(f"the context must have batch 1 or {count}, got {len(context)}")
    context = context.to(parts.device, torch.float32)
    actions = to_device(actions_xyyaw, parts.device, torch.float32)
    times = to_device(rel_frames, parts.device, torch.float32)
    shape = (1 if shared_noise else count, *context.latents.shape[2:])
    noise = noise_source(generator)(torch.empty(shape, device=parts.device)).expand(count, *shape[1:])
    product = product_of(parts)
    context, actions, times = repeat_for_particles(context, actions, times, parts.sampler.resampling.particles)
    size = parts.inference.micro_batch
    chunks = [slice(start, start + size) for start in range(0, len(actions), size)]
    contexts = [seen_from(parts, context.rows(chunk), actions[chunk], product.views) for chunk in chunks]

    composition = parts.composition
    alike = composition.everywhere and not composition.levels and parts.likelihood is None

    def noise_prediction(x_t: Tensor, t: Tensor) -> Tensor | ProductNoise:
        queries = [
            Query(x_t[chunk], t[chunk], seen, actions[chunk], times[chunk])
            for chunk, seen in zip(chunks, contexts, strict=True)
        ]
        # the same passes at all levels need not ask a GPU for the level, which would wait for it
        step = len(parts.schedule) - 1 if alike else int(t[0])
        return _noise(parts, product, queries, step)

    start_exponents = sum(product.exponents(len(parts.schedule) - 1).values())
    return sample(noise_prediction, noise, parts.sampler, parts.schedule, generator, exponent_sum=start_exponents)


@torch.inference_mode()
def rollout(
    parts: ModelParts,
    context: Context,
    poses_xyyaw: Tensor,
    generator: torch.Generator,
    stride: int = 1,
    *,
    shared_noise: bool = False,
) -> Tensor:
    """Return latents (S, T // stride, C, h, w) along poses (S, T, 3), each step seen from the one before.

    The context slides over the model's own latents (never decoded); each action and all context poses are
    expressed in the base of the newest imagined frame. Poses lie one protocol frame apart in the start frame.
    """
    sizes = check_shape("poses_xyyaw", poses_xyyaw, "S T 3")
    if not 1 <= stride <= sizes["T"]:
        raise ConfigError(f"rollout stride must be in [1, {sizes['T']}] for {sizes['T']} poses, got {stride}")
    context = context.to(parts.device, torch.float32)
    targets = to_device(poses_xyyaw, parts.device, torch.float32)[:, stride - 1 :: stride]
    elapsed = torch.full((sizes["S"],), float(stride), device=parts.device)
    newest = torch.zeros_like(targets[:, 0])
    imagined = []
    for target in targets.unbind(1):
        action: Tensor = se2.relative(newest, target)
        latents = predict(parts, context, action, elapsed, generator, shared_noise=shared_noise)
        context = slide(context, latents, action, stride, parts.rate_hz)
        imagined.append(latents)
        newest = target
    return torch.stack(imagined, dim=1)


@torch.inference_mode()
def moved_images(parts: ModelParts, context: Context, actions_xyyaw: Tensor) -> Tensor:
    """Return what the sources that the experts look at show from targets (S, 3), holes filled: (S, 3, H, W)."""
    context = context.to(parts.device, torch.float32)
    wanted, size = product_of(parts).views, parts.inference.micro_batch
    last = max(wanted, key=list(ViewSource).index)  # over those that lie under it
    chunks = to_device(actions_xyyaw, parts.device, torch.float32).split(size)
    return torch.cat([rendered_views(parts, context, chunk, wanted)[last].filled for chunk in chunks])


def product_of(parts: ModelParts) -> ExpertProduct:
    """Return the product of the experts as they are now.

    Raises:
        ConfigError: for particles together with a guidance interval, or weights that do not fit the experts.
    """
    _check_particles(parts)
    return ExpertProduct(
        composed_experts(parts, weight_on_memory(parts) != 0.0), parts.composition, len(parts.schedule)
    )


def composed_experts(parts: ModelParts, with_memory: bool) -> list[Expert]:
    """Return the experts as they are composed, in order.

    Where the spatial memory counts, all memories see the same view: together they cost no more passes than one of them.
    """
    experts = list(parts.experts.values())
    if not with_memory:
        return experts
    return [own.through(ViewSource.MEMORY) if isinstance(own, AnyViewExpert) else own for own in experts]


def _check_particles(parts: ModelParts) -> None:
    """Refuse what the weights of particles are not derived for."""
    particles, composition = parts.sampler.resampling.particles, parts.composition
    if particles == 1:
        return
    reason = None
    if not composition.everywhere:
        reason = f"composition.interval [0, 1], got {list(composition.interval)}"
    elif composition.levels:
        reason = "the same composition.weights at all noise levels, got composition.levels"
    elif parts.likelihood is not None:
        reason = "a product of experts alone, without the likelihood of a spatial memory"
    if reason is not None:
        raise ConfigError(
            f"sampler.resampling.particles {particles} needs {reason}: weights follow one product through all noise "
            "levels"
        )


def _noise(parts: ModelParts, product: ExpertProduct, queries: Sequence[Query], step: int) -> Tensor | ProductNoise:
    """Return the composed noise, its parts for resampling, or with variance values from one expert alone."""
    single = product.single(step)
    with parts.autocast(), forwards(parts.inference.compile):
        alone = parts.sampler.name == "ddpm" and parts.likelihood is None
        if alone and single is not None and single.condition == Condition():
            network = single.network
            if isinstance(network, BaseExpert):
                return torch.cat(
                    [network.eps_with_variance(q.x_t, q.t, q.context, q.action, q.rel_time) for q in queries]
                )
        answers = [product(query, step) for query in queries]
    if parts.sampler.resampling.particles == 1:
        return torch.cat([_corrected(parts, own, query, step) for own, query in zip(answers, queries, strict=True)])
    return ProductNoise(torch.cat([answer.noises for answer in answers], dim=1), answers[0].exponents)


def _corrected(parts: ModelParts, product: ProductNoise, query: Query, step: int) -> Tensor:
    """Return the noise of the product, and of the spatial memory's likelihood where there is one."""
    composed = product.composed()
    if parts.likelihood is None:
        return composed
    abar = float(parts.schedule.alphas_cumprod[step])
    return corrected_noise(composed, query.x_t, abar, parts.likelihood, step, query.context)
