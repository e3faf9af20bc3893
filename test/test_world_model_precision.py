"""What stays exact where networks run in bfloat16, and what is the same on every device."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from come_nav.core.errors import ConfigError
from come_nav.core.geometry.point_rendering import camera_fractions, level_camera
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics, Context
from come_nav.experts.base import BaseExpert
from come_nav.experts.cdit import CDiT
from come_nav.experts.normalizer import Normalizer
from come_nav.memory.spatial.splat_cache import same_device
from come_nav.training.data.windows import WindowBatch
from come_nav.training.tasks.views import ViewMaker
from come_nav.world_model.composition import ProductNoise
from come_nav.world_model.images import ImageSettings
from come_nav.world_model.inference_settings import InferenceSettings
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.parts import PIXELS_PER_CALL
from come_nav.world_model.reprojection import ReprojectionSettings, context_points

CAMERA = CameraIntrinsics.from_field_of_view(64, 64, 1.5)


@pytest.fixture(scope="module")
def tiny() -> DiffusionWorldModel:
    return DiffusionWorldModel.load(find_resource("models", "tiny"))


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_composition_is_summed_in_float32() -> None:
    noise = ProductNoise(rand(3, 4, 2, 5, 5), torch.tensor([1.3, -0.7, 0.4]))
    exact = (noise.exponents[:, None, None, None, None].double() * noise.noises.double()).sum(0)
    with torch.autocast("cpu", torch.bfloat16):
        composed = noise.composed()
    assert composed.dtype is torch.float32
    assert (composed - exact).abs().max() < 1e-6


def test_the_last_layer_is_not_rounded_to_bfloat16() -> None:
    """Near pure noise eps is divided by 0.006, so that the 0.4 % of bfloat16 would be more than what is predicted."""
    settings = {"input_size": 8, "hidden_size": 24, "depth": 1, "num_heads": 2, "learn_sigma": False}
    network = CDiT(**settings).eval()
    torch.nn.init.normal_(network.final_layer.linear.weight, generator=torch.Generator().manual_seed(1))
    arguments = rand(2, 4, 8, 8), torch.tensor([5, 5]), rand(2, 3), rand(2, 4, 4, 8, 8, seed=1), rand(2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = network(*arguments)
    assert output.dtype is torch.float32
    assert (output != output.bfloat16().float()).float().mean() > 0.9


def test_depth_is_estimated_in_float32(tiny) -> None:
    images = rand(1, 3, 64, 64) * 2 - 1
    wanted = replaced(tiny, InferenceSettings(precision="float32")).estimate_depth_m(images)
    assert torch.equal(replaced(tiny, InferenceSettings(precision="bfloat16")).estimate_depth_m(images), wanted)


def test_a_rough_view_is_the_context_moved(tiny) -> None:
    """Without moving, what was seen last; and a plan of it draws no number, so that it changes no other plan."""
    images = rand(4, 3, 64, 64) * 2 - 1
    context = tiny.context_from_images(images, torch.zeros(4, 3), depth_m=torch.full((4, 64, 64), 3.0))
    rough = tiny.imaginer(context, 8.0, decode=True).rough(torch.zeros(3, 8, 3))
    assert rough.images.shape == (3, 3, 64, 64)
    assert (rough.images[0] - images[-1]).abs().mean() < 0.05
    torch.testing.assert_close(rough.latents, tiny.encode(rough.images))


def replaced(model: DiffusionWorldModel, inference: InferenceSettings) -> DiffusionWorldModel:
    own = model.composed(model.weights)
    own.inference = inference
    return own


def test_training_sees_views_as_plans_do() -> None:
    """Rendered within mixed precision, points would move by up to 3 cm and more."""
    batch = WindowBatch(
        goal_latents=torch.zeros(2, 1, 3, 16, 16),
        actions_xyyaw=torch.tensor([[[0.3, 0.1, 0.2]], [[0.5, 0.0, -0.3]]]),
        rel_frames=torch.ones(2, 1),
        context_latents=torch.zeros(2, 2, 3, 16, 16),
        context_poses_xyyaw=torch.tensor([[[-0.2, 0.0, 0.1], [0.0, 0.0, 0.0]]] * 2),
        frame_offsets=torch.tensor([[-1.0, 0.0]] * 2),
        context_images=(rand(2, 2, 3, 64, 64) * 255).byte(),
        context_depth_m=4.0 + 4.0 * rand(2, 2, 64, 64),
    )
    maker = ViewMaker(lambda images: images[:, :, ::4, ::4], ReprojectionSettings(), ImageSettings())
    wanted = maker(batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(maker(batch), wanted)


def test_the_noise_that_stands_for_no_context_comes_from_the_cpu(monkeypatch) -> None:
    """A generator of another device would draw another noise; that of ``meta`` does not exist at all."""
    settings = {"input_size": 8, "hidden_size": 24, "depth": 1, "num_heads": 2, "learn_sigma": False}

    def embedded(self, x, t, y, x_cond, rel_t, *, drop_context, generator):
        return self.embed_context(x_cond, None, drop_context, generator).mean() + x

    monkeypatch.setattr(CDiT, "forward", embedded)
    expert = BaseExpert(CDiT(**settings), Normalizer()).to("meta")
    context = Context(rand(1, 4, 4, 8, 8), torch.zeros(1, 4, 3), torch.arange(-3.0, 1.0)[None]).to("meta")
    values = (rand(2, 4, 8, 8), torch.tensor([5, 5]), rand(2, 3), rand(2))
    x_t, t, action, rel_time = (value.to("meta") for value in values)
    dropped = torch.ones(2, dtype=torch.bool, device="meta")
    assert expert.network_output(x_t, t, context, action, rel_time, dropped).shape == (2, 4, 8, 8)


def test_of_older_points_that_are_as_good_the_first_are_kept() -> None:
    images, depth_m = torch.zeros(1, 3, 3, 32, 32), torch.full((1, 3, 32, 32), 2.0)
    images[0, :, 0] = torch.arange(3 * 32 * 32).reshape(3, 32, 32)
    poses = torch.tensor([[[0.0, 0.0, 3.0], [0.0, 0.0, -3.0], [0.0, 0.0, 0.0]]])
    settings = ReprojectionSettings(older_points=1500)
    points = context_points(images, depth_m, poses, camera_fractions(CAMERA), level_camera(), settings)
    older = points.rgb[0, 32 * 32 :, 0]
    assert older.tolist() == [*range(1024, 2048), *range(476)]  # all of the newer frame, then the other from its start


def test_the_autoencoder_has_a_batch_of_its_own(tiny, monkeypatch) -> None:
    assert tiny.image_batch == tiny.inference.micro_batch  # at 64 px
    monkeypatch.setattr(type(tiny), "image_size", 224)
    assert tiny.image_batch == PIXELS_PER_CALL // 224**2 == 20
    monkeypatch.undo()
    own, sizes = replaced(tiny, InferenceSettings(image_batch=2)), []
    real = own.autoencoder.encode
    monkeypatch.setattr(own.autoencoder, "encode", lambda images, g=None: sizes.append(len(images)) or real(images, g))
    assert torch.allclose(own.encode(rand(5, 3, 64, 64)), tiny.encode(rand(5, 3, 64, 64)), atol=1e-5)
    assert sizes[:3] == [2, 2, 1]
    with pytest.raises(ConfigError, match=r"inference\.image_batch"):
        InferenceSettings(image_batch=0)


def test_a_plan_does_not_wait_for_the_noise_level(tiny, monkeypatch) -> None:
    """Reading a number back from a GPU ends what runs there at the same time."""
    images = rand(4, 3, 64, 64) * 2 - 1
    context = tiny.context_from_images(images, torch.zeros(4, 3))
    asked = []
    real = Tensor.__int__
    monkeypatch.setattr(Tensor, "__int__", lambda self: asked.append(self) or real(self))
    tiny.predict(context, torch.zeros(2, 3), torch.full((2,), 8.0), torch.Generator().manual_seed(0))
    assert not asked


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("cpu", "cpu", True), ("cuda", "cuda:0", True), ("cuda:1", "cuda:0", False), ("cpu", "cuda", False)],
)
def test_names_of_one_device(one: str, other: str, same: bool) -> None:
    assert same_device(torch.device(one), torch.device(other)) is same
    assert same_device(torch.device(other), torch.device(one)) is same


def test_replaced_settings_leave_the_others(tiny) -> None:
    assert replace(tiny.inference, image_batch=3).micro_batch == tiny.inference.micro_batch
