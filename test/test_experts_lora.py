"""Adapters of the base: neutral at first, equal merged or not, and never a change of the base itself."""

from __future__ import annotations

import math

import pytest
import torch
from test_experts_base import a_context, a_query
from test_experts_cdit import randomised

from come_nav.core.errors import CheckpointError, ConfigError, ShapeError
from come_nav.core.geometry import se2
from come_nav.core.types import Context
from come_nav.experts.base import BaseExpert
from come_nav.experts.lora import (
    LongTermExpert,
    adapted,
    adapter_metadata,
    diffusion_loss,
    merged,
    random_gauge,
    sharing_copy,
)
from come_nav.experts.lora_settings import LoraSettings
from come_nav.experts.normalizer import Normalizer
from come_nav.experts.passes import Condition, Pass
from come_nav.world_model.composition import CompositionSettings, ExpertProduct
from come_nav.world_model.sampling.schedule import NoiseSchedule

SHAPE = {"input_size": 4, "context_size": 2, "hidden_size": 24, "depth": 2, "num_heads": 3, "learn_sigma": False}
RANK_4 = LoraSettings(rank=4, alpha=8)
SCHEDULE = NoiseSchedule.linear()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_base(pose_embedding: bool = False) -> BaseExpert:
    model = randomised(**SHAPE, context_dropout=True, pose_embedding=pose_embedding)
    return BaseExpert(model, Normalizer.metric(1.0), SCHEDULE, "v").eval()


def placed(batch: int, shift_m: float = 0.0) -> Context:
    context = a_context(batch)
    pose = torch.tensor([[1.0 + shift_m, -0.5, 0.7]])
    return Context(context.latents, context.poses_xyyaw, context.frame_offsets, pose)


def tensors_of(expert: BaseExpert) -> dict[str, torch.Tensor]:
    return {name: own.detach().clone() for name, own in expert.named_parameters() if own.requires_grad}


def shaken(expert: BaseExpert) -> dict[str, torch.Tensor]:
    """Adapter tensors away from their neutral start."""
    generator = seeded(7)
    with torch.no_grad():
        for parameter in expert.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return tensors_of(expert)


def answer(expert: BaseExpert | LongTermExpert, context: Context) -> torch.Tensor:
    x_t, t, action, rel_time = a_query(3)
    with torch.no_grad():
        return expert.scores(x_t, t, context, action, rel_time)[0]


# -- the trainable copy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pose_embedding", [False, True])
def test_an_untrained_adapter_is_neutral(pose_embedding: bool) -> None:
    base = a_base(pose_embedding)
    copy = adapted(base, RANK_4, seeded())
    torch.testing.assert_close(answer(copy, placed(3)), answer(base, placed(3)), rtol=1e-5, atol=1e-6)


def test_only_the_named_layers_of_blocks_are_adapted() -> None:
    """'proj' alone would also match the patch embedding."""
    names = set(tensors_of(adapted(a_base(), LoraSettings(rank=2, alpha=2, pose_key=False), seeded())))
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    expected = {
        f"model.blocks.{block}.{layer}.lora_{side}.episode.weight"
        for block in range(2)
        for layer in layers
        for side in "AB"
    }
    assert names == expected
    more = tensors_of(adapted(a_base(), LoraSettings(2, 2, ("cttn.out_proj", "adaLN_modulation.1"), False), seeded()))
    assert len(more) == 2 * 2 * 2
    with pytest.raises(ConfigError, match=r"no layer 'attn.kqv' in a block; did you mean 'attn.qkv'\?"):
        LoraSettings(targets=("attn.kqv",))


def test_training_a_copy_leaves_the_base_bit_equal_and_shares_its_memory() -> None:
    base = a_base()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    wanted = [parameter.requires_grad for parameter in base.parameters()]
    copy = adapted(base, RANK_4, seeded())
    weight = copy.model.get_submodule("blocks.0.attn.qkv").base_layer.weight
    assert weight.data_ptr() == base.model.blocks[0].attn.qkv.weight.data_ptr()
    optimiser = torch.optim.AdamW([own for own in copy.parameters() if own.requires_grad], 0.1)
    x_t, _, action, rel_time = a_query(3)
    diffusion_loss(copy, x_t, placed(3), action, rel_time, seeded()).backward()
    optimiser.step()
    assert all(torch.equal(before[name], value) for name, value in base.state_dict().items())
    assert [parameter.requires_grad for parameter in base.parameters()] == wanted
    assert all(parameter.grad is None for parameter in base.parameters())


