"""Prediction, rollout and the imaginer of a small world model with random weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_experts_cdit import randomised
from torch import Tensor

from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.geometry import se2
from come_nav.core.types import Context
from come_nav.experts.base import BaseExpert
from come_nav.experts.normalizer import Normalizer
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings, ImageAutoencoder
from come_nav.world_model.composition import CompositionSettings
from come_nav.world_model.images import crop_window, images_from_rgb
from come_nav.world_model.inference_settings import InferenceSettings
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.sampling.schedule import NoiseSchedule
from come_nav.world_model.sampling.settings import SamplerSettings

FRAMES = 3


def small_model(seed: int = 0, prediction: str = "v", learn_sigma: bool = False, **options) -> DiffusionWorldModel:
    """16 px images, 4x4x4 latents, 3 context frames, random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        settings = AutoencoderSettings(image_size=16, block_out_channels=(8, 8, 8), norm_num_groups=4)
        autoencoder = ImageAutoencoder(settings).eval()
    network = randomised(
        seed, input_size=4, context_size=FRAMES, hidden_size=24, depth=2, num_heads=3, learn_sigma=learn_sigma,
        context_pose=True, context_dropout=True,
    )  # fmt: skip
    schedule = NoiseSchedule.linear()
    expert = BaseExpert(network, Normalizer.metric(1.0), schedule, prediction).eval()  # type: ignore[arg-type]
    options.setdefault("inference", InferenceSettings(precision="float32"))
    return DiffusionWorldModel(autoencoder, {"base": expert}, schedule, **options)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rgb_frames(count: int = FRAMES, height: int = 16, width: int = 16) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def a_context(model: DiffusionWorldModel) -> Context:
    poses = np.array([[0.0, 0.0, 0.1], [0.2, 0.05, 0.3], [0.4, 0.1, 0.4]])
    return model.context_from_images(model.images_from_rgb(rgb_frames()), poses)


def actions(count: int) -> Tensor:
    return torch.randn(count, 3, generator=seeded(3)) * 0.3


# -- images and contexts -----------------------------------------------------------------------------------------------


def test_images_of_the_right_size_are_only_scaled() -> None:
    frames = rgb_frames()
    images = images_from_rgb(frames, 16)
    expected = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    torch.testing.assert_close(images, expected)


@pytest.mark.parametrize(
    ("size", "aspect", "window"),
    [
        ((240, 320), 1.0, (0, 40, 240, 240)),
        ((240, 320), 4 / 3, (0, 0, 240, 320)),
        ((360, 640), 4 / 3, (0, 80, 360, 480)),
        ((640, 480), 4 / 3, (140, 0, 360, 480)),
        ((100, 100), 1.0, (0, 0, 100, 100)),
    ],
)
def test_crop_is_the_largest_centred_window(size, aspect, window) -> None:
    assert crop_window(*size, aspect) == window


def test_resize_averages_and_crop_drops_the_borders() -> None:
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, 16:48] = [255, 0, 100]
    image = images_from_rgb([wide], 8)[0]
    torch.testing.assert_close(image, torch.tensor([1.0, -1.0, 100 / 127.5 - 1])[:, None, None].expand(3, 8, 8))
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 255
    inner = images_from_rgb([stripes], 8)[0, :, 2:-2]  # an aliased resize would be black or white
    assert inner.abs().max() < 0.05


def test_wrong_images_are_told() -> None:
    with pytest.raises(ShapeError, match="at least one image"):
        images_from_rgb([], 8)
    with pytest.raises(ShapeError, match="must be uint8"):
        images_from_rgb([np.zeros((8, 8, 3))], 8)  # type: ignore[list-item]
    with pytest.raises(ShapeError, match="rgb must have shape"):
        images_from_rgb([np.zeros((8, 8), np.uint8)], 8)


