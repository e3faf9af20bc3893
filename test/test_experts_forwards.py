"""Networks run as they are, as graphs or compiled; what cannot be captured runs as it is, and says so once."""

from __future__ import annotations

import copy
import logging
import os
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from come_nav.core.resources import find_resource
from come_nav.experts import forwards as module
from come_nav.experts.cdit import CDiT
from come_nav.experts.forwards import MOST_SHAPES, Forwards, captured, compiled, forwards
from come_nav.experts.optional_inputs import OptionalInputs
from come_nav.world_model.inference_settings import InferenceSettings, Precision
from come_nav.world_model.model import DiffusionWorldModel

DEVICE = os.environ.get("COME_NAV_TEST_DEVICE", "cuda")
needs_device = pytest.mark.skipif(
    DEVICE.startswith("cuda") and not torch.cuda.is_available(),
    reason="no CUDA device; COME_NAV_TEST_DEVICE=cpu is a dry run",
)


@pytest.fixture(autouse=True)
def nothing_failed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_refused", set())


class Sum(nn.Module):
    """Adds what it is given to its weight, and counts how often it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.runs = nn.Parameter(torch.ones(1)), 0

    def forward(self, x: Tensor, optional: OptionalInputs | None = None, generator: Any = None) -> Tensor:
        self.runs += 1
        shown = None if optional is None else optional.camera
        return self.weight + x if shown is None else self.weight + x + shown


def a_graph(network: nn.Module, inputs: module.Inputs) -> module.Made:
    """Capture as CUDA does: what is not copied into the inputs of the capture is not seen."""
    own = {name: tensor.clone() for name, tensor in inputs.items()}

    def replay(given: module.Inputs) -> Tensor:
        for name, tensor in own.items():
            tensor.copy_(given[name])
        return module._run(network, own).clone()

    return replay


@torch.no_grad()
def test_what_is_captured_answers_as_the_network_does() -> None:
    made: list[module.Inputs] = []
    network, run = Sum(), Forwards({"graph": lambda *given: made.append(given[1]) or a_graph(*given)})
    for count in (2, 3, 2, 3, 2):
        x, camera = torch.rand(count, 7), torch.rand(count, 7)
        with forwards("graph"):
            with_camera = run(network, {"x": x, "optional": OptionalInputs(camera=camera)})
            without = run(network, {"x": x, "optional": OptionalInputs()})
        assert torch.equal(with_camera, 1.0 + x + camera)
        assert torch.equal(without, 1.0 + x)
    assert [sorted(inputs) for inputs in made] == [["optional.camera", "x"], ["x"]] * 2  # once for each shape


@torch.no_grad()
def test_new_weights_are_captured_anew_and_shapes_are_bounded() -> None:
    made: list[int] = []
    network, run = Sum(), Forwards({"graph": lambda *given: made.append(0) or a_graph(*given)})
    with forwards("graph"):
        run(network, {"x": torch.zeros(1)})
        network.weight = nn.Parameter(torch.full((1,), 5.0))
        assert run(network, {"x": torch.zeros(1)}).item() == 5.0
        assert len(made) == 2
        for count in range(2, 2 * MOST_SHAPES):
            assert torch.equal(run(network, {"x": torch.ones(count)}), torch.full((count,), 6.0))
    assert len(made) == MOST_SHAPES


@torch.no_grad()
def test_a_failed_capture_is_said_once_and_the_network_runs(caplog: pytest.LogCaptureFixture) -> None:
    def fails(network: nn.Module, inputs: module.Inputs) -> module.Made:
        raise RuntimeError("operation not permitted when stream is capturing\nand a stack")

    with caplog.at_level(logging.WARNING), forwards("graph"):
        for run in (Forwards({"graph": fails}), Forwards({"graph": fails})):
            for count in (1, 2):
                assert torch.equal(run(Sum(), {"x": torch.ones(count)}), torch.full((count,), 2.0))
    (record,) = caplog.records
    assert record.getMessage() == (
        "inference.compile graph: operation not permitted when stream is capturing; networks run as they are"
    )


def test_gradients_generators_and_cpus_are_left_alone() -> None:
    def never(network: nn.Module, inputs: module.Inputs) -> module.Made:
        raise AssertionError("nothing is to be captured")

    network, run, x = Sum(), Forwards({"graph": never, "compile": never}), torch.ones(1)
    with forwards("graph"):
        run(network, {"x": x}).sum().backward()
        with torch.no_grad():
            run(network, {"x": x, "generator": torch.Generator()})
            Forwards()(network, {"x": x})  # a CPU has no graphs
    with torch.no_grad():
        run(network, {"x": x})
    assert network.weight.grad is not None
    assert not module._refused


def test_copies_and_files_keep_no_capture() -> None:
    run = Forwards({"graph": a_graph})
    with torch.no_grad(), forwards("graph"):
        run(Sum(), {"x": torch.ones(1)})
    assert run._made
    assert not copy.deepcopy(run)._made
    assert not pickle.loads(pickle.dumps(run))._made


def imagined(
    model: DiffusionWorldModel, way: module.ForwardWay, count: int, precision: Precision = "float32"
) -> Tensor:
    own = model.composed(model.weights)
    own.inference = InferenceSettings(precision=precision, compile=way, micro_batch=16)
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    context = own.context_from_images(images, torch.zeros(4, 3), depth_m=torch.full((4, 64, 64), 3.0))
    ends = torch.randn(count, 3, generator=torch.Generator().manual_seed(2)) * 0.4
    paths = ends[:, None] * torch.linspace(0.125, 1.0, 8)[None, :, None]
    latents = own.imaginer(context, 8.0).imagine(paths, torch.Generator().manual_seed(3)).latents
    assert latents is not None
    return latents.cpu()


def test_the_setting_reaches_the_networks_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for CUDA's graphs, bit by bit, for whole batches and the rest of them."""
    model = DiffusionWorldModel.load(find_resource("models", "tiny"))
    wanted, made = imagined(model, "eager", 40), []
    stand_in = Forwards({"graph": lambda *given: made.append(0) or a_graph(*given)})
    monkeypatch.setattr(model.base, "_forwards", stand_in)
    assert torch.equal(imagined(model, "graph", 40), wanted)
    assert torch.equal(imagined(model, "graph", 40), wanted)
    assert len(made) == 2  # 16 candidates, and 8
    assert torch.equal(imagined(model, "eager", 40), wanted)
    assert len(made) == 2