def test_the_start_depends_on_the_generator_alone() -> None:
    first, second, other = (tensors_of(adapted(a_base(), RANK_4, seeded(seed))) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    base, before = a_base(), torch.get_rng_state()
    merged(base, tensors_of(adapted(base, RANK_4, seeded())), RANK_4)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_sharing_copy_follows_the_weights_that_it_shares() -> None:
    layer = torch.nn.Linear(3, 3)
    copy = sharing_copy(layer)
    with torch.no_grad():
        layer.weight.fill_(2.0)
    assert (copy.weight == 2.0).all()
    assert copy.weight is not layer.weight
    assert not copy.weight.requires_grad


# -- the merged copy ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pose_embedding", [False, True])
@pytest.mark.parametrize("pose_key", [False, True])
def test_merged_weights_answer_as_the_adapter_does(pose_key: bool, pose_embedding: bool) -> None:
    base = a_base(pose_embedding)
    settings = LoraSettings(4, 8, (*RANK_4.targets, "cttn.out_proj", "adaLN_modulation.1"), pose_key)
    copy = adapted(base, settings, seeded())
    tensors = shaken(copy)
    fast = merged(base, tensors, settings)
    torch.testing.assert_close(answer(fast, placed(3)), answer(copy, placed(3)), rtol=1e-4, atol=1e-4)
    assert (answer(fast, placed(3)) - answer(base, placed(3))).abs().max() > 1e-2


def test_the_pose_key_tells_places_apart_that_the_base_cannot_tell() -> None:
    base = a_base()
    fast = merged(base, shaken(adapted(base, RANK_4, seeded())), RANK_4)
    assert torch.equal(answer(base, placed(3)), answer(base, placed(3, shift_m=2.0)))
    assert (answer(fast, placed(3)) - answer(fast, placed(3, shift_m=2.0))).abs().max() > 1e-3
    with pytest.raises(ShapeError, match="the context has no absolute_pose_xyyaw, which this adapter is keyed by"):
        answer(fast, a_context(3))


def test_the_key_is_the_targets_pose_and_not_the_robots() -> None:
    """Two robots that look at one target from different places give the key the same value."""
    base, seen = a_base(), []
    fast = merged(base, shaken(adapted(base, RANK_4, seeded())), RANK_4)
    fast.model.pose_embedder.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    target = torch.tensor([2.0, 1.0, 0.3])
    for start in (torch.tensor([0.5, 0.0, 1.0]), torch.tensor([-1.0, 2.0, -2.0])):
        context = a_context(1)
        context = Context(context.latents, context.poses_xyyaw, context.frame_offsets, start[None])
        x_t, t, _, rel_time = a_query(1)
        fast.scores(x_t, t, context, se2.relative(start, target)[None], rel_time)
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen[0][0], torch.tensor([2.0, 1.0, math.sin(0.3), math.cos(0.3)]))


def test_adapters_that_do_not_fit_are_told() -> None:
    base = a_base()
    tensors = shaken(adapted(base, RANK_4, seeded()))
    name = "model.blocks.1.mlp.fc1.lora_A.episode.weight"
    with pytest.raises(CheckpointError, match=rf"'{name}' does not fit"):
        merged(base, {**tensors, name: torch.zeros(4, 5)}, RANK_4)
    with pytest.raises(CheckpointError, match=r"'model\.nothing' is not part of this model"):
        merged(base, {"model.nothing": torch.zeros(1)}, RANK_4)
    with pytest.raises(CheckpointError, match="holds NaN or infinite values"):
        merged(base, {**tensors, name: torch.full_like(tensors[name], math.nan)}, RANK_4)


# -- the expert --------------------------------------------------------------------------------------------------------


