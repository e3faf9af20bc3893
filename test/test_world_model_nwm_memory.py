"""Memory experts on a network of NWM's class: test-time training of an adapter, and its product with the base."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from test_world_model_import_nwm import official, vae  # noqa: F401  a fixture

from come_nav.core.types import Context
from come_nav.experts.cdit import CDIT_SIZES, CDiT
from come_nav.experts.lora import LongTermExpert, adapted, diffusion_loss
from come_nav.experts.lora_settings import LoraSettings
from come_nav.memory.store.store import MemoryStore
from come_nav.world_model.composition import CompositionSettings
from come_nav.world_model.inference_settings import InferenceSettings
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.nwm.importer import ImportSettings, import_checkpoint
from come_nav.world_model.sampling.settings import SamplerSettings

ADAPTER = LoraSettings(rank=4, alpha=8, pose_key=False)
STEPS = 80


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, vae: Path) -> DiffusionWorldModel:  # noqa: F811
    folder = tmp_path_factory.mktemp("nwm")
    content = official()
    torch.save(content, folder / "cdit.pth.tar")
    import_checkpoint(folder / "cdit.pth.tar", folder / "nwm", ImportSettings(heads=3, autoencoder=str(vae)))
    model = DiffusionWorldModel.load(folder / "nwm")
    model.inference = InferenceSettings(precision="float32")
    model.sampler = SamplerSettings("ddim", 4)
    return model


def episode(model: DiffusionWorldModel) -> tuple[Context, torch.Tensor, torch.Tensor, torch.Tensor]:
    """One remembered place: its context, what was seen at a pose, that pose and its time."""
    images = torch.rand(4, 3, model.image_size, model.image_size, generator=seeded(1)) * 2 - 1
    context = model.context_from_images(images, torch.zeros(4, 3), absolute_pose_xyyaw=torch.zeros(3))
    target = torch.randn(1, 4, 4, 4, generator=seeded(2))
    return context, target, torch.tensor([[0.5, 0.1, 0.2]]), torch.tensor([4.0])


@pytest.fixture(scope="module")
def trained(model: DiffusionWorldModel) -> tuple[LongTermExpert, list[float], dict[str, torch.Tensor]]:
    context, target, action, ahead = episode(model)
    expert = adapted(model.base, ADAPTER, seeded())
    own = {name: value for name, value in expert.named_parameters() if value.requires_grad}
    optimiser, generator, losses = torch.optim.AdamW(own.values(), lr=5e-3), seeded(3), []
    batch = 4
    for _ in range(STEPS):
        loss = diffusion_loss(
            expert, target.expand(batch, -1, -1, -1), context.expand(batch), action.expand(batch, 3),
            ahead.expand(batch), generator,
        )  # fmt: skip
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    long_term = LongTermExpert(model.base, ADAPTER)
    tensors = {name: value.detach().clone() for name, value in own.items()}
    long_term.swap(tensors)
    return long_term, losses, tensors


def test_an_adapter_learns_at_test_time_and_leaves_the_base_alone(model: DiffusionWorldModel, trained) -> None:
    _, losses, _ = trained
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])
    expected = official()["ema"]
    for name, tensor in model.base.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("mode", ["normalised", "literal"])
def test_base_and_adapter_compose_on_an_nwm_model(model: DiffusionWorldModel, trained, mode: str) -> None:
    long_term, _, _ = trained
    context, target, action, ahead = episode(model)
    both = DiffusionWorldModel(
        model.autoencoder, {"base": model.base, "long_term": long_term}, model.schedule, model.sampler,
        composition=CompositionSettings(mode, (1.0, 1.0)), images=model.images, inference=model.inference,
    )  # fmt: skip
    alone = model.predict(context, action, ahead, seeded(5))
    found = both.predict(context, action, ahead, seeded(5))
    assert found.isfinite().all()
    assert not torch.allclose(alone, found, rtol=1e-3)
    long_term_alone = long_term.scores(target, torch.tensor([500]), context, action, ahead)
    assert not torch.allclose(long_term_alone[0], long_term_alone[1], rtol=1e-3)


def test_an_adapter_comes_back_from_the_disk_as_it_was(model: DiffusionWorldModel, trained, tmp_path: Path) -> None:
    """Saved by one process, loaded by another: the model imagines the same, bit for bit."""
    long_term, _, tensors = trained
    context, target, action, ahead = episode(model)
    MemoryStore(tmp_path / "store").save(adapters={"kitchen": tensors}, about={"model": "nwm"})
    again = LongTermExpert(model.base, ADAPTER)
    again.swap(MemoryStore(tmp_path / "store").load().adapters["kitchen"])
    t = torch.tensor([300])
    for mine, theirs in zip(
        again.scores(target, t, context, action, ahead),
        long_term.scores(target, t, context, action, ahead),
        strict=True,
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("size", ["S", "XL"])
def test_an_adapter_of_a_published_size_is_a_small_part_of_it(size: str) -> None:
    """Shapes only: what the default adapter adds to a network of the published size."""
    with torch.device("meta"):
        network = CDiT(**CDIT_SIZES[size])
    shape, rank = network.settings, 64
    width, inner = shape.hidden_size, 4 * shape.hidden_size
    expected = shape.depth * rank * ((width + 3 * width) + (width + width) + 2 * (width + inner))
    pattern = re.compile(LoraSettings().pattern)
    layers = {name: module for name, module in network.named_modules() if pattern.fullmatch(name)}
    assert len(layers) == 4 * shape.depth
    assert sum(rank * sum(layer.weight.shape) for layer in layers.values()) == expected
    assert expected / sum(parameter.numel() for parameter in network.parameters()) < 0.2


def test_an_adapter_of_another_network_is_refused(model: DiffusionWorldModel, trained) -> None:
    from come_nav.core.errors import CheckpointError

    long_term = LongTermExpert(model.base, ADAPTER)
    with pytest.raises(CheckpointError, match=r"not part of this model|does not fit this model"):
        long_term.swap({"model.blocks.9.attn.qkv.lora_A.episode.weight": torch.zeros(4, 24)})
    assert not long_term.has_adapter