@pytest.mark.cuda
@needs_device
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_graph_answers_as_the_network_does(precision: Precision) -> None:
    model = DiffusionWorldModel.load(find_resource("models", "tiny"), DEVICE)
    wanted, found, again = (imagined(model, way, 40, precision) for way in ("eager", "graph", "graph"))
    assert (found - wanted).abs().max() < (1e-4 if precision == "float32" else 0.05)  # the same kernels
    assert torch.equal(found, again)
    if DEVICE.startswith("cuda"):
        assert not module._refused
        assert len(model.base._forwards._made) == 2


@pytest.mark.cuda
@needs_device
@torch.no_grad()
def test_a_graph_sees_new_inputs_and_weights_that_changed_in_place() -> None:
    network = CDiT(input_size=8, context_size=2, hidden_size=32, depth=2, num_heads=2).to(DEVICE).eval()
    for parameter in network.parameters():
        parameter.normal_(std=0.1)
    make = captured if DEVICE.startswith("cuda") else a_graph
    made = None
    for _ in range(3):
        inputs = {
            "x": torch.randn(5, 4, 8, 8, device=DEVICE),
            "t": torch.randint(1000, (5,), device=DEVICE),
            "y": torch.randn(5, 3, device=DEVICE),
            "x_cond": torch.randn(1, 2, 4, 8, 8, device=DEVICE),
            "rel_t": torch.rand(5, device=DEVICE),
        }
        made = made or make(network, inputs)
        assert torch.allclose(made(inputs), network(**inputs), atol=1e-5)
        next(network.parameters()).mul_(1.5)


@pytest.mark.cuda
@needs_device
@torch.no_grad()
def test_what_torch_compiles_answers_as_the_network_does() -> None:
    if not DEVICE.startswith("cuda"):
        pytest.skip("a compiler of C++ takes minutes on a CPU")
    network = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)).to(DEVICE)
    wrapped = _Named(network)
    x = torch.randn(4, 8, device=DEVICE)
    assert torch.allclose(compiled(wrapped, {"x": x})({"x": x}), network(x), atol=1e-4)


class _Named(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, optional: OptionalInputs | None = None) -> Tensor:
        return self.network(x)
