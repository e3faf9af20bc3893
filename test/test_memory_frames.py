"""Frames of the whole episode: which are kept, which are found again, and what the stack makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_training_inputs import CONFIG
from test_training_latent_memory import expert_of

from come_nav.config import load_config
from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics, Frame, Odometry, ViewSource
from come_nav.memory.frame_memory import FrameMemory, reduced
from come_nav.memory.retrieval_settings import FrameMemorySettings
from come_nav.memory.short_term import Remembered
from come_nav.navigation.planning.imagining import with_remembered
from come_nav.navigation.stack import NavStack
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder
from come_nav.world_model.depth import DepthEstimator
from come_nav.world_model.depth_of_frames import measured_depth
from come_nav.world_model.images import ImageSettings, images_from_rgb
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.sampling.schedule import NoiseSchedule
from come_nav.world_model.views import rendered_views

CAMERA = CameraIntrinsics(64, 64, 32.0, 32.0, 32.0, 32.0)  # 90 degrees
EXTRINSICS = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.5], [0.0, 0.0, 0.0, 1.0]])
FRAMES, OLDER = 60, 6


def seen(stamp_s: float, pose: tuple[float, float, float]) -> Remembered:
    rgb, depth = np.full((64, 64, 3), round(stamp_s) % 256, np.uint8), np.full((64, 64), 2.0, np.float32)
    return Remembered(stamp_s, np.array(pose, float), Frame(stamp_s, rgb, depth, CAMERA, EXTRINSICS), None)


def memory_of(*frames: Remembered, **settings) -> FrameMemory:
    memory = FrameMemory(FrameMemorySettings(use=True, **settings))
    for own in frames:
        memory.observe(own)
    return memory


def stamps(found) -> list[float]:
    return [frame.stamp_s for frame, _ in found]


def test_a_frame_is_kept_where_the_robot_has_moved_or_turned() -> None:
    memory = memory_of(seen(0, (0, 0, 0)), seen(1, (0.1, 0, 0.1)), seen(2, (0.35, 0, 0.1)), seen(3, (0.35, 0, 0.5)))
    np.testing.assert_allclose(memory.poses_xyyaw[:, 0], [0.0, 0.35, 0.35])
    blind = replace(seen(4, (5, 0, 0)), frame=replace(seen(4, (5, 0, 0)).frame, intrinsics=None))
    assert not memory.observe(blind)
    assert dict(memory.rejected) == {"no_calibration": 1}


def test_what_lies_ahead_is_found_however_old_and_nothing_that_is_looked_at_anyway() -> None:
    turns = [(0.0, 0.0, 0.0), (0.0, 0.0, 1.5), (0.0, 0.0, 3.0), (0.0, 0.0, -1.6), (0.0, 0.0, 0.0)]
    memory = memory_of(*(seen(100.0 * number, pose) for number, pose in enumerate(turns)), forget_s=1e6)
    found = memory.showing(seen(500.0, (0.0, 0.0, 0.0)), 1, 400.0)
    assert stamps(found) == [0.0], "the frame of 400 s is in the context"
    np.testing.assert_allclose(found[0][1], 0.0)
    behind = memory.showing(seen(500.0, (0.0, 0.0, np.pi)), 2, 400.0)
    assert stamps(behind)[0] != 0.0
    assert 200.0 in stamps(behind)
    assert stamps(memory.showing(seen(500.0, (0.0, 0.0, 0.0)), 9, 450.0)) == sorted(
        stamps(memory.showing(seen(500.0, (0.0, 0.0, 0.0)), 9, 450.0))
    )
    assert memory.showing(seen(500.0, (0.0, 0.0, 0.0)), 3, 0.0) == []
    assert FrameMemory().showing(seen(0.0, (0, 0, 0)), 3, 1.0) == []


def test_the_budget_holds_and_the_whole_drive_stays_covered() -> None:
    memory = memory_of(*(seen(float(step), (0.5 * step, 0.0, 0.0)) for step in range(100)), max_frames=10)
    assert len(memory) == 10
    kept = memory.poses_xyyaw[:, 0]
    assert kept[0] == 0.0
    assert kept[-1] == 49.5
    assert np.diff(kept).max() < 25.0
    assert memory.nbytes < 10 * 25_000 + 64 * 500


def test_frames_follow_their_anchors_and_odometry_that_began_anew() -> None:
    memory = memory_of()
    memory.move(np.zeros((1, 3)))
    memory.observe(seen(0.0, (1.0, 0.0, 0.0)))
    memory.move(np.array([[0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(memory.poses_xyyaw, [[1.5, 0.0, 0.0]])
    memory.map_frame.rebase(np.array([1.5, 0.0, 0.0]))
    np.testing.assert_allclose(memory.poses_xyyaw, [[0.0, 0.0, 0.0]], atol=1e-12)
    memory.clear()
    assert len(memory) == 0


@pytest.mark.parametrize(("count", "newest"), [(12, range(100, 108)), (5, range(105, 108)), (2, ())])
def test_the_newest_frames_fill_up_what_is_not_found(count: int, newest) -> None:
    """However few of them there are, as in the first seconds after odometry began anew."""
    memory = memory_of(seen(1, (0, 0, 0)), seen(2, (0.5, 0, 0)), frames=2)
    older = [(seen(step, (0.5, 0, 0)).frame, np.zeros(3)) for step in range(100, 108)]
    found = with_remembered(older, memory, [seen(110, (0, 0, 0))], count)
    assert stamps(found) == [1.0, 2.0, *newest]


@pytest.mark.parametrize("aspect", [1.0, 4.0 / 3.0])
def test_a_reduced_frame_is_what_the_model_sees(aspect: float) -> None:
    random = np.random.default_rng(0)
    v, u = np.mgrid[:240, :320] / 40.0
    rgb = (127.5 + 120.0 * np.stack([np.sin(u), np.cos(v), np.sin(u + v)], -1)).astype(np.uint8)
    depth = random.uniform(1.0, 8.0, (240, 320)).astype(np.float32)
    whole = Frame(0.0, rgb, depth, CameraIntrinsics(320, 240, 160.0, 160.0, 160.0, 120.0), EXTRINSICS)
    small = reduced(whole, 64, aspect)
    assert small.rgb.shape == ((64, 64, 3) if aspect == 1.0 else (66, 88, 3))
    told = reduced(replace(whole, moving=np.ones((240, 320), bool)), 64, aspect)
    np.testing.assert_array_equal(told.rgb, small.rgb)
    one, two = (images_from_rgb([own.rgb], 64, aspect) for own in (whole, small))
    assert float((one - two).abs().mean()) < 0.005
    if aspect == 1.0:
        torch.testing.assert_close(measured_depth([whole], 64, aspect), measured_depth([small], 64, aspect))
        assert small.intrinsics.fx / 64 == pytest.approx(160.0 / 240.0)


@pytest.fixture(scope="module")
def model() -> DiffusionWorldModel:
    return DiffusionWorldModel.load(find_resource("models", "tiny"))


@pytest.fixture(scope="module")
def drive() -> EpisodeRecording:
    world = generate_world(10000)
    camera = CameraIntrinsics.from_field_of_view(64, 64, np.pi / 2)
    episode = simulate_episode(world, "tour", FRAMES / 4.0, seed=1)
    return EpisodeRecording(episode, Raycaster([world], camera), use_truth=True)


def stack_of(model, drive, **settings) -> NavStack:
    keys = {"experts.use": ["short_term"], "experts.short_term": 1.0, "experts.older_frames": OLDER}
    stack = NavStack(model, load_config(None, {**keys, **settings}))
    for index in range(FRAMES):
        frame = drive.frame(index)
        stack.observe(frame, Odometry(frame.stamp_s, drive.T_odom_base[index]))
    return stack


def test_the_short_term_expert_sees_more_of_what_lies_ahead(model, drive) -> None:
    newest, retrieved = stack_of(model, drive), stack_of(model, drive, **{"retrieval.use": True})
    assert newest.episode.frames is None
    targets = torch.tensor([[0.0, 0.0, 0.8], [0.0, 0.0, -0.8], [1.0, 0.0, 0.8], [1.0, 0.0, -0.8], [1.0, 0.0, 0.0]])
    share = []
    for stack in (newest, retrieved):
        context = stack.context()
        assert context.older_points.xyz.shape[1] > 0
        view = rendered_views(model, context, targets, {ViewSource.LONGER})[ViewSource.LONGER]
        share.append(float(view.known.float().mean()))
    assert share[1] > share[0] + 0.02
    plain = stack_of(model, drive, **{"retrieval.use": True, "retrieval.max_frames": 4})
    assert len(plain.episode.frames) == 4
    few = stack_of(model, drive, **{"retrieval.use": True, "retrieval.frames": 1})
    assert few.context().older_points.xyz.shape == newest.context().older_points.xyz.shape
    retrieved.reset()
    assert len(retrieved.episode.frames) == 0


def test_retrieved_frames_lie_where_they_were_taken(model, drive) -> None:
    """Points of a retrieved frame, taken back to the world, lie where the same frame's points lay when it was new."""
    stack = stack_of(model, drive, **{"retrieval.use": True})
    newest = stack.memory.newest
    found = stack.episode.frames.showing(newest, OLDER, newest.stamp_s - 0.75)
    for frame, pose in found:
        index = int(np.argmin(np.abs(drive.stamps_s - frame.stamp_s)))
        np.testing.assert_allclose(pose, drive.poses_xyyaw[index], atol=1e-9)
    relative = se2.relative(newest.pose_odom_xyyaw[None], np.stack([pose for _, pose in found]))
    assert np.isfinite(relative).all()


