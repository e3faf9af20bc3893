"""CDiT in bfloat16 and at odd sizes: recorded outputs of the published network, and a float64 formulation in numpy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_experts_cdit import inputs, randomised

from come_nav.experts.cdit import CDiT
from come_nav.world_model.nwm.official_checkpoint import open_checkpoint

Array = NDArray[np.float64]
# widths not divisible by 3, odd head widths, other context sizes and patch sizes
ODD_HEADS = {"input_size": 6, "context_size": 5, "hidden_size": 35, "depth": 3, "num_heads": 5, "mlp_ratio": 2.5}
ONE_FRAME = {
    "input_size": 9, "context_size": 1, "patch_size": 3, "in_channels": 5, "hidden_size": 22, "depth": 2,
    "num_heads": 2, "learn_sigma": False,
}  # fmt: skip


class NumpyCDiT:
    """CDiT from its description alone, in float64: no torch, one sample and one head at a time."""

    def __init__(self, model: CDiT) -> None:
        self.weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
        self.shape = model.settings

    def linear(self, name: str, value: Array) -> Array:
        return value @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    @staticmethod
    def silu(value: Array) -> Array:
        return value / (1.0 + np.exp(-value))

    def scalar(self, name: str, value: float) -> Array:
        angles = value * np.exp(-math.log(10_000.0) * np.arange(128) / 128)
        features = np.concatenate([np.cos(angles), np.sin(angles)])
        return self.linear(f"{name}.mlp.2", self.silu(self.linear(f"{name}.mlp.0", features)))

    def condition(self, t: float, y: Array, rel_t: float) -> Array:
        action = [self.scalar(f"y_embedder.{part}", y[i]) for i, part in enumerate(("x_emb", "y_emb", "angle_emb"))]
        return self.scalar("t_embedder", t) + self.scalar("time_embedder", rel_t) + np.concatenate(action)

    def patches(self, image: Array) -> Array:
        size, grid = self.shape.patch_size, self.shape.input_size // self.shape.patch_size
        kernel = self.weights["x_embedder.proj.weight"]
        rows = []
        for row in range(grid):
            for column in range(grid):
                cut = image[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
                rows.append(np.einsum("ocij,cij->o", kernel, cut))
        return np.stack(rows) + self.weights["x_embedder.proj.bias"]

    @staticmethod
    def norm(tokens: Array) -> Array:
        centred = tokens - tokens.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)

    def attend(self, query: Array, key: Array, value: Array) -> Array:
        heads, width = self.shape.num_heads, query.shape[-1] // self.shape.num_heads
        mixed = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            logits = query[:, part] @ key[:, part].T / math.sqrt(width)
            shares = np.exp(logits - logits.max(-1, keepdims=True))
            mixed.append(shares / shares.sum(-1, keepdims=True) @ value[:, part])
        return np.concatenate(mixed, axis=-1)

    def block(self, index: int, tokens: Array, condition: Array, context: Array) -> Array:
        name, width = f"blocks.{index}", self.shape.hidden_size
        parts = self.linear(f"{name}.adaLN_modulation.1", self.silu(condition)).reshape(11, width)
        shift1, scale1, gate1, shift_c, scale_c, shift2, scale2, gate2, shift3, scale3, gate3 = parts
        fused = self.linear(f"{name}.attn.qkv", self.norm(tokens) * (1 + scale1) + shift1)
        tokens = tokens + gate1 * self.linear(f"{name}.attn.proj", self.attend(*np.split(fused, 3, axis=-1)))
        weight, bias = self.weights[f"{name}.cttn.in_proj_weight"], self.weights[f"{name}.cttn.in_proj_bias"]
        seen = self.norm(context) * (1 + scale_c) + shift_c
        query = (self.norm(tokens) * (1 + scale2) + shift2) @ weight[:width].T + bias[:width]
        key = seen @ weight[width : 2 * width].T + bias[width : 2 * width]
        value = seen @ weight[2 * width :].T + bias[2 * width :]
        key = np.concatenate([key, self.weights[f"{name}.cttn.bias_k"][0]])
        value = np.concatenate([value, self.weights[f"{name}.cttn.bias_v"][0]])
        tokens = tokens + gate2 * self.linear(f"{name}.cttn.out_proj", self.attend(query, key, value))
        hidden = self.linear(f"{name}.mlp.fc1", self.norm(tokens) * (1 + scale3) + shift3)
        hidden = 0.5 * hidden * (1 + np.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
        return tokens + gate3 * self.linear(f"{name}.mlp.fc2", hidden)

    def __call__(self, x: Array, t: float, y: Array, x_cond: Array, rel_t: float) -> tuple[Array, list[Array]]:
        """Return the output and the tokens after every block for one sample."""
        shape, places = self.shape, self.weights["pos_embed"]
        condition = self.condition(t, y, rel_t)
        context = np.concatenate([self.patches(frame) + place for frame, place in zip(x_cond, places, strict=False)])
        tokens, after = self.patches(x) + places[-1], []
        for index in range(shape.depth):
            tokens = self.block(index, tokens, condition, context)
            after.append(tokens)
        shift, scale = np.split(self.linear("final_layer.adaLN_modulation.1", self.silu(condition)), 2)
        cells = self.linear("final_layer.linear", self.norm(tokens) * (1 + scale) + shift)
        size, grid = shape.patch_size, shape.input_size // shape.patch_size
        output = np.zeros((cells.shape[-1] // size**2, shape.input_size, shape.input_size))
        for cell, values in enumerate(cells):
            row, column = divmod(cell, grid)
            square = values.reshape(size, size, -1).transpose(2, 0, 1)
            output[:, row * size : (row + 1) * size, column * size : (column + 1) * size] = square
        return output, after


def blocks_of(model: CDiT, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the output of a model and what each of its blocks returned."""
    seen: list[torch.Tensor] = []
    hooks = [block.register_forward_hook(lambda module, given, out: seen.append(out)) for block in model.blocks]
    with torch.no_grad():
        output = model(*arguments)
    for hook in hooks:
        hook.remove()
    return output, seen