def test_context_is_seen_from_the_newest_frame() -> None:
    model = small_model()
    context = a_context(model)
    assert context.latents.shape == (1, FRAMES, 4, 4, 4)
    assert context.frame_offsets.tolist() == [[-2.0, -1.0, 0.0]]
    torch.testing.assert_close(context.poses_xyyaw[0, -1], torch.zeros(3), atol=1e-7, rtol=0)
    moved = se2.compose(np.array([[5.0, -2.0, 2.5]]), np.array([[0.0, 0.0, 0.1], [0.2, 0.05, 0.3], [0.4, 0.1, 0.4]]))
    elsewhere = model.context_from_images(model.images_from_rgb(rgb_frames()), moved)
    torch.testing.assert_close(elsewhere.poses_xyyaw, context.poses_xyyaw, atol=1e-6, rtol=0)
    torch.testing.assert_close(context.latents[0], model.encode(model.images_from_rgb(rgb_frames())))


def test_context_latents_may_be_trained_on() -> None:
    assert not a_context(small_model()).latents.is_inference()


def test_wrong_number_of_context_images_is_told() -> None:
    model = small_model()
    with pytest.raises(ShapeError, match="model with 3 context frames"):
        model.context_from_images(torch.zeros(2, 3, 16, 16), torch.zeros(2, 3))
    with pytest.raises(ShapeError, match="context poses"):
        model.context_from_images(torch.zeros(3, 3, 16, 16), torch.zeros(2, 3))


