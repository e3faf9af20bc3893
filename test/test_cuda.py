"""The GPU agrees with the CPU within what is said here, and a plan does not wait for it more often than it must.

``COME_NAV_TEST_DEVICE=cpu pytest test/test_cuda.py`` runs what is marked cuda on the CPU: the same code, a dry run.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_memory_splat_loops import CAMERA, MOST_OTHERS, SIZE, a_cloud, others, some_views, with_tensors
from torch.utils._python_dispatch import TorchDispatchMode

from come_nav.core.device.precision import full_float32
from come_nav.core.device.streams import OwnStream
from come_nav.core.device.transfer import to_device
from come_nav.core.geometry.point_rendering import camera_fractions, close_gaps, level_camera, render_points
from come_nav.core.resources import find_resource
from come_nav.memory.spatial.splatting import SpatialView, Splats, Viewpoint, coarsened, render_splats
from come_nav.planning.cem import CemPlanner
from come_nav.planning.objectives import LatentDistance
from come_nav.planning.settings import PlannerSettings
from come_nav.world_model.inference_settings import InferenceSettings, Precision
from come_nav.world_model.model import DiffusionWorldModel

DEVICE = os.environ.get("COME_NAV_TEST_DEVICE", "cuda")
FLOAT32, BFLOAT16 = 2e-3, 0.03  # largest difference of latents of size 1, and root mean square over that of latents
needs_device = pytest.mark.skipif(
    DEVICE.startswith("cuda") and not torch.cuda.is_available(),
    reason="no CUDA device; COME_NAV_TEST_DEVICE=cpu is a dry run",
)
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "unique", "_unique2", "equal")


@pytest.fixture(scope="module")
def tiny() -> DiffusionWorldModel:
    return DiffusionWorldModel.load(find_resource("models", "tiny"))


@pytest.fixture(scope="module")
def models(tiny) -> dict[str, DiffusionWorldModel]:
    return {"cpu": tiny, "device": DiffusionWorldModel.load(find_resource("models", "tiny"), DEVICE)}


@pytest.fixture
def exact() -> Iterator[None]:
    """Products of matrices and convolutions in float32, not in TF32."""
    kept = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    yield
    torch.backends.cudnn.allow_tf32 = kept[0]
    torch.set_float32_matmul_precision(kept[1])


def in_precision(model: DiffusionWorldModel, precision: Precision) -> DiffusionWorldModel:
    own = model.composed(model.weights)
    own.inference = InferenceSettings(precision=precision)
    return own


def a_context(model: DiffusionWorldModel):
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return model.context_from_images(images, torch.zeros(4, 3), depth_m=torch.full((4, 64, 64), 3.0))


def paths(count: int) -> torch.Tensor:
    ends = torch.randn(count, 3, generator=torch.Generator().manual_seed(2)) * torch.tensor([0.5, 0.3, 0.4])
    return ends[:, None] * torch.linspace(0.125, 1.0, 8)[None, :, None]


def imagined(model: DiffusionWorldModel, count: int = 40) -> torch.Tensor:
    imaginer = model.imaginer(a_context(model), 8.0)
    latents = imaginer.imagine(paths(count), torch.Generator().manual_seed(3)).latents
    assert latents is not None
    return latents.cpu()


@pytest.mark.cuda
@needs_device
def test_a_cloud_looks_the_same() -> None:
    splats, view = a_cloud(0), some_views(0, 8)
    wanted = with_tensors(render_splats, splats, view, SIZE)
    moved = Splats(*(tensor.to(DEVICE) for tensor in splats.tensors))
    seen = render_splats(moved, Viewpoint(*(own.to(DEVICE) for own in as_tensors(view))), SIZE)
    found = SpatialView(seen.image.cpu(), seen.depth_m.cpu(), seen.visible.cpu())
    assert others((found.image, found.depth_m, found.visible), (wanted.image, wanted.depth_m, wanted.visible)) < (
        MOST_OTHERS
    )


def as_tensors(view: Viewpoint) -> tuple[torch.Tensor, ...]:
    return view.poses_xyyaw, view.camera, view.T_base_camera


@pytest.mark.cuda
@needs_device
def test_points_of_the_context_look_the_same() -> None:
    generator = torch.Generator().manual_seed(4)
    points = torch.rand(1, 4000, 3, generator=generator) * torch.tensor([4.0, 4.0, 2.0]) + torch.tensor([0.5, -2, -1])
    colours, poses = torch.rand(1, 4000, 3, generator=generator), torch.randn(6, 3, generator=generator) * 0.2
    arguments = (points, colours, poses, camera_fractions(CAMERA), level_camera(0.3))
    wanted = with_tensors(lambda: close_gaps(*render_points(*arguments, SIZE)[::2]))
    found = close_gaps(*render_points(*(own.to(DEVICE) for own in arguments), SIZE)[::2])
    assert (found[1].cpu() != wanted[1]).float().mean() < MOST_OTHERS
    assert ((found[0].cpu() - wanted[0]).abs() > 1e-4).float().mean() < MOST_OTHERS


@pytest.mark.cuda
@needs_device
def test_the_same_is_imagined_in_float32(models, exact) -> None:
    wanted, found = (imagined(in_precision(models[place], "float32")) for place in ("cpu", "device"))
    # a point of the view that falls into the next pixel changes one cell of one candidate
    assert ((found - wanted).abs() > FLOAT32).float().mean() < MOST_OTHERS


@pytest.mark.cuda
@needs_device
def test_bfloat16_is_near_float32(models) -> None:
    wanted, found = (
        imagined(in_precision(models["cpu"], "float32")),
        imagined(in_precision(models["device"], "bfloat16")),
    )
    assert (found - wanted).pow(2).mean().sqrt() < BFLOAT16 * wanted.pow(2).mean().sqrt()


@pytest.mark.cuda
@needs_device
def test_a_plan_is_the_same(models, exact) -> None:
    """Not bit by bit: candidates that cost nearly the same may change places."""
    ends = [a_plan(in_precision(models[place], "float32")).poses_xyyaw[-1] for place in ("cpu", "device")]
    assert np.hypot(*(ends[0] - ends[1])[:2]) < 0.05
    assert abs(ends[0][2] - ends[1][2]) < 0.1


def a_plan(model: DiffusionWorldModel):
    goal = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    settings = PlannerSettings(initial_samples=60, samples=20, elites=5, iterations=3)
    planner = CemPlanner(settings, [LatentDistance(model.encode(goal), "cosine")])
    return planner.plan(model.imaginer(a_context(model), 8.0), torch.Generator().manual_seed(5))


@pytest.mark.cuda
@needs_device
def test_memory_of_a_plan_is_bounded(models) -> None:
    """128 candidates of tiny at once, decoded: below 1 GB beside the weights."""
    if not DEVICE.startswith("cuda"):
        imagined(models["device"], 200)
        return
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    imagined(models["device"], 400)
    assert torch.cuda.max_memory_allocated() - before < 1e9


@pytest.mark.cuda
@needs_device
def test_imagining_never_waits_for_the_gpu(models) -> None:
    """Costs of an iteration are waited for, once, by who asks; nothing before."""
    model = models["device"]
    imaginer, candidates = model.imaginer(a_context(model), 8.0), paths(200)
    imaginer.imagine(candidates, torch.Generator().manual_seed(0))  # compiles and allocates
    with no_wait():
        imaginer.imagine(candidates, torch.Generator().manual_seed(0))


@contextlib.contextmanager
def no_wait() -> Iterator[None]:
    if not DEVICE.startswith("cuda"):
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_imagining_asks_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """On torch's meta device, which has no numbers to ask for: whatever would wait for a GPU fails here."""
    model = DiffusionWorldModel.load(find_resource("models", "tiny"))
    context = a_context(model)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # meta tensors know none
    imaginer = model.to("meta").imaginer(context, 8.0, decode=True)
    views = imaginer.imagine(paths(300), torch.Generator().manual_seed(0))
    assert views.latents is not None and views.images is not None
    assert views.latents.shape == (300, 32, 8, 8) and views.images.shape == (300, 3, 64, 64)