def test_a_network_with_tokens_is_told_at_most_the_age_that_it_learned_with() -> None:
    """Its points keep their age in seconds; without times, frames follow one another, as they always did."""
    model = DiffusionWorldModel(
        ImageAutoencoder(CONFIG.autoencoder_model),
        {"base": expert_of()},
        NoiseSchedule.linear(),
        images=ImageSettings(horizontal_fov_deg=0.0),
        depth=DepthEstimator(CONFIG.depth_model),
    )
    images, past = torch.zeros(4, 3, 32, 32), (torch.zeros(3, 3, 32, 32), torch.zeros(3, 3), None, None)
    camera = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    told = {"camera": camera, "older": past, "absolute_pose_xyyaw": torch.zeros(3)}
    found = model.context_from_images(images, torch.zeros(4, 3), older_offsets=[-400.0, -13.0, -6.0], **told)
    assert found.older.frame_offsets.tolist() == [[-12.0, -12.0, -6.0]]  # 3 of the context and 9 before it
    ages_s = found.older_points.facts[..., 0].unique().tolist()
    assert ages_s == [1.5, 3.25, 100.0]
    plain = model.context_from_images(images, torch.zeros(4, 3), **told)
    assert plain.older.frame_offsets.tolist() == [[-6.0, -5.0, -4.0]]


def test_mistakes_are_told() -> None:
    with pytest.raises(ConfigError, match=r"retrieval\.max_frames"):
        FrameMemorySettings(max_frames=3)
    with pytest.raises(ConfigError, match=r"retrieval\.spacing_m"):
        load_config(None, {"retrieval.spacing_m": 0.0})


def test_frames_for_an_expert_that_is_not_used_are_refused(model) -> None:
    with pytest.raises(ConfigError, match=r"retrieval\.use needs the short_term expert.*experts\.short_term, is 0"):
        NavStack(model, load_config(None, {"retrieval.use": True}))
    with pytest.raises(ConfigError, match=r"experts\.use does not name it"):
        NavStack(model, load_config(None, {"retrieval.use": True, "experts.use": ["spatial"]}))
    assert NavStack(model, load_config(None, {"retrieval.use": True, "experts.use": []})).episode.frames is None