def test_long_term_expert_contrasts_adapted_and_untuned_weights() -> None:
    base = a_base()
    expert = LongTermExpert(base, RANK_4)
    tensors = shaken(adapted(base, RANK_4, seeded()))
    assert expert.shared_passes() == (Pass(base, Condition()),) * 2
    expert.swap(tensors)
    x_t, t, action, rel_time = a_query(3)
    eps, eps_bar = expert.scores(x_t, t, placed(3), action, rel_time)
    torch.testing.assert_close(eps_bar, base.eps(x_t, t, placed(3), action, rel_time), rtol=1e-5, atol=1e-6)
    fast = merged(base, tensors, RANK_4)
    torch.testing.assert_close(eps, fast.eps(x_t, t, placed(3), action, rel_time), rtol=1e-5, atol=1e-6)
    assert expert.shared_passes()[1] == base.shared_passes()[0]
    assert expert.schedule_digest == base.schedule_digest == SCHEDULE.digest
    assert adapter_metadata(base, RANK_4)["schedule"] == SCHEDULE.digest


def test_a_failed_swap_keeps_the_old_adapter_and_none_restores_the_base() -> None:
    base = a_base()
    expert = LongTermExpert(base, RANK_4)
    untuned = answer(base, placed(3))
    tensors = shaken(adapted(base, RANK_4, seeded()))
    expert.swap(tensors)
    tuned = answer(expert, placed(3))
    with pytest.raises(CheckpointError):
        expert.swap({name: torch.full_like(value, math.inf) for name, value in tensors.items()})
    assert torch.equal(answer(expert, placed(3)), tuned)
    assert expert.has_adapter
    expert.swap(None)
    assert not expert.has_adapter
    product = ExpertProduct([base, expert], CompositionSettings("normalised", (1.0, 3.0)), len(SCHEDULE))
    assert product.exponents(500) == {Pass(base, Condition()): 1.0}  # the contrast of nothing costs nothing
    torch.testing.assert_close(answer(expert, placed(3)), untuned, rtol=1e-4, atol=1e-5)


# -- loss and gauge ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_loss_of_a_perfect_network_is_zero(prediction: str) -> None:
    base = BaseExpert(a_base().model, Normalizer(), SCHEDULE, prediction)  # type: ignore[arg-type]
    x_0 = torch.randn(6, 4, 4, 4, generator=seeded(2))
    levels = torch.tensor([999])

    def perfect(x_t, t, *rest):
        assert (t == 999).all()
        noise = (x_t - SCHEDULE.signal_and_sigma(t, x_t)[0] * x_0) / SCHEDULE.signal_and_sigma(t, x_t)[1]
        return SCHEDULE.velocity(x_0, noise, t) if prediction == "v" else noise

    base.network_output = perfect  # type: ignore[method-assign]
    _, _, action, rel_time = a_query(6)
    loss = diffusion_loss(base, x_0, a_context(6), action, rel_time, seeded(), levels=levels)
    assert loss.item() < 1e-9
    with pytest.raises(ConfigError, match="must know its noise schedule"):
        diffusion_loss(BaseExpert(base.model, Normalizer()), x_0, a_context(6), action, rel_time, seeded())


def test_a_random_gauge_hides_where_and_keeps_how() -> None:
    poses = torch.randn(400, 3, 3, generator=seeded())
    moved = random_gauge(poses, seeded(1), extent_m=5.0)
    relative = se2.relative(poses[:, :1], poses)
    torch.testing.assert_close(se2.relative(moved[:, :1], moved), relative, rtol=1e-4, atol=1e-4)
    alike = random_gauge(torch.zeros(4000, 3), seeded(2), extent_m=5.0)
    assert alike[:, :2].abs().max() <= 5.0
    assert alike[:, 2].cos().mean().abs() < 0.05
    assert alike[:, 2].sin().mean().abs() < 0.05
    assert alike[:, :2].std(0).tolist() == pytest.approx([5 / 3**0.5] * 2, rel=0.05)
    assert torch.equal(random_gauge(poses, seeded(1), 5.0), moved)