class Waits(TorchDispatchMode):
    """Counts operations that need a number of a tensor on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        name = str(operation).split(".")[1]
        masks = name in ("index", "index_put_") and any(
            isinstance(own, torch.Tensor) and own.dtype is torch.bool for own in arguments[1]
        )
        if name in WAITS or masks:
            self.found.append(name)
        return operation(*arguments, **(keywords or {}))


def test_who_counts_waits_finds_them() -> None:
    values = torch.arange(4.0)
    with Waits() as waits:
        _ = values[values > 1], int(values[1]), values.nonzero()
    assert len(waits.found) >= 3


def test_several_passes_and_their_product_ask_nothing_back(tiny) -> None:
    model = guided(tiny)
    context = a_context(model)
    imaginer = model.imaginer(context, 8.0)
    with Waits() as waits:
        with_tensors(imaginer.imagine, paths(10), torch.Generator().manual_seed(0))
    assert waits.found == []


def guided(model: DiffusionWorldModel) -> DiffusionWorldModel:
    """A composition of two passes: guidance of 1.5."""
    own = model.composed({"base": 1.5})
    own.composition = replace(own.composition, mode="normalised")
    return own


def test_a_tensor_moves_with_its_type() -> None:
    moved = to_device(torch.arange(3), "cpu", torch.float32)
    assert moved.dtype is torch.float32
    assert torch.equal(moved, torch.tensor([0.0, 1.0, 2.0]))


def test_convolutions_are_float32_for_a_while() -> None:
    cudnn = torch.backends.cudnn
    flags, name = (cudnn.conv, "fp32_precision") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32")
    before = getattr(flags, name)
    with pytest.raises(ValueError, match="inside"), full_float32():
        assert getattr(flags, name) in ("ieee", False)
        raise ValueError("inside")
    assert getattr(flags, name) == before


@pytest.mark.cuda
@needs_device
def test_work_of_a_stream_of_its_own_is_done_when_it_ends() -> None:
    device = torch.device(DEVICE)
    beside, values = OwnStream(device), torch.ones(1 << 20, device=device)
    with beside.used():
        if device.type == "cuda":
            assert torch.cuda.current_stream() != torch.cuda.default_stream()
        doubled = values * 2
    assert bool((doubled == 2.0).all())


@pytest.mark.cuda
@needs_device
def test_a_cloud_is_merged_alike_in_each_run() -> None:
    """Points of a cell are summed in an order that changes on a GPU."""
    splats = a_cloud(0, 20_000)
    moved = Splats(*(tensor.to(DEVICE) for tensor in splats.tensors))
    first, again = (coarsened(moved, 0.3) for _ in range(2))
    for one, other in zip(first.tensors, again.tensors, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(first.tensors, coarsened(splats, 0.3).tensors, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-4, atol=1e-4)


INTERPRETED = """
import torch
from test_memory_splat_loops import SIZE, a_cloud, some_views
from come_nav.memory.spatial import splatting
for seed in range(2):
    splats, view = a_cloud(seed, 1500), some_views(seed, 3)
    found, wanted = splatting._blend_by_kernels(splats, view, SIZE), splatting._blend(splats, view, SIZE)
    assert (found[3] == wanted[3]).float().mean() > 0.99
    for one, other in zip(found[:3], wanted[:3]):
        assert ((one - other).abs() > 2e-4 * other.abs().clamp_min(1.0)).float().mean() < 0.01
"""


def test_kernels_do_what_tensors_do() -> None:
    """Kernels are interpreted on the CPU, so that they are tested without a GPU."""
    pytest.importorskip("triton", reason="triton comes with torch for CUDA, or pip install triton")
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(root), str(root / "test"), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
