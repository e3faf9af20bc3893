"""CDiT against recorded outputs of the published network, and against a second formulation in float64."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from come_nav.core.errors import ConfigError, ShapeError
from come_nav.experts.cdit import CDIT_SIZES, CDiT, CDiTSettings
from come_nav.experts.embeddings import sinusoid, unpatchify
from come_nav.experts.layers import CrossAttention, layer_norm

ODD = {"input_size": 6, "context_size": 3, "hidden_size": 55, "depth": 2, "num_heads": 5, "mlp_ratio": 3.0}
SMALL = {"input_size": 4, "context_size": 2, "hidden_size": 24, "depth": 2, "num_heads": 3}


def randomised(seed: int = 0, **settings: object) -> CDiT:
    """A CDiT whose zero-initialised parts are random, so that every path carries signal."""
    generator = torch.Generator().manual_seed(seed)
    model = CDiT(**settings)
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def inputs(model: CDiT, batch: int, seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = model.settings
    x = torch.randn(batch, shape.in_channels, shape.input_size, shape.input_size, generator=generator)
    context = torch.randn(batch, shape.context_size, *x.shape[1:], generator=generator)
    t = torch.randint(1000, (batch,), generator=generator)
    y = torch.randn(batch, 3, generator=generator)
    return x, t, y, context, torch.randn(batch, generator=generator)


# -- against the published network -------------------------------------------------------------------------------------


@pytest.mark.shared_data
@pytest.mark.parametrize("size", ["S", "B", "L", "XL"])
def test_published_sizes_have_the_published_keys_and_shapes(shared_data: Path, size: str) -> None:
    with torch.device("meta"):
        model = CDiT(**CDIT_SIZES[size])
    listed = json.loads((shared_data / "nwm_parity" / f"cdit_{size}_keys.json").read_text())
    own = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert own == {name: entry["shape"] for name, entry in listed["keys"].items()}
    assert sum(parameter.numel() for parameter in model.parameters()) == listed["n_params"]


@pytest.fixture(scope="module")
def published_small(shared_data: Path) -> tuple[CDiT, dict[str, np.ndarray]]:
    folder = shared_data / "nwm_parity"
    model = CDiT(**json.loads((folder / "configs.json").read_text())["configs"]["small"]["ctor"])
    with torch.serialization.safe_globals([argparse.Namespace]):
        checkpoint = torch.load(folder / "cdit_small.pth.tar", weights_only=True)
    model.load_state_dict(checkpoint["ema"])
    with np.load(folder / "cdit_small_io.npz") as recorded:
        return model.eval(), dict(recorded)


@pytest.mark.shared_data
@pytest.mark.parametrize("case", [0, 1, 2])
def test_outputs_equal_the_published_network(published_small, case: int) -> None:
    model, recorded = published_small
    arguments = [torch.from_numpy(recorded[f"in{case}_{name}"]) for name in ("x", "t", "y", "x_cond", "rel_t")]
    with torch.no_grad():
        output = model(*arguments).numpy()
    assert np.abs(output - recorded[f"out{case}"]).max() < 5e-5


@pytest.mark.shared_data
def test_intermediates_equal_the_published_network(published_small) -> None:
    model, recorded = published_small
    x, t, y, x_cond, rel_t = (torch.from_numpy(recorded[f"in0_{name}"]) for name in ("x", "t", "y", "x_cond", "rel_t"))
    with torch.no_grad():
        tokens = model.x_embedder(x) + model.pos_embed[-1]
        condition = model.embed_condition(t, y, rel_t)
        context = model.embed_context(x_cond)
        found = {"tokens": tokens, "c": condition, "ctx_tokens": context}
        for index, block in enumerate(model.blocks):
            tokens = found[f"block{index}"] = block(tokens, condition, layer_norm(context))
    for name, tensor in found.items():
        assert np.abs(tensor.numpy() - recorded[f"in0_{name}"]).max() < 5e-5, name


# -- against a second formulation --------------------------------------------------------------------------------------


def reference_forward(model: CDiT, x: Tensor, t: Tensor, y: Tensor, x_cond: Tensor, rel_t: Tensor) -> Tensor:
    """CDiT written a second time: explicit softmax, torch's own MultiheadAttention, patches cut by indexing."""
    weights, shape = model.state_dict(), model.settings
    width, heads, patch, grid = shape.hidden_size, shape.num_heads, shape.patch_size, model.grid

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def embed(name: str, value: Tensor) -> Tensor:
        hidden = linear(f"{name}.mlp.0", sinusoid(value).double())
        return linear(f"{name}.mlp.2", hidden * torch.sigmoid(hidden))

    def norm(value: Tensor) -> Tensor:
        centred = value - value.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    def patches(image: Tensor) -> Tensor:
        kernel = weights["x_embedder.proj.weight"].flatten(1)
        rows = [
            image[:, :, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].flatten(1)
            for r in range(grid)
            for c in range(grid)
        ]
        return torch.stack([row @ kernel.T for row in rows], 1) + weights["x_embedder.proj.bias"]

    tokens = patches(x) + weights["pos_embed"][-1]
    context = torch.cat([patches(x_cond[:, i]) + weights["pos_embed"][i] for i in range(shape.context_size)], 1)
    action = [embed(f"y_embedder.{part}", y[:, i]) for i, part in enumerate(("x_emb", "y_emb", "angle_emb"))]
    condition = embed("t_embedder", t) + embed("time_embedder", rel_t) + torch.cat(action, -1)
    gated = condition * torch.sigmoid(condition)
    for index in range(shape.depth):
        name = f"blocks.{index}"
        parts = linear(f"{name}.adaLN_modulation.1", gated)[:, None].chunk(11, -1)
        s1, c1, g1, sk, ck, s2, c2, g2, s3, c3, g3 = parts
        query, key, value = (
            part.reshape(len(x), -1, heads, width // heads)
            for part in linear(f"{name}.attn.qkv", norm(tokens) * (1 + c1) + s1).chunk(3, -1)
        )
        logits = torch.einsum("blhd,bmhd->bhlm", query, key) / math.sqrt(width // heads)
        mixed = torch.einsum("bhlm,bmhd->blhd", logits.softmax(-1), value).flatten(2)
        tokens = tokens + g1 * linear(f"{name}.attn.proj", mixed)
        attention = nn.MultiheadAttention(width, heads, add_bias_kv=True, batch_first=True).double()
        attention.load_state_dict(model.blocks[index].cttn.state_dict())
        keys = norm(context) * (1 + ck) + sk
        tokens = tokens + g2 * attention(norm(tokens) * (1 + c2) + s2, keys, keys)[0]
        hidden = linear(f"{name}.mlp.fc1", norm(tokens) * (1 + c3) + s3)
        hidden = 0.5 * hidden * (1 + torch.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
        tokens = tokens + g3 * linear(f"{name}.mlp.fc2", hidden)
    shift, scale = linear("final_layer.adaLN_modulation.1", gated)[:, None].chunk(2, -1)
    cells = linear("final_layer.linear", norm(tokens) * (1 + scale) + shift)
    output = x.new_zeros(len(x), model.out_channels, shape.input_size, shape.input_size)
    for cell in range(grid * grid):
        row, column = divmod(cell, grid)
        block = cells[:, cell].reshape(len(x), patch, patch, -1).permute(0, 3, 1, 2)
        output[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = block
    return output


@pytest.mark.parametrize(
    "settings",
    [ODD, SMALL, {**SMALL, "patch_size": 1, "learn_sigma": False}, {**ODD, "in_channels": 5, "context_size": 1}],
    ids=["odd widths", "small", "patch 1, no variance", "5 channels, 1 context frame"],
)
def test_equals_a_second_formulation_in_float64(settings: dict) -> None:
    model = randomised(**settings).double()
    x, t, y, x_cond, rel_t = (
        value.double() if value.is_floating_point() else value for value in inputs(model, batch=3)
    )
    with torch.no_grad():
        found, expected = model(x, t, y, x_cond, rel_t), reference_forward(model, x, t, y, x_cond, rel_t)
    assert found.shape == (3, model.out_channels, model.settings.input_size, model.settings.input_size)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_cross_attention_equals_torchs_with_bias_kv() -> None:
    ours = CrossAttention(20, 4)
    theirs = nn.MultiheadAttention(20, 4, add_bias_kv=True, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    query, context = torch.randn(2, 5, 20), torch.randn(2, 7, 20)
    still = torch.zeros(2, 20)
    attended = ours(query, context, still, still)
    torch.testing.assert_close(attended, theirs(query, context, context)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("queries", "keys", "shared"), [(3, 40, True), (40, 40, False)])
def test_a_context_that_all_share_gets_no_keys_of_its_own_where_that_is_less_work(queries, keys, shared) -> None:
    """One context for all, without keys and values for each candidate, against one for each: the same attention."""
    attention = CrossAttention(24, 4).double()
    for bias in (attention.in_proj_bias, attention.bias_k, attention.bias_v):
        nn.init.normal_(bias)
    query, context = torch.randn(5, queries, 24).double(), torch.randn(1, keys, 24).double()
    shift, scale = torch.randn(2, 5, 24).double()
    assert attention._is_cheaper_shared(queries, keys) == shared
    expected = attention(query, context.expand(5, -1, -1), shift, scale)
    for found in (attention(query, context, shift, scale), attention._shared(query, context[0], shift, scale)):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_sinusoid_has_cosines_first_and_periods_up_to_ten_thousand() -> None:
    features = sinusoid(torch.tensor([0.0, math.pi]))
    assert features.shape == (2, 256)
    assert torch.equal(features[0], torch.cat([torch.ones(128), torch.zeros(128)]))
    assert features[1, 0].item() == pytest.approx(-1.0)  # frequency 1
    assert features[1, 128 + 64].item() == pytest.approx(math.sin(math.pi / 100.0), abs=1e-6)  # 10000^(-1/2)


def test_unpatchify_inverts_cutting_into_patches() -> None:
    image = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    tokens = image.reshape(2, 3, 2, 2, 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(2, 4, 12)
    assert torch.equal(unpatchify(tokens, 2, 2), image)


# -- additions ---------------------------------------------------------------------------------------------------------


def test_new_model_predicts_zero_and_additions_change_nothing_at_first() -> None:
    torch.manual_seed(0)
    plain = CDiT(**SMALL)
    assert plain(*inputs(plain, 2)).abs().max() == 0
    full = CDiT(**SMALL, context_pose=True, context_dropout=True, extra_channels=3, pose_embedding=True)
    trained = randomised(**SMALL)
    missing = full.load_state_dict(trained.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert {key.split(".")[0] for key in missing.missing_keys} == {
        "context_pose_embedder", "null_context", "extra_embedder", "pose_embedder",
    }  # fmt: skip
    arguments = inputs(full, 2)
    output = full(
        *arguments, context_pose=torch.randn(2, 2, 5), extra=torch.randn(2, 3, 4, 4), absolute_pose=torch.randn(2, 4)
    )
    torch.testing.assert_close(output, trained(*arguments))


@pytest.mark.parametrize("option", ["context_pose", "extra", "absolute_pose", "action_scale"])
def test_each_addition_matters_once_trained(option: str) -> None:
    model = randomised(**SMALL, context_pose=True, extra_channels=3, pose_embedding=True)
    arguments = inputs(model, 2)
    values = {
        "context_pose": torch.zeros(2, 2, 5),
        "extra": torch.zeros(2, 3, 4, 4),
        "absolute_pose": torch.zeros(2, 4),
    }
    before = model(*arguments, **values)
    if option == "action_scale":
        model.settings = CDiTSettings(**{**model.settings.__dict__, "action_scale": 50.0})
    else:
        values[option] = values[option] + 1.0
    assert (model(*arguments, **values) - before).abs().max() > 1e-3


def test_shared_context_equals_a_repeated_one() -> None:
    model = randomised(**SMALL, context_pose=True, context_dropout=True)
    x, t, y, x_cond, rel_t = inputs(model, 3)
    pose, drop = torch.randn(1, 2, 5), torch.tensor([False, True, False])
    shared = model(x, t, y, x_cond[:1], rel_t, context_pose=pose, drop_context=drop)
    repeated = model(
        x, t, y, x_cond[:1].expand(3, -1, -1, -1, -1), rel_t, context_pose=pose.expand(3, -1, -1), drop_context=drop
    )
    torch.testing.assert_close(shared, repeated, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("null_token", [True, False])
def test_dropped_context_is_ignored_and_others_are_not(null_token: bool) -> None:
    model = randomised(**SMALL, context_dropout=null_token)
    x, t, y, x_cond, rel_t = inputs(model, 2)
    drop = torch.tensor([True, False])

    def predict(context: Tensor) -> Tensor:
        return model(x, t, y, context, rel_t, drop_context=drop, generator=torch.Generator().manual_seed(3))

    first, second = predict(x_cond), predict(x_cond + 1.0)
    assert torch.equal(first[0], second[0])
    assert (first[1] - second[1]).abs().max() > 1e-3
    torch.testing.assert_close(first[1], model(x, t, y, x_cond, rel_t)[1], rtol=1e-4, atol=1e-5)


def test_data_without_actions_leave_the_action_term_out() -> None:
    model = randomised(**SMALL)
    x, t, y, x_cond, rel_t = inputs(model, 2)
    action_term = model.embed_condition(t, y, rel_t) - model.embed_condition(t, None, rel_t)
    torch.testing.assert_close(action_term, model.y_embedder(y), rtol=1e-4, atol=1e-5)
    assert model(x, t, None, x_cond, rel_t).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden_size": 50, "num_heads": 4}, "cdit.hidden_size must be a multiple of num_heads 4, got 50"),
        ({"input_size": 7}, "cdit.input_size must be a multiple of patch_size 2, got 7"),
        ({"depth": 0}, "cdit.depth must be >= 1, got 0"),
        ({"action_scale": 0.0}, "cdit.action_scale must be > 0"),
    ],
)
def test_impossible_shapes_are_told(settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        CDiT(**{**SMALL, **settings})


def test_wrong_context_is_told() -> None:
    model = randomised(**SMALL, context_pose=True)
    x, t, y, x_cond, rel_t = inputs(model, 2)
    with pytest.raises(ShapeError, match=r"x_cond must have shape \(B 2 4 4 4\), got \(2, 1, 4, 4, 4\)"):
        model(x, t, y, x_cond[:, :1], rel_t)
    with pytest.raises(ShapeError, match="context_pose"):
        model(x, t, y, x_cond, rel_t)