# -- jumps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpm++"])
def test_shared_context_equals_an_expanded_one(name: str) -> None:
    model = small_model(sampler=SamplerSettings(name, 3))  # type: ignore[arg-type]
    context, rel_frames = a_context(model), torch.full((5,), 8.0)
    shared = model.predict(context, actions(5), rel_frames, seeded())
    expanded = model.predict(context.expand(5), actions(5), rel_frames, seeded())
    assert shared.shape == (5, 4, 4, 4)
    torch.testing.assert_close(shared, expanded, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
@pytest.mark.parametrize("weight", [1.0, 1.5])
def test_micro_batches_change_nothing(name: str, weight: float) -> None:
    options = {
        "sampler": SamplerSettings(name, 3),  # type: ignore[arg-type]
        "composition": CompositionSettings(weights=(weight,)),
    }
    whole = small_model(**options)
    parts = small_model(**options, inference=InferenceSettings(micro_batch=2, precision="float32"))
    context, rel_frames = a_context(whole).expand(5), torch.arange(1.0, 6.0)
    torch.testing.assert_close(
        parts.predict(context, actions(5), rel_frames, seeded()),
        whole.predict(context, actions(5), rel_frames, seeded()),
        rtol=1e-3,
        atol=1e-4,
    )
    torch.testing.assert_close(parts.encode(torch.zeros(5, 3, 16, 16)), whole.encode(torch.zeros(5, 3, 16, 16)))


def test_same_generator_same_prediction() -> None:
    model = small_model()
    context, rel_frames = a_context(model), torch.full((4,), 4.0)
    first, again, other = (model.predict(context, actions(4), rel_frames, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_shared_noise_leaves_only_the_action_to_tell_candidates_apart() -> None:
    model = small_model()
    context, same = a_context(model), actions(1).expand(4, 3)
    shared = model.predict(context, same, torch.full((4,), 4.0), seeded(), shared_noise=True)
    torch.testing.assert_close(shared, shared[:1].expand_as(shared), rtol=1e-4, atol=1e-5)
    apart = model.predict(context, same, torch.full((4,), 4.0), seeded())
    assert (apart[0] - apart[1]).abs().max() > 1e-2


@pytest.mark.parametrize("learn_sigma", [True, False])
def test_epsilon_models_work_with_every_sampler(learn_sigma: bool) -> None:
    for name in ("ddpm", "ddim", "dpm++"):
        sampler = SamplerSettings(name, 4, clip_x0=5.0)  # type: ignore[arg-type]
        model = small_model(prediction="eps", learn_sigma=learn_sigma, sampler=sampler)
        latents = model.predict(a_context(model), actions(2), torch.ones(2), seeded())
        assert latents.isfinite().all()
        assert latents.abs().max() <= 5.0 + 1e-5


def test_learned_variance_is_used_by_the_ancestral_sampler() -> None:
    """Changing only the variance channels of the last layer changes DDPM samples and nothing else."""
    found = {}
    for name in ("ddpm", "ddim"):
        sampler = SamplerSettings(name, 4)  # type: ignore[arg-type]
        model = small_model(prediction="eps", learn_sigma=True, sampler=sampler)
        before = model.predict(a_context(model), actions(2), torch.ones(2), seeded())
        with torch.no_grad():  # outputs are ordered (row, column, channel), the variance values are channels 4..7
            model.base.model.final_layer.linear.bias.view(2, 2, 8)[..., 4:] -= 3.0
        after = model.predict(a_context(model), actions(2), torch.ones(2), seeded())
        found[name] = not torch.equal(before, after)
    assert found == {"ddpm": True, "ddim": False}


def test_guidance_moves_away_from_the_unconditional_prediction() -> None:
    plain = small_model(sampler=SamplerSettings(steps=1))
    context, query = a_context(plain), (actions(3), torch.ones(3))
    one = plain.predict(context, *query, seeded())
    by_weight = {
        weight: small_model(
            sampler=SamplerSettings(steps=1), composition=CompositionSettings("literal", (weight,))
        ).predict(context, *query, seeded())
        for weight in (0.0, 2.0)
    }
    # with one step the clean latents are linear in the noise, so 2 c - u lies as far from c as u on the other side
    torch.testing.assert_close(by_weight[2.0], 2 * one - by_weight[0.0], rtol=1e-3, atol=1e-2)
    assert (one - by_weight[0.0]).abs().max() > 1e-2


def test_two_experts_of_weight_one_are_summed() -> None:
    model = small_model(sampler=SamplerSettings(steps=1))
    base = model.base
    both = DiffusionWorldModel(
        model.autoencoder, {"base": base, "twin": base}, model.schedule, model.sampler,
        composition=CompositionSettings("literal", (1.0, 1.0)), inference=model.inference,
    )  # fmt: skip
    context, noise = a_context(model), torch.randn(2, 4, 4, 4, generator=seeded())
    one = model.predict(context, actions(2), torch.ones(2), seeded())
    two = both.predict(context, actions(2), torch.ones(2), seeded())
    t = torch.full((2,), 999)
    epsilon = (noise - math.sqrt(model.schedule.alphas_cumprod[-1]) * one) / math.sqrt(
        1 - model.schedule.alphas_cumprod[-1]
    )
    torch.testing.assert_close(two, model.schedule.predict_x0(noise, 2 * epsilon, t), rtol=1e-2, atol=1e-1)


def test_bfloat16_is_close_to_float32() -> None:
    exact = small_model()
    rough = small_model(inference=InferenceSettings(precision="bfloat16"))
    query = (actions(3), torch.ones(3))
    first = exact.predict(a_context(exact), *query, seeded())
    second = rough.predict(a_context(exact), *query, seeded())
    assert second.dtype == torch.float32
    assert (first - second).abs().mean() < 0.1 * first.abs().mean()


def test_disagreeing_batches_are_told() -> None:
    model = small_model()
    context = a_context(model)
    with pytest.raises(ShapeError, match="rel_frames must have shape"):
        model.predict(context, actions(3), torch.ones(2), seeded())
    with pytest.raises(ShapeError, match="batch 1 or 3, got 2"):
        model.predict(context.expand(2), actions(3), torch.ones(3), seeded())
    with pytest.raises(ConfigError, match="needs a BaseExpert as its first expert"):
        DiffusionWorldModel(model.autoencoder, {}, model.schedule)


# -- rollouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 3])
def test_rollout_of_one_step_equals_a_jump(stride: int) -> None:
    model = small_model()
    context = a_context(model)
    poses = torch.randn(4, stride, 3, generator=seeded(4))
    rolled = model.rollout(context, poses, seeded(), stride)
    jumped = model.predict(context, poses[:, -1], torch.full((4,), float(stride)), seeded())
    assert rolled.shape == (4, 1, 4, 4, 4)
    torch.testing.assert_close(rolled[:, 0], jumped, rtol=1e-4, atol=1e-5)


def test_second_step_of_a_rollout_is_a_jump_from_the_first() -> None:
    """The context slides, and every pose is expressed anew in the imagined frame, written here by matrices."""
    model = small_model()
    context = a_context(model)
    poses = torch.tensor([[[0.3, 0.1, 0.2], [0.5, 0.3, 0.5]]])
    generator = seeded()
    first = model.predict(context, poses[:, 0], torch.ones(1), generator)

    def matrix(pose: Tensor) -> Tensor:
        c, s = math.cos(pose[2]), math.sin(pose[2])
        return torch.tensor([[c, -s, pose[0]], [s, c, pose[1]], [0.0, 0.0, 1.0]], dtype=torch.float64)

    def pose_in_first(pose: Tensor) -> Tensor:
        relative = torch.linalg.inv(matrix(poses[0, 0])) @ matrix(pose)
        return torch.stack([relative[0, 2], relative[1, 2], torch.atan2(relative[1, 0], relative[0, 0])]).float()

    rows = [pose_in_first(context.poses_xyyaw[0, i]) for i in (1, 2)]
    slid = Context(
        torch.cat([context.latents[:, 1:], first[:, None]], 1),
        torch.stack([*rows, torch.zeros(3)])[None],
        torch.tensor([[-2.0, -1.0, 0.0]]),
    )
    second = model.predict(slid, pose_in_first(poses[0, 1])[None], torch.ones(1), generator)
    rolled = model.rollout(context, poses, seeded())
    torch.testing.assert_close(rolled[:, 0], first)
    torch.testing.assert_close(rolled[:, 1], second, rtol=1e-3, atol=1e-4)


def test_rollout_skips_by_its_stride() -> None:
    model = small_model()
    poses = torch.randn(2, 8, 3, generator=seeded(4)) * 0.2
    assert model.rollout(a_context(model), poses, seeded(), stride=4).shape == (2, 2, 4, 4, 4)
    assert model.rollout(a_context(model), poses, seeded(), stride=3).shape == (2, 2, 4, 4, 4)
    with pytest.raises(ConfigError, match=r"rollout stride must be in \[1, 8\] for 8 poses, got 9"):
        model.rollout(a_context(model), poses, seeded(), stride=9)


# -- imaginer ----------------------------------------------------------------------------------------------------------


def test_imaginer_jumps_to_the_last_pose() -> None:
    model = small_model()
    context, poses = a_context(model), torch.randn(4, 8, 3, generator=seeded(4)) * 0.2
    imagination = model.imaginer(context, 8, "jump", decode=True).imagine(poses, seeded())
    expected = model.predict(context, poses[:, -1], torch.full((4,), 8.0), seeded(), shared_noise=True)
    assert torch.equal(imagination.latents, expected)
    assert torch.equal(imagination.poses_xyyaw, poses)
    torch.testing.assert_close(imagination.images, model.decode(expected))


def test_imaginer_rolls_out_frame_by_frame() -> None:
    model = small_model()
    context, poses = a_context(model), torch.randn(2, 4, 3, generator=seeded(4)) * 0.2
    imagination = model.imaginer(context, 4, "rollout", shared_noise=False).imagine(poses, seeded())
    assert torch.equal(imagination.latents, model.rollout(context, poses, seeded())[:, -1])
    assert imagination.images is None
    with pytest.raises(ShapeError, match="a rollout to frame 8 needs as many poses, got 4"):
        model.imaginer(context, 8, "rollout").imagine(poses, seeded())
