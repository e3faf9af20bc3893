"""The learned prior of motion: densities against SciPy, what it is told against closed forms, learning, plans."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation
from scipy.stats import multivariate_normal
from test_navigation_navigator import Robot
from training_samples import MACHINE

from come_nav.cli.main import main
from come_nav.core.errors import CheckpointError, ConfigError, DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.geometry.point_rendering import level_camera
from come_nav.core.geometry.pose_mixture import PoseMixture, poses_at_constant_twist
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics, Frame, Goal, Imagination, Odometry, PlanStatus
from come_nav.navigation.planning.motion import MotionForesight, looks_ahead, poses_on_grid, seen_by
from come_nav.navigation.planning.objectives import motion_terms
from come_nav.navigation.settings import NavigationSettings
from come_nav.planning.objectives import LearnedMotionPrior
from come_nav.planning.settings import KinematicsSettings, MotionPriorSettings, PlannerSettings
from come_nav.policies.motion.model import LearnedMotion, Seen
from come_nav.policies.motion.network import MotionNetwork, motion_facts, motion_views
from come_nav.policies.motion.settings import MotionSettings
from come_nav.sim.sensors.mounting import MountedCamera
from come_nav.training.config import OptimiserSettings
from come_nav.training.data.windows import WindowBatch
from come_nav.training.motion.run import MotionRun
from come_nav.training.motion.settings import MotionTrainSettings, motion_data
from come_nav.training.motion.task import MotionTask
from come_nav.training.run_parts import seeded_layers

SMALL = MotionSettings(image_size=16, width=16, hidden=32, components=3)
STAGE = OptimiserSettings(
    steps=4, batch_size=8, learning_rate=1e-3, warmup_steps=1, log_every=1, validate_every=2, save_every=2
)
DATA = motion_data(
    worlds=2, validation_worlds=2, episode_s=8.0, pool_drives=2, passes=1, workers=0, goals_per_context=3, camera_px=16
)


def network(seed: int = 0, settings: MotionSettings = SMALL) -> MotionNetwork:
    """Return a network whose answers depend on what it sees."""
    with seeded_layers(seed):
        made = MotionNetwork(settings)
        torch.nn.init.normal_(made.out.weight, std=0.05)
    return made


def mixture(times: int = 1) -> PoseMixture:
    """Return two places, the first three times as likely as the second."""
    means = torch.tensor([[1.0, 0.5, 3.0], [2.0, -1.0, -1.0]]).expand(1, times, 2, 3)
    sigmas = torch.tensor([[0.2, 0.3, 0.4], [0.5, 0.1, 0.2]]).expand(1, times, 2, 3)
    return PoseMixture(torch.ones(1, times), torch.tensor([0.75, 0.25]).log().expand(1, times, 2), means, sigmas)


def seen(settings: MotionSettings = SMALL, yaw_step: float = 0.1) -> Seen:
    generator = torch.Generator().manual_seed(3)
    size, frames = settings.image_size, settings.frames
    poses = torch.zeros(frames, 3, dtype=torch.float64)
    for frame in range(1, frames):
        poses[frame] = se2.compose(poses[frame - 1], torch.tensor([0.1, 0.0, yaw_step], dtype=torch.float64))
    images = torch.rand(frames, 3, size, size, generator=generator) * 2.0 - 1.0
    camera, level = torch.tensor([0.5, 0.5, 0.5, 0.5]), level_camera(0.5)[0]
    return Seen(images, torch.full((frames, size, size), 2.0), poses, camera, level)


def test_density_is_that_of_a_mixture_of_normal_distributions():
    own = mixture()
    places = torch.tensor([[[0.9, 0.4, 2.8]], [[2.3, -1.1, -1.2]]])
    for pose in places:
        expected = sum(
            weight * multivariate_normal(mean.numpy(), np.diag(sigma.numpy() ** 2)).pdf(pose[0].numpy())
            for weight, mean, sigma in zip((0.75, 0.25), own.means_xyyaw[0, 0], own.sigmas[0, 0], strict=True)
        )
        assert float(own.log_density(pose[None])) == pytest.approx(math.log(expected), abs=1e-5)
    peaks = [float(own.log_density(own.means_xyyaw[:, :, k])) for k in range(2)]
    assert float(own.log_peak()) == pytest.approx(max(peaks), abs=1e-3)  # the other component adds next to nothing


def test_yaw_goes_the_shorter_way_round():
    own = mixture()
    over = own.means_xyyaw[:, :, 0] + torch.tensor([0.0, 0.0, 0.3])  # beyond pi
    wrapped = se2.wrap_angle(over[..., 2:])
    same = torch.cat([over[..., :2], wrapped], dim=-1)
    torch.testing.assert_close(own.log_density(over), own.log_density(same))
    opposite = PoseMixture(
        torch.ones(1, 1), torch.tensor([[[0.5, 0.5]]]).log(), torch.tensor([[[[0, 0, 3.0], [0, 0, -3.0]]]]), own.sigmas
    )
    assert abs(float(opposite.mean_xyyaw[0, 0, 2])) == pytest.approx(math.pi, abs=1e-5)


@given(
    v=st.floats(-0.5, 1.0), w=st.floats(-1.5, 1.5), period=st.floats(0.1, 0.5), down=st.floats(-0.5, 0.5)
)  # of a robot that drives an arc with a camera that looks down
def test_facts_are_the_twist_the_way_and_the_mounting(v, w, period, down):
    poses = torch.zeros(1, 4, 3, dtype=torch.float64)
    for frame in range(1, 4):
        step = se2.integrate_twist(*(torch.tensor([value], dtype=torch.float64) for value in (v, w, period)))
        poses[:, frame] = se2.compose(poses[:, frame - 1], step)
    T = MountedCamera(CameraIntrinsics.from_field_of_view(64, 64, 1.5), 0.7, -down).T_base_camera
    facts, twist = motion_facts(poses, torch.full((1, 4), 0.5), torch.from_numpy(T)[None], 1.0 / period)
    assert facts.shape == (1, SMALL.facts)
    chord = v * (math.sin(w * period) / (w * period) if abs(w * period) > 1e-6 else 1.0)
    np.testing.assert_allclose(twist[0], [chord, w], atol=1e-5)
    back = se2.relative(poses[:, -1:], poses[:, :-1]).flatten()
    np.testing.assert_allclose(facts[0, 2:11], back, atol=1e-6)
    np.testing.assert_allclose(facts[0, -2:], [0.7, down], atol=1e-6)


def test_views_are_the_newest_and_the_oldest_with_inverse_depth():
    images = torch.arange(4.0)[None, :, None, None, None].expand(1, 4, 3, 16, 16) / 4.0
    depth = torch.full((1, 4, 16, 16), 4.0)
    depth[0, 3, 0, 0], depth[0, 3, 0, 1], depth[0, 0, 0, 0] = 0.0, float("nan"), 0.01
    views = motion_views(images, depth)
    assert views.shape == (1, 2, 5, 16, 16)
    assert views[0, :, 0, 0, 0].tolist() == [0.75, 0.0]
    assert views[0, 0, 3, 0, :3].tolist() == [0.0, 0.0, 0.25]
    assert views[0, 0, 4, 0, :3].tolist() == [0.0, 0.0, 1.0]
    assert float(views[0, 1, 3, 0, 0]) == pytest.approx(5.0)  # no nearer than 0.2 m


def toy_batch(rows: int, seed: int) -> WindowBatch:
    """Return robots that drive straight and then turn to the side where it is bright."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.rand(rows, generator=generator) < 0.5
    images = torch.full((rows, 4, 3, 16, 16), 60, dtype=torch.uint8)
    for row in range(rows):
        half = slice(0, 8) if left[row] else slice(8, 16)
        images[row, :, :, :, half] = 200
    contexts = torch.zeros(rows, 4, 3)
    contexts[..., 0] = 0.1 * torch.arange(-3.0, 1.0)
    frames = torch.randint(1, 17, (rows, 6), generator=generator).float()
    rate = torch.where(left, 0.5, -0.5)
    goals = se2.integrate_twist(torch.full_like(frames, 0.4), rate[:, None].expand(-1, 6), frames / 4.0)
    empty = torch.zeros(rows, 4, 1, 1, 1)
    level = level_camera(0.5).expand(rows, 4, 4, 4)
    return WindowBatch(
        empty,
        contexts,
        torch.arange(-3.0, 1.0).expand(rows, 4),
        torch.zeros(rows, 6, 1, 1, 1),
        goals,
        frames,
        context_images=images,
        context_depth_m=torch.zeros(rows, 4, 16, 16),
        camera=torch.full((rows, 4), 0.5),
        T_base_camera=level,
        context_measured=torch.zeros(rows, 4, 16, 16, dtype=torch.uint8),
    )