def exact_sinusoid(values: torch.Tensor) -> torch.Tensor:
    """The sinusoid in float64; the network's own is in float32, as the published one."""
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(128, dtype=torch.float64) / 128)
    angles = values.double()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


@pytest.mark.parametrize("settings", [ODD_HEADS, ONE_FRAME], ids=["35 wide, 5 heads of 7", "22 wide, 2 heads of 11"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 5e-5)])
def test_output_and_blocks_equal_a_numpy_formulation(
    settings: dict, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dtype is torch.float64:
        monkeypatch.setattr("come_nav.experts.embeddings.sinusoid", exact_sinusoid)
    model = randomised(**settings)
    second = NumpyCDiT(model)
    arguments = inputs(model, batch=2)
    output, blocks = blocks_of(
        model.to(dtype), tuple(value.to(dtype) if value.is_floating_point() else value for value in arguments)
    )
    for sample in range(2):
        x, t, y, x_cond, rel_t = (value[sample].double().numpy() for value in arguments)
        expected, after = second(x, float(t), y, x_cond, float(rel_t))
        for found, wanted in zip(blocks, after, strict=True):
            assert np.abs(found[sample].double().numpy() - wanted).max() < tolerance * max(1.0, np.abs(wanted).max())
        assert np.abs(output[sample].double().numpy() - expected).max() < tolerance * max(1.0, np.abs(expected).max())


@st.composite
def constructor_values(draw: st.DrawFn) -> dict[str, Any]:
    heads, patch = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    width = heads * draw(st.integers(-(-3 // heads), 9))
    return {
        "input_size": patch * draw(st.integers(1, 3)),
        "context_size": draw(st.integers(1, 6)),
        "patch_size": patch,
        "in_channels": draw(st.integers(1, 5)),
        "hidden_size": width,
        "depth": draw(st.integers(1, 2)),
        "num_heads": heads,
        "mlp_ratio": (draw(st.integers(1, 90)) + 0.5) / width,
        "learn_sigma": draw(st.booleans()),
    }


@given(constructor_values())
@hypothesis_settings(max_examples=25, deadline=None)
def test_any_constructor_values_equal_the_numpy_formulation(values: dict[str, Any]) -> None:
    model = randomised(**values)
    second, given_inputs = NumpyCDiT(model), inputs(model, batch=1)
    with torch.no_grad():
        output = model(*given_inputs)[0].double().numpy()
    x, t, y, x_cond, rel_t = (value[0].double().numpy() for value in given_inputs)
    expected, _ = second(x, float(t), y, x_cond, float(rel_t))
    assert np.abs(output - expected).max() < 1e-4 * max(1.0, np.abs(expected).max())


@pytest.fixture(scope="module")
def published(shared_data: Path) -> tuple[CDiT, dict[str, np.ndarray]]:
    folder = shared_data / "nwm_parity"
    model = CDiT(**json.loads((folder / "configs.json").read_text())["configs"]["small"]["ctor"])
    model.load_state_dict(open_checkpoint(folder / "cdit_small.pth.tar").tensors)
    with np.load(folder / "cdit_small_io.npz") as recorded:
        return model.eval(), dict(recorded)


def arguments_of(recorded: dict[str, np.ndarray], case: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(recorded[f"in{case}_{name}"]) for name in ("x", "t", "y", "x_cond", "rel_t"))


@pytest.mark.shared_data
@pytest.mark.parametrize("case", [0, 1, 2])
def test_float64_equals_the_published_network_in_float64(published, case: int) -> None:
    model, recorded = published
    given = [value.double() if value.is_floating_point() else value for value in arguments_of(recorded, case)]
    with torch.no_grad():
        output = model.double()(*given)
    model.float()
    assert np.abs(output.numpy() - recorded[f"out{case}_f64"]).max() < 1e-5  # sinusoids are taken in float32


@pytest.mark.shared_data
def test_blocks_in_bfloat16_stay_near_the_published_ones(published) -> None:
    """The tokens between blocks stay float32, as in the official evaluation; only what is added to them is rounded."""
    model, recorded = published
    with torch.autocast("cpu", torch.bfloat16):
        _, blocks = blocks_of(model, arguments_of(recorded, 0))
    for index, found in enumerate(blocks):
        wanted = recorded[f"in0_block{index}"]
        assert found.dtype is torch.float32
        assert np.sqrt(((found.numpy() - wanted) ** 2).mean()) < 0.02 * wanted.std()


@pytest.mark.shared_data
def test_bfloat16_stays_near_the_published_network(published) -> None:
    """Autocast as in the official evaluation: about three digits, measured against the recorded float32 output."""
    model, recorded = published
    for case in range(3):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            output = model(*arguments_of(recorded, case)).float().numpy()
        error, scale = output - recorded[f"out{case}"], recorded[f"out{case}"].std()
        assert np.sqrt((error**2).mean()) < 0.02 * scale
        assert np.abs(error).max() < 0.15 * scale
        assert np.abs(error).max() > 1e-4 * scale  # it did run in bfloat16


@pytest.mark.shared_data
def test_the_odd_shape_has_the_published_number_of_parameters(shared_data: Path) -> None:
    entry = json.loads((shared_data / "nwm_parity" / "configs.json").read_text())["configs"]["odd"]
    model = CDiT(**entry["ctor"])
    assert len(model.state_dict()) == entry["n_tensors"]
    assert sum(parameter.numel() for parameter in model.parameters()) == entry["n_params"]
