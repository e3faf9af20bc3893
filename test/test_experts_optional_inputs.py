"""Optional inputs of one network: every subset runs, what is absent is its null, and the rest is told apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from come_nav.core.context import OlderFrames
from come_nav.core.errors import ConfigError
from come_nav.core.geometry.point_rendering import camera_fractions
from come_nav.core.types import Context, ContextViews, ViewSource
from come_nav.experts.base import BaseExpert
from come_nav.experts.cdit import CDiT, CDiTSettings
from come_nav.experts.memory_views import short_term_expert, spatial_expert
from come_nav.experts.normalizer import Normalizer
from come_nav.experts.optional_inputs import OptionalInputs, camera_values, layer_weights
from come_nav.experts.passes import Condition, Query
from come_nav.sim.sensors.mounting import CameraRanges

SETTINGS = CDiTSettings(
    input_size=4,
    context_size=2,
    patch_size=2,
    in_channels=3,
    hidden_size=24,
    depth=2,
    num_heads=2,
    learn_sigma=False,
    context_pose=True,
    context_dropout=True,
    pose_embedding=True,
    extra_channels=7,
    extra_skip=True,
    view_groups=3,
    latent_memory_channels=5,
    older_frames=6,
    older_patch_size=2,
    pose_octaves=2,
    camera_embedding=True,
)
BATCH = 2


@pytest.fixture(scope="module")
def network() -> CDiT:
    """A network all of whose weights say something."""
    generator = torch.Generator().manual_seed(0)
    model = CDiT.from_settings(SETTINGS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def view(seed: int) -> Tensor:
    """A view whose share known lies in [0, 1]."""
    own = drawn(BATCH, 7, 4, 4, seed=seed)
    own[:, 3] = own[:, 3].sigmoid()
    return own


def full_context() -> Context:
    camera = drawn(BATCH, 7, seed=5)
    older = OlderFrames(
        drawn(BATCH, 3, 3, 4, 4), drawn(BATCH, 3, 3), torch.tensor([[-4.0, -3.0, -2.0]] * 2), torch.ones(2, 3).bool()
    )
    return Context(
        drawn(BATCH, 2, 3, 4, 4),
        torch.zeros(BATCH, 2, 3),
        torch.tensor([[-1.0, 0.0]] * BATCH),
        absolute_pose_xyyaw=drawn(BATCH, 3, seed=6),
        older=older,
        views=ContextViews(view(2), view(3), view(4), None, drawn(BATCH, 5, 4, 4, seed=7), camera),
    )


def answer(expert: BaseExpert, context: Context, **options: Any) -> Tensor:
    with torch.no_grad():
        return expert.network_output(
            drawn(BATCH, 3, 4, 4, seed=8),
            torch.tensor([10, 900]),
            context,
            drawn(BATCH, 3),
            torch.ones(BATCH),
            **options,
        )


def without(context: Context, name: str) -> Context:
    """The context without one optional input."""
    if name == "older":
        return replace(context, older=None)
    if name == "absolute_pose":
        return replace(context, absolute_pose_xyyaw=None)
    return replace(context, views=replace(context.views, **{name: None}))


OPTIONAL = ("context", "longer", "memory", "latent_memory", "camera", "older", "absolute_pose")


def test_every_subset_of_inputs_has_an_answer_of_its_own(network: CDiT) -> None:
    expert = BaseExpert(network, Normalizer())
    answers = []
    for present in product((False, True), repeat=len(OPTIONAL)):
        context = full_context()
        for name, keep in zip(OPTIONAL, present, strict=True):
            context = context if keep else without(context, name)
        answers.append(answer(expert, context).flatten())
    found = torch.stack(answers)
    assert torch.isfinite(found).all()
    distances = torch.cdist(found, found) + 10.0 * torch.eye(len(found))
    assert float(distances.min()) > 1e-4


def test_an_input_that_a_row_is_not_told_equals_one_that_is_not_there(network: CDiT) -> None:
    """Row 0 is told nothing optional by masks, flags and NaN; row 1 everything."""
    expert, context = BaseExpert(network, Normalizer()), full_context()
    told = torch.tensor([False, True])
    camera = torch.where(told[:, None], context.views.camera, torch.nan)
    latent = context.views.latent_memory * told[:, None, None, None]
    masked = replace(
        context,
        absolute_pose_xyyaw=torch.where(told[:, None], context.absolute_pose_xyyaw, torch.nan),
        older=replace(context.older, known=context.older.known & told[:, None]),
        views=replace(context.views, shown=told[:, None].expand(-1, 3), camera=camera, latent_memory=latent),
    )
    bare = context
    for name in OPTIONAL:
        bare = without(bare, name)
    found = answer(expert, masked)
    torch.testing.assert_close(found[0], answer(expert, bare)[0])
    torch.testing.assert_close(found[1], answer(expert, context)[1])


def test_dropping_the_context_drops_all_that_shows_the_past_and_keeps_the_camera(network: CDiT) -> None:
    expert, context = BaseExpert(network, Normalizer()), full_context()
    drop = torch.ones(BATCH, dtype=torch.bool)
    past = without(without(without(without(without(context, "context"), "longer"), "memory"), "older"), "latent_memory")
    nothing = answer(expert, context, drop_context=drop)
    torch.testing.assert_close(nothing, answer(expert, past, drop_context=drop))
    assert (nothing - answer(expert, without(context, "camera"), drop_context=drop)).abs().max() > 1e-3
    assert (nothing - answer(expert, context, drop_context=drop, keep_past=True)).abs().max() > 1e-3


def test_a_column_of_unknown_older_frames_changes_nothing(network: CDiT) -> None:
    expert, context = BaseExpert(network, Normalizer()), full_context()
    padded = OlderFrames(
        torch.cat([torch.full((BATCH, 2, 3, 4, 4), 9.0), context.older.latents], 1),
        torch.cat([torch.zeros(BATCH, 2, 3), context.older.poses_xyyaw], 1),
        torch.cat([torch.zeros(BATCH, 2), context.older.frame_offsets], 1),
        torch.cat([torch.zeros(BATCH, 2).bool(), context.older.known], 1),
    )
    torch.testing.assert_close(answer(expert, replace(context, older=padded)), answer(expert, context))


def test_the_camera_changes_the_answer(network: CDiT) -> None:
    expert, context = BaseExpert(network, Normalizer()), full_context()
    for index in range(7):
        other = context.views.camera.clone()
        other[:, index] += 0.3
        changed = answer(expert, replace(context, views=replace(context.views, camera=other)))
        assert (changed - answer(expert, context)).abs().max() > 1e-3, index


def test_an_untrained_network_is_blind_to_all_additions() -> None:
    """Zero at the start: every subset gives one answer, so nothing has to be unlearned."""
    torch.manual_seed(0)
    expert = BaseExpert(CDiT.from_settings(replace(SETTINGS, extra_skip=False)), Normalizer())
    with torch.no_grad():  # an untrained network answers zero otherwise
        for name, parameter in expert.named_parameters():
            if "final_layer" in name or "blocks" in name:
                parameter.add_(0.05 * torch.randn(parameter.shape))
    context = without(full_context(), "older")
    for name in ("context", "longer", "memory", "latent_memory", "camera", "absolute_pose"):
        torch.testing.assert_close(answer(expert, context), answer(expert, without(context, name)))


def test_experts_of_one_network_are_subsets_of_one_batch(network: CDiT) -> None:
    """Base, short-term and spatial expert: same weights on both sides, and as if each pass had run alone."""
    expert, context = BaseExpert(network, Normalizer()), full_context()
    query = Query(drawn(BATCH, 3, 4, 4), torch.tensor([5, 700]), context, drawn(BATCH, 3), torch.ones(BATCH))
    conditions = [Condition(view=source) for source in ViewSource] + [Condition(context=False)]
    with torch.no_grad():
        together = expert.noises(conditions, query)
        for number, condition in enumerate(conditions):
            torch.testing.assert_close(together[number], expert.noises([condition], query)[0], atol=1e-5, rtol=1e-4)
    base = without(without(without(context, "longer"), "memory"), "older")
    with torch.no_grad():
        alone = expert.noises([Condition()], replace(query, context=base))[0]
    torch.testing.assert_close(together[0], alone, atol=1e-5, rtol=1e-4)
    for own in (short_term_expert(expert), spatial_expert(expert, expert)):
        assert {one.network for one in own.shared_passes()} == {expert}
    assert float((together[0] - together[1]).abs().max()) > 1e-3
    assert float((together[1] - together[2]).abs().max()) > 1e-3


def test_layers_lie_over_one_another_and_fill_every_cell() -> None:
    views = torch.zeros(2, 3, 5, 1, 3)
    views[:, 0, 2, 0] = torch.tensor([1.0, 0.25, 0.0])
    views[:, 1, 2, 0] = torch.tensor([0.5, 1.0, 0.5])
    views[:, 2, 2, 0] = torch.tensor([1.0, 1.0, 1.0])
    shown = torch.tensor([[True, True, True], [False, True, False]])
    weights = layer_weights(views, shown, 2)[:, :, 0, 0]
    torch.testing.assert_close(weights[0], torch.tensor([[1.0, 0.25, 0.0], [0.0, 0.75, 0.5], [0.0, 0.0, 0.5]]))
    torch.testing.assert_close(weights[1], torch.tensor([[0.0] * 3, [1.0] * 3, [0.0] * 3]))


def test_camera_values_are_those_the_camera_was_mounted_with() -> None:
    ranges = CameraRanges(roll_deg=(-10.0, 10.0))
    camera = ranges.draw(64, torch.Generator().manual_seed(3))
    values = camera_values(camera_fractions(camera.intrinsics).double(), torch.from_numpy(camera.T_base_camera)[None])
    own = camera.intrinsics
    expected = [32.0 / own.fx, 32.0 / own.fy, own.cx / 64 - 0.5, own.cy / 64 - 0.5]
    torch.testing.assert_close(values[0, :2].tan(), torch.tensor(expected[:2], dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(values[0, 2:4], torch.tensor(expected[2:], dtype=torch.float64), atol=1e-6, rtol=0)
    mounted = torch.tensor([camera.height_m, camera.pitch_rad, camera.roll_rad], dtype=torch.float64)
    torch.testing.assert_close(values[0, 4:], mounted)


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="view_groups needs extra_channels above in_channels 3"):
        replace(SETTINGS, extra_channels=3)
    with pytest.raises(ConfigError, match="older_frames needs context_pose"):
        replace(SETTINGS, context_pose=False)


def test_none_of_it_is_in_a_plain_network() -> None:
    """State dict and function of NWM's networks are untouched (see the tests of parity as well)."""
    plain = CDiT(input_size=4, context_size=2, in_channels=3, hidden_size=24, depth=1, num_heads=2)
    assert not [name for name in plain.state_dict() if "older" in name or "view" in name or "camera" in name]
    inputs = drawn(BATCH, 3, 4, 4), torch.tensor([1, 2]), drawn(BATCH, 3), drawn(BATCH, 2, 3, 4, 4), torch.ones(BATCH)
    with torch.no_grad():
        assert torch.equal(plain(*inputs), plain(*inputs, optional=OptionalInputs()))