def test_it_learns_where_a_view_leads():
    """A twist that goes straight on is wrong to either side; the image tells to which."""
    task = MotionTask(network(), MotionTrainSettings(network=SMALL, data=DATA))
    optimiser = torch.optim.AdamW(task.parameters(), lr=2e-3)
    for step in range(150):
        batch = toy_batch(32, step)
        loss, _ = task.losses(batch, torch.rand(32, generator=torch.Generator().manual_seed(10_000 + step)) < 0.5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        loss, errors = task.losses(toy_batch(64, 1000), torch.zeros(64, dtype=torch.bool))
    assert float(errors["end_m"]) < 0.25 * float(errors["constant_twist_end_m"])
    assert float(loss) < 0.0


def test_what_lies_behind_and_what_was_not_measured_teach_nothing():
    task, batch = MotionTask(network(), MotionTrainSettings(network=SMALL, data=DATA)), toy_batch(4, 0)
    none = torch.zeros(4, dtype=torch.bool)
    behind = replace(batch, rel_frames=batch.rel_frames.clone(), actions_xyyaw=batch.actions_xyyaw.clone())
    behind.rel_frames[:, 0] = -3.0
    elsewhere = replace(behind, actions_xyyaw=behind.actions_xyyaw.clone())
    elsewhere.actions_xyyaw[:, 0] = 7.0
    torch.testing.assert_close(task.losses(behind, none)[0], task.losses(elsewhere, none)[0])
    guessed = replace(batch, context_depth_m=torch.full((4, 4, 16, 16), 3.0))
    torch.testing.assert_close(task.losses(batch, none)[0], task.losses(guessed, none)[0])


def test_a_mirrored_window_is_the_window_of_a_mirrored_world():
    task, batch = MotionTask(network(), MotionTrainSettings(network=SMALL, data=DATA)), toy_batch(4, 0)
    generator = torch.Generator().manual_seed(5)
    times_s = torch.arange(-3.0, 1.0).expand(4, 4) / 4.0
    batch = replace(
        batch,
        context_poses_xyyaw=se2.integrate_twist(torch.full_like(times_s, 0.4), torch.full_like(times_s, 0.6), times_s),
        context_depth_m=torch.rand(4, 4, 16, 16, generator=generator) * 4.0,
        context_measured=(torch.rand(4, 4, 16, 16, generator=generator) < 0.5).to(torch.uint8),
        camera=torch.tensor([[0.5, 0.5, 0.4, 0.5]]).repeat(4, 1),
    )
    side = torch.tensor([1.0, -1.0, -1.0])
    world = replace(
        batch,
        context_images=batch.context_images.flip(-1),
        context_depth_m=batch.context_depth_m.flip(-1),
        context_measured=batch.context_measured.flip(-1),
        context_poses_xyyaw=batch.context_poses_xyyaw * side,
        actions_xyyaw=batch.actions_xyyaw * side,
        camera=torch.tensor([[0.5, 0.5, 0.6, 0.5]]).repeat(4, 1),
    )
    every, none = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(task.losses(batch, every)[0], task.losses(world, none)[0])


def test_a_model_folder_keeps_what_it_answers(tmp_path):
    own = LearnedMotion(network())
    own.save(tmp_path / "motion", "# motion\n", torch.float32)
    found = LearnedMotion.load(tmp_path / "motion").poses(seen(), [1.0, 2.0])
    torch.testing.assert_close(found.means_xyyaw, own.poses(seen(), [1.0, 2.0]).means_xyyaw)
    assert found.means_xyyaw.shape == (1, 2, SMALL.components, 3)
    torch.testing.assert_close(found.log_weights.exp().sum(-1), torch.ones(1, 2))
    half = tmp_path / "half"
    own.save(half, "# motion\n")
    assert {tensor.dtype for tensor in load_file(half / "model.safetensors").values()} == {torch.float16}
    rough = LearnedMotion.load(half).poses(seen(), [2.0]).mean_xyyaw
    torch.testing.assert_close(rough, own.poses(seen(), [2.0]).mean_xyyaw, atol=5e-3, rtol=0.0)


def test_what_it_cannot_answer_is_refused(tmp_path):
    own = LearnedMotion(network())
    with pytest.raises(ConfigError, match="taught times up to 4 s, got 5 s"):
        own.poses(seen(), [1.0, 5.0])
    with pytest.raises(DataError, match="poses or a camera that hold NaN"):
        own.poses(replace(seen(), poses_xyyaw=torch.full((4, 3), float("nan"))), [1.0])
    with torch.no_grad():
        own.network.out.bias[0] = float("nan")
    with pytest.raises(CheckpointError, match="answers with NaN"):
        own.poses(seen(), [1.0])
    with pytest.raises(CheckpointError, match="holds no prior of motion"):
        LearnedMotion.load(find_resource("models", "tiny"))
    with pytest.raises(CheckpointError, match="come-nav train --motion"):
        LearnedMotion.load(tmp_path)


def test_cost_is_nothing_at_the_likeliest_place_and_bounded_far_from_it():
    term = LearnedMotionPrior(mixture(2), [4, 8])
    poses = torch.zeros(4, 8, 3)
    poses[0, [3, 7]] = torch.tensor([1.0, 0.5, 3.0])
    poses[1, [3, 7]] = torch.tensor([1.2, 0.5, 3.0])  # one standard deviation away
    poses[2, [3, 7]] = torch.tensor([2.0, -1.0, -1.0])  # in the middle of the other
    poses[3] = 90.0
    cost = term(Imagination(poses))
    assert cost[0] == pytest.approx(0.0, abs=1e-3)
    assert cost[1] == pytest.approx(0.5, abs=1e-3)
    peaks = [math.log(0.75 / (0.2 * 0.3 * 0.4)), math.log(0.25 / (0.5 * 0.1 * 0.2))]
    assert cost[2] == pytest.approx(peaks[0] - peaks[1], abs=1e-3)
    assert cost[3] == LearnedMotionPrior.MOST_NATS
    one_step = poses.clone()
    one_step[:, 0] = 50.0  # a step that is not looked at
    torch.testing.assert_close(term(Imagination(one_step)), cost)


def test_it_counts_for_differential_drives_that_move():
    learned, robot = LearnedMotionPrior(mixture(), [8]), KinematicsSettings()
    prior = MotionPriorSettings(network="motion", network_weight=0.03, differential_weight=0.5)
    moving, standing = np.array([0.4, 0.0, 0.1]), np.zeros(3)

    def foresee():
        return learned

    def never():
        raise AssertionError("nobody needs to look")

    assert motion_terms(moving, 0.25, prior, robot, foresee) == ([learned], {"learned_motion": 0.03})
    assert motion_terms(standing, 0.25, prior, robot, never) == ([], {})
    assert motion_terms(None, 0.25, prior, robot, never) == ([], {})
    for other in (replace(prior, network=""), replace(prior, network_weight=0.0)):
        assert not other.looks(robot)
        assert [term.name for term in motion_terms(moving, 0.25, other, robot, never)[0]] == ["motion_prior"]
    blind = motion_terms(moving, 0.25, prior, robot, lambda: None)
    assert blind[1] == {"motion_prior": 0.5}
    assert prior.looks(robot)
    assert not prior.looks(KinematicsSettings("holonomic"))
    assert not replace(prior, use="never").looks(robot)


def settings_with(folder, **changes) -> NavigationSettings:
    prior = MotionPriorSettings(network=str(folder), network_weight=0.05)
    return replace(NavigationSettings(device="cpu"), motion_prior=prior, **changes)


def test_plans_follow_the_prior_where_the_view_tells_nothing(tmp_path):
    """All candidates look alike: a robot that would turn left turns left."""
    made = network()
    with torch.no_grad():
        made.out.weight.zero_()
        numbers = torch.zeros(SMALL.components, 7)
        numbers[:, 1:4] = torch.tensor([-0.2, 1.0, 1.0])  # left of where the twist leads, in units of a second
        numbers[:, 4:] = -1.0
        made.out.bias.copy_(numbers.flatten())
    LearnedMotion(made).save(tmp_path / "left", "# left\n")
    ends = {}
    for name in ("", str(tmp_path / "left")):
        robot = Robot()
        prior = MotionPriorSettings(network=name, network_weight=0.05)
        robot.stack.settings = replace(robot.stack.settings, motion_prior=prior)
        for _ in range(5):
            robot.pose = robot.pose + np.array([0.1, 0.0, 0.0])
            robot.look()
        blind = Goal(image_rgb=np.zeros((4, 4, 3), np.uint8))
        imaginer = SameView()
        plan = robot.stack.plan(blind, imaginer=imaginer, generator=torch.Generator().manual_seed(0))
        assert plan.status is PlanStatus.OK
        ends[name] = plan.poses_xyyaw[-1]
    assert ends[str(tmp_path / "left")][2] > 0.3
    assert ends[str(tmp_path / "left")][2] > ends[""][2] + 0.2


class SameView:
    """Imagines grey wherever it is."""

    def imagine(self, poses_xyyaw, generator):
        return Imagination(poses_xyyaw, latents=torch.zeros(len(poses_xyyaw), 3, 4, 4))


def driven(robot: Robot, stamps_s, v_mps: float = 0.4, w_radps: float = 0.5) -> list:
    """Return what a robot remembers that drives an arc and has a camera of these stamps."""
    twist = np.array(v_mps), np.array(w_radps)
    for stamp_s in stamps_s:
        pose = se2.integrate_twist(*twist, np.array(stamp_s))
        frame = Frame(stamp_s, np.full((48, 64, 3), round(40 * stamp_s), np.uint8))
        robot.stack.memory.observe(frame, Odometry(stamp_s, se3.transform_from_xyyaw(pose)))
    return robot.stack.memory.newest_frames(33)


@pytest.mark.parametrize("rate_hz", [2.0, 4.0, 5.0, 10.0, 15.0, 30.0])
def test_twists_are_those_of_the_stamps_whatever_the_camera(rate_hz):
    frames = driven(Robot(), np.arange(0.0, 2.01, 1.0 / rate_hz))
    found = seen_by(frames, SMALL)
    facts, twist = motion_facts(found.poses_xyyaw[None], found.camera[None], found.T_base_camera[None], 4.0)
    chord = 0.4 * math.sin(0.5 * 0.25) / (0.5 * 0.25)
    np.testing.assert_allclose(twist[0], [chord, 0.5], rtol=0.02)
    exact = se2.integrate_twist(np.array(0.4), np.array(0.5), np.array([-0.75, -0.5, -0.25]))
    np.testing.assert_allclose(facts[0, 2:11].reshape(3, 3), exact, atol=0.01)


def test_it_waits_for_frames_enough_and_looks_at_the_oldest_of_its_times():
    frames = driven(Robot(), np.arange(0.0, 2.01, 0.25))
    found = seen_by(frames, SMALL)
    levels = (found.images.mean(dim=(1, 2, 3)) + 1.0) * 127.5
    np.testing.assert_allclose(levels, [50.0, 80.0], atol=0.1)  # of 1.25 s and of 2 s
    late = driven(Robot(), [0.0, 0.23, 0.46, 0.69])  # less than half a step short
    np.testing.assert_allclose(poses_on_grid(late, SMALL)[:, 2], 0.5 * np.array([-0.06, 0.19, 0.44, 0.69]), atol=1e-6)
    assert seen_by(frames[-3:], SMALL) is None
    assert seen_by(frames[-1:], SMALL) is None
    assert seen_by([], SMALL) is None


def test_steps_reach_as_far_as_paths_and_it_was_taught(tmp_path):
    LearnedMotion(network()).save(tmp_path / "motion", "# motion\n")
    foresight, settings = MotionForesight("cpu"), settings_with(tmp_path / "motion")
    frames = driven(Robot(), np.arange(0.0, 2.01, 0.25))
    for steps, expected in ((8, [4, 8]), (6, [4, 6]), (3, [3]), (40, [4, 8, 12, 16])):
        term = foresight.term(settings, frames, PlannerSettings(horizon_steps=steps))
        assert (term._index + 1).tolist() == expected
    assert foresight.term(settings, frames[-2:], PlannerSettings()) is None
    assert foresight.term(NavigationSettings(), frames, PlannerSettings()) is None
    with pytest.raises(ConfigError, match="4 frames at 4 Hz, the robot remembers 33 at 2 Hz"):
        foresight.model(replace(settings, memory=replace(settings.memory, rate_hz=2.0)))
    with pytest.raises(ConfigError, match="the robot remembers 3 at 4 Hz"):
        foresight.model(replace(settings, memory=replace(settings.memory, capacity=3)))
    with pytest.raises(ConfigError, match="nowhere"):
        MotionForesight("cpu").model(settings_with("nowhere"))


def test_it_sees_the_middle_square_with_its_depth_and_camera():
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[:, :8], rgb[:, 8:56], rgb[:, 56:] = 255, 100, 255
    depth = np.full((48, 64), 2.5, np.float32)
    camera = CameraIntrinsics(64, 48, 60.0, 60.0, 32.0, 24.0)
    level = level_camera(0.9)[0].double().numpy()
    frame = Frame(0.0, rgb, depth_m=depth, intrinsics=camera, T_base_camera=level)
    found = seen_by(remembered_as(frame), SMALL)
    torch.testing.assert_close(found.images, torch.full((2, 3, 16, 16), 100 / 127.5 - 1.0))
    torch.testing.assert_close(found.depth_m, torch.full((2, 16, 16), 2.5))
    np.testing.assert_allclose(found.camera, [60 / 48, 60 / 48, 0.5, 0.5])
    assert float(found.T_base_camera[2, 3]) == pytest.approx(0.9)


def remembered_as(frame: Frame) -> list:
    """Return four frames like this one."""
    robot = Robot()
    for stamp_s in (0.0, 0.25, 0.5, 0.75):
        robot.stack.memory.observe(replace(frame, stamp_s=stamp_s), Odometry(stamp_s, np.eye(4)))
    return robot.stack.memory.newest_frames(33)


def test_cameras_that_it_was_not_taught_are_left_alone():
    level = level_camera(0.5)[0].double().numpy()
    for axis, angle, ahead in (
        ("z", 0.2, True),
        ("z", 3.1, False),
        ("z", 1.5, False),
        ("y", 0.3, True),
        ("x", 0.2, True),
        ("x", 0.6, False),
    ):
        turned = level.copy()
        turned[:3, :3] = Rotation.from_euler(axis, angle).as_matrix() @ level[:3, :3]
        assert looks_ahead(torch.from_numpy(turned)) is ahead, (axis, angle)
    plain = Frame(0.0, np.zeros((48, 64, 3), np.uint8))
    assert seen_by(remembered_as(plain), SMALL) is not None
    behind = level.copy()
    behind[:3, :3] = Rotation.from_euler("z", np.pi).as_matrix() @ level[:3, :3]
    assert seen_by(remembered_as(replace(plain, T_base_camera=behind)), SMALL) is None
    unknown = level.copy()
    unknown[0, 0] = np.nan
    assert seen_by(remembered_as(replace(plain, T_base_camera=unknown)), SMALL) is None


def test_constant_twists_lead_along_arcs():
    found = poses_at_constant_twist(torch.tensor([[1.0, 0.0], [0.5, math.pi / 2]]), torch.tensor([[2.0], [1.0]]))
    radius = 0.5 / (math.pi / 2)
    np.testing.assert_allclose(found[0, 0], [2.0, 0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(found[1, 0], [radius, radius, math.pi / 2], atol=1e-6)


def test_a_run_that_is_stopped_goes_on_as_if_it_were_not(tmp_path):
    config = MotionTrainSettings(network=SMALL, data=DATA, optimiser=STAGE, precision="32-true")
    whole = MotionRun(config, tmp_path / "whole", MACHINE).finish()
    begun = replace(config, optimiser=replace(STAGE, steps=4))
    assert MotionRun(begun, tmp_path / "parts", replace(MACHINE, max_minutes=0.0)).finish() is None
    parts = MotionRun(begun, tmp_path / "parts", MACHINE).finish()
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert "photographed" not in (whole / "card.md").read_text()
    assert MotionRun(begun, tmp_path / "parts", MACHINE).export_newest() == parts


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": motion_data(recordings=("bag",))}, "no data.recordings"),
        ({"data": motion_data(branches=2)}, "data.branches 0"),
        ({"data": motion_data(max_offset_frames=20)}, "got 16, 20 and 16"),
        ({"data": motion_data(near_frames=4)}, "got 4, 16 and 16"),
        ({"data": motion_data(near_fraction=0.5, revisit_fraction=0.5)}, "must be 0"),
        ({"data": motion_data(near_fraction=0.5, turn_fraction=0.5)}, "must be 0"),
        ({"data": motion_data(memory_s=30.0)}, "must be 0"),
        ({"data": motion_data(camera_px=32)}, "must be network.image_size 64"),
        ({"mirrored_share": 2.0}, "mirrored_share"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        MotionTrainSettings(**changes)


def test_the_command_line_verifies_and_describes_it(tmp_path, capsys):
    LearnedMotion(network()).save(tmp_path / "own", "# own\n\nA card.\n")
    assert main(["models", "verify", str(tmp_path / "own")]) == 0
    assert "sound" in capsys.readouterr().out
    assert main(["models", "info", str(tmp_path / "own")]) == 0
    assert "up to 4 s ahead" in capsys.readouterr().out
    short = replace(SMALL, max_steps=2)
    LearnedMotion(network(settings=short)).save(tmp_path / "short", "# short\n")
    assert main(["models", "verify", str(tmp_path / "short")]) == 0
    capsys.readouterr()
    for words in (["--data", "bag"], ["--image-topic", "x"], ["--data-use", "0-0.5"], ["--time-offset", "3"]):
        assert main(["train", "--motion", *words, "--out", str(tmp_path / "run")]) == 1
        assert "leave out --policy" in capsys.readouterr().err
    assert main(["demo", "--model", str(tmp_path / "own"), "--out", str(tmp_path / "demo")]) == 1
    assert "holds a prior of motion, not a world model" in capsys.readouterr().err
