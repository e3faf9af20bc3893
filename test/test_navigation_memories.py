"""The stack with memories: a robot that comes back imagines what it has seen, and a broken memory is only left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from come_nav.config import load_config
from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics, Goal, Odometry, PlanStatus
from come_nav.evaluation.metrics.image_metrics import psnr
from come_nav.memory.episodic.shared_adapter import save_episode
from come_nav.memory.keyframes import Keyframes
from come_nav.memory.store.store import MemoryStore
from come_nav.navigation.planning.objectives import view_objective
from come_nav.navigation.settings import ExpertsSettings
from come_nav.navigation.stack import NavStack
from come_nav.planning.cem import CemPlanner
from come_nav.planning.objectives import Smoothness
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world
from come_nav.world_model.images import cells_touched
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.views import memory_view

SMALL = {"planner.initial_samples": 24, "planner.samples": 8, "planner.iterations": 2, "planner.elites": 4}
FRAMES = 60


@pytest.fixture(scope="module")
def model():
    return DiffusionWorldModel.load(find_resource("models", "tiny"))


@pytest.fixture(scope="module")
def drive():
    world = generate_world(10000)
    camera = CameraIntrinsics.from_field_of_view(64, 64, np.pi / 2)
    episode = simulate_episode(world, "tour", FRAMES / 4.0, seed=1)
    return EpisodeRecording(episode, Raycaster([world], camera), use_truth=True)


def stack_of(model, drive, use, spoil=lambda frame: frame, **more):
    stack = NavStack(model, load_config(None, {**SMALL, "experts.use": list(use), **more}))
    for index in range(FRAMES):
        frame = spoil(drive.frame(index))
        stack.observe(frame, Odometry(frame.stamp_s, drive.T_odom_base[index]))
    return stack


def test_the_spatial_expert_imagines_what_lies_behind_the_robot(model, drive):
    stack = stack_of(model, drive, ["spatial"])
    composed, warnings = stack.episode.model()
    assert warnings == []
    back = [index for index in range(FRAMES - 20) if abs(_action(drive, index)[2]) > 1.8]  # far outside of the context
    assert len(back) >= 5
    actions = torch.from_numpy(np.stack([_action(drive, index) for index in back])).float()
    truth = model.images_from_rgb([drive.frame(index).rgb for index in back])
    gain = []
    for imagining in (composed, model):
        latents = imagining.predict(stack.context(), actions, torch.ones(len(back)), torch.Generator().manual_seed(0))
        gain.append(float(psnr(model.decode(latents).clamp(-1, 1), truth).mean()))
    assert gain[0] > gain[1] + 2.0
    plan = stack.plan(Goal(image_rgb=drive.frame(back[0]).rgb))
    assert plan.status is PlanStatus.OK
    assert plan.message == ""


def _action(drive, index):
    return se2.relative(drive.poses_xyyaw[FRAMES - 1], drive.poses_xyyaw[index])


def test_memories_far_from_the_origin_of_odom_are_the_same(model, drive):
    """In UTM float32 counts half metres: views, ways and motions must not."""
    offset = np.array([500000.25, 5400000.75, 0.0])
    stacks = []
    for shift in (np.zeros(3), offset):
        stack = NavStack(model, load_config(None, {**SMALL, "experts.use": ["spatial"]}))
        for index in range(FRAMES):
            frame, T_odom_base = drive.frame(index), drive.T_odom_base[index].copy()
            T_odom_base[:3, 3] += shift
            stack.observe(frame, Odometry(frame.stamp_s, T_odom_base))
        stacks.append(stack)
    back = [index for index in range(FRAMES - 20) if abs(_action(drive, index)[2]) > 1.8][:4]
    actions = torch.from_numpy(np.stack([_action(drive, index) for index in back])).float()
    shown = []
    for stack in stacks:
        composed, warnings = stack.episode.model()
        assert warnings == []
        shown.append(memory_view(composed, stack.context(), actions))
    seen = shown[0].known.float().mean()
    assert seen > 0.3
    apart = (shown[0].image - shown[1].image).abs().mean(dim=1)
    assert (apart < 0.02).float().mean() > 0.97
    keyframes = [Keyframes(), Keyframes()]
    for kept, shift in zip(keyframes, (np.zeros(3), offset), strict=True):
        for index in range(FRAMES):
            T_odom_base = drive.T_odom_base[index].copy()
            T_odom_base[:3, 3] += shift
            kept.observe(drive.frame(index), T_odom_base)
    np.testing.assert_array_equal(keyframes[0].stamps_s, keyframes[1].stamps_s)
    ways = [kept.poses_xyyaw[kept.chain(0, len(kept) - 1), :2] for kept in keyframes]
    lengths = [np.linalg.norm(np.diff(way, axis=0), axis=1).sum() for way in ways]
    assert lengths[0] == pytest.approx(lengths[1], abs=1e-6)
    again = Keyframes()
    again.load_state(keyframes[1].state())
    np.testing.assert_array_equal(again.poses_xyyaw, keyframes[1].poses_xyyaw)
    assert (
        again.nearest_pose(drive.poses_xyyaw[20] + offset).index
        == keyframes[0].nearest_pose(drive.poses_xyyaw[20]).index
    )


def test_auto_remembers_in_space_and_leaves_out_in_silence(model, drive):
    stack = stack_of(model, drive, ["auto"])
    assert stack.episode.in_use().names == ("spatial",)
    assert stack.episode.episodic is None
    assert set(stack.episode.diagnostics) == {"short_term", "long_term"}
    composed, warnings = stack.episode.model()
    assert list(composed.experts) == ["base", "spatial"]
    assert warnings == []
    blind = stack_of(model, drive, ["auto"], lambda frame: replace(frame, depth_m=None))
    assert blind.plan(Goal(image_rgb=drive.frame(0).rgb)).message == ""
    assert "no_depth" in blind.episode.diagnostics["spatial"]


def test_an_expert_that_was_asked_for_and_changes_nothing_is_told(model, drive):
    plan = stack_of(model, drive, ["short_term", "spatial"]).plan(Goal(image_rgb=drive.frame(0).rgb))
    assert plan.status is PlanStatus.OK
    assert plan.message == "the short_term expert changes nothing: its weight, experts.short_term, is 0"


def test_a_memory_without_depth_is_left_out_with_a_warning(model, drive):
    def blind(frame):
        return replace(frame, depth_m=None)

    stack = stack_of(model, drive, ["spatial"], blind)
    plan = stack.plan(Goal(image_rgb=drive.frame(0).rgb))
    assert plan.status is PlanStatus.OK
    assert plan.message == f"without the spatial expert: nothing is remembered yet (frames refused: no_depth {FRAMES})"
    estimating = stack_of(model, drive, ["spatial"], blind, **{"experts.estimate_depth": True})
    assert estimating.plan(Goal(image_rgb=drive.frame(0).rgb)).message == ""
    assert len(estimating.episode.spatial) > 1000


def test_depth_that_is_estimated_is_not_remembered_where_something_moves(model, drive):
    def everywhere(frame):
        return replace(frame, depth_m=None, moving=np.ones(frame.rgb.shape[:2], bool))

    stack = stack_of(model, drive, ["spatial"], everywhere, **{"experts.estimate_depth": True})
    assert len(stack.episode.spatial) == 0
    assert stack.episode.spatial.rejected == {"no_points": FRAMES}


def test_a_pixel_of_the_model_moves_where_any_of_the_camera_does():
    mask = np.zeros((6, 12), bool)
    mask[1, 4] = mask[5, 11] = True  # the second one is outside of the window
    np.testing.assert_array_equal(cells_touched(mask, 3), [[True, False, False], [False] * 3, [False] * 3])


def test_the_long_term_expert_trains_while_the_robot_plans(model, drive):
    keys = {"lora.rank": 4, "lora.alpha": 4, "episodic.batch_size": 2, "episodic.round_steps": 1}
    keys["experts.long_term"] = 1.0
    stack = stack_of(model, drive, ["long_term"], **keys, **{"experts.budget.steps_per_s": 100.0})
    try:
        episodic = stack.episode.episodic
        for _ in range(600):
            if episodic.newest is not None:
                break
            stack.episode.long_term._trainer._stop.wait(0.05)
        assert episodic.newest is not None
        assert stack.plan(Goal(image_rgb=drive.frame(0).rgb)).message == ""
        stack.reset()
        assert "no adapter is trained yet" in "".join(stack.episode.model()[1])
    finally:
        stack.close()


def test_a_model_that_takes_no_experts_says_so(drive):
    class Other:
        rate_hz, context_frames = 4.0, 4

        def images_from_rgb(self, frames):
            return torch.zeros(len(frames), 3, 8, 8)

        def encode(self, images):
            return images

    stack = NavStack(Other(), load_config(None, {"experts.use": ["spatial"]}))
    assert stack.episode.model()[1] == ["without the spatial expert: this world model takes no experts"]
    with pytest.raises(ConfigError, match=r"experts\.use"):
        load_config(None, {"experts.use": ["spacial"]})


def test_the_long_term_expert_uses_what_another_stack_has_trained(model, drive, tmp_path):
    keys = {"lora.rank": 4, "lora.alpha": 4, "episodic.batch_size": 2, "experts.long_term": 1.0}
    trained = stack_of(model, drive, ["long_term"], **keys, **{"experts.budget.steps_per_s": 1e-3})
    trained.close()
    store = MemoryStore(tmp_path)
    stack = stack_of(model, drive, ["long_term"], **keys, **{"experts.adapter_store": str(tmp_path)})
    assert stack.episode.episodic is None  # it trains nothing itself
    assert stack.episode.model()[1] == [f"without the long_term expert: no adapter is in {tmp_path} yet"]
    trained.episode.episodic.train_steps(2)
    save_episode(store, trained.episode.episodic)
    again = Odometry(drive.stamps_s[-1] + 0.25, drive.T_odom_base[-1])
    stack.observe(replace(drive.frame(FRAMES - 1), stamp_s=again.stamp_s), again)
    assert stack.episode.adapter.metadata["steps"] == trained.episode.adapter.metadata["steps"]
    composed, warnings = stack.episode.model()
    assert warnings == []
    assert composed is not model
    stack.reset()  # the episode is its trainer's to forget
    assert stack.episode.model()[1] == []

    # an adapter of other weights of the same shape would be used without a word if nothing told them apart
    other = DiffusionWorldModel.load(find_resource("models", "tiny"))
    with torch.no_grad():
        next(iter(other.memory_base.parameters())).add_(1.0)
    refusing = stack_of(other, drive, ["long_term"], **keys, **{"experts.adapter_store": str(tmp_path)})
    assert "the adapter does not fit: base must be" in refusing.episode.model()[1][0]


def test_a_calibration_that_comes_late_does_not_end_the_training(model, drive):
    keys = {"lora.rank": 4, "lora.alpha": 4, "episodic.batch_size": 2, "experts.budget.steps_per_s": 1e-3}
    seen = []

    def late(frame):
        seen.append(frame)
        return replace(frame, intrinsics=None) if len(seen) < 5 else frame

    stack = stack_of(model, drive, ["spatial", "long_term"], late, **keys)
    stack.close()
    assert stack.episode.episodic.frames.seen == FRAMES
    assert stack.episode.training_diagnosis is None
    stack.reset()
    stack.episode.long_term.imagines = False  # trained for others: not made ready here
    for index in range(8):
        stack.observe(drive.frame(index), Odometry(drive.stamps_s[index], drive.T_odom_base[index]))
    stack.episode.episodic.train_steps(1)
    assert stack.episode.adapter.metadata["steps"] == 1
    assert not stack.episode.long_term.expert.has_adapter


def test_settings_of_the_search_of_memory_change_while_it_runs(model, drive):
    stack = stack_of(model, drive, ["spatial"])
    image = model.images_from_rgb([drive.frame(0).rgb])[0]
    unseen = torch.tensor([[100.0, 100.0, 0.0]])
    before = float(stack.episode.difference_to(image)(unseen))
    changed = replace(stack.settings.relocalisation, unknown_weight=stack.settings.relocalisation.unknown_weight + 1.0)
    stack.settings = replace(stack.settings, relocalisation=changed)
    assert float(stack.episode.difference_to(image)(unseen)) == pytest.approx(before + 1.0)


def test_frozen_memories_take_nothing_new(model, drive):
    keys = {"lora.rank": 4, "lora.alpha": 4, "episodic.batch_size": 2, "experts.budget.steps_per_s": 1e-3}
    stack = stack_of(model, drive, ["spatial", "long_term"], **keys)
    stack.close()
    points, seen = len(stack.episode.spatial), stack.episode.episodic.frames.seen
    stack.episode.frozen = True
    stack.forget_recent()
    for index in range(6):
        stack.observe(drive.frame(index), Odometry(drive.stamps_s[index], drive.T_odom_base[index]))
    assert (len(stack.episode.spatial), stack.episode.episodic.frames.seen) == (points, seen)
    assert stack.memory.newest.stamp_s == drive.stamps_s[5]


def test_the_adapter_trains_at_once_where_nothing_trains_in_the_background(model, drive):
    keys = {"experts.use": ["long_term"], "experts.long_term": 1.0, "lora.rank": 2, "lora.alpha": 2}
    keys["episodic.batch_size"] = 1
    settings = load_config(None, {**SMALL, **keys, "episodic.steps_per_frame": 0.5})
    stack = NavStack(model, settings, background_training=False)
    for index in range(12):
        stack.observe(drive.frame(index), Odometry(drive.stamps_s[index], drive.T_odom_base[index]))
    assert stack.episode.adapter is None
    told = []
    assert stack.episode.train(lambda text, steps: told.append(steps)) == 6 == sum(told)
    assert stack.episode.adapter.metadata["steps"] == 6
    assert stack.episode.model()[1] == []
    assert stack.episode.train() == 0


def test_experts_of_one_plan_are_a_choice_of_those_whose_memory_is_kept(model, drive):
    stack = stack_of(model, drive, ["short_term", "spatial"])
    only = ExpertsSettings(use=("spatial",), mode="average", base=0.0)
    composed, warnings = stack.episode.model(only)
    assert warnings == []
    assert composed.composition.weights == (0.0, 1.0)
    assert stack.episode.model(ExpertsSettings(use=()))[0] is model
    _, warnings = stack.episode.model(ExpertsSettings(use=("long_term",)))
    assert warnings == ["without the long_term expert: its memory is not kept; name it in experts.use"]


@pytest.mark.parametrize("use", [(), ("short_term", "spatial")])
def test_a_plan_of_a_window_is_the_search_over_the_models_own_context(model, drive, use):
    """The tables' wiring, written out: context of the window, one composed model, its horizon and its generator."""
    stack = stack_of(model, drive, ["short_term", "spatial"])
    stack.episode.frozen = True
    experts, last, goal = ExpertsSettings(use=use, short_term=0.5), 40, drive.frame(45).rgb
    stack.forget_recent()
    for index in range(last - 15, last + 1):
        stack.observe(drive.frame(index), Odometry(drive.stamps_s[index], drive.T_odom_base[index]))
    search = replace(stack.settings.planner, horizon_steps=5, dt_s=0.25)
    plan = stack.plan(Goal(goal), generator=torch.Generator().manual_seed(5), planner=search, experts=experts)

    frames = [drive.frame(i).over_footprint(drive.T_odom_base[i]) for i in range(last - 15, last + 1)]
    poses = drive.poses_xyyaw[last - 15 : last + 1]
    older = list(zip(frames[:-4], poses[:-4], strict=True))
    past = {"older": older, "absolute_pose_xyyaw": poses[-1]} if use else {}
    context = model.context_from_frames(frames[-4:], poses[-4:], [-3.0, -2.0, -1.0, 0.0], **past)
    imagining = model
    if use:
        weights = {"base": 1.0, "short_term": 0.5, "spatial": 1.0}
        imagining = model.with_memory(stack.episode.views).composed(weights, "normalised")
    twist = np.array(se2.planar_twist_between(poses[-2], poses[-1], 0.25))
    view = view_objective(stack.settings.objective, model.images_from_rgb([goal]), model)
    objectives = [view, Smoothness(0.25, initial_twist=torch.from_numpy(twist))]
    wanted = CemPlanner(search, objectives, {view.name: 1.0, "smoothness": 0.0}).plan(
        imagining.imaginer(context, 5.0, "jump", decode=False), torch.Generator().manual_seed(5), initial_twist=twist
    )
    np.testing.assert_allclose(plan.poses_xyyaw, wanted.poses_xyyaw, atol=1e-4)
    assert plan.cost == pytest.approx(wanted.cost, abs=1e-5)


def test_a_cloud_of_another_process_is_followed_not_filled(model, drive, tmp_path):
    store = MemoryStore(tmp_path)
    stack = stack_of(model, drive, ["spatial"], **{"experts.spatial_store": str(tmp_path)})
    assert len(stack.episode.spatial) == 0, "frames fill nothing here"
    assert "no cloud is in" in "".join(stack.episode.model()[1])
    owner = stack_of(model, drive, ["spatial"])
    store.save(cloud=owner.episode.spatial.state())
    newest = drive.frame(FRAMES - 1)
    later = replace(newest, stamp_s=newest.stamp_s + 0.25)
    stack.observe(later, Odometry(later.stamp_s, drive.T_odom_base[FRAMES - 1]))  # looks for a newer cloud
    assert len(stack.episode.spatial) == len(owner.episode.spatial)
    assert stack.episode.model()[1] == []
    poses = torch.zeros(1, 3)
    for mine, theirs in zip(stack.episode.views.views(poses, 64), owner.episode.views.views(poses, 64), strict=True):
        torch.testing.assert_close(mine, theirs)
    stack.reset()
    assert len(stack.episode.spatial) == len(owner.episode.spatial), "it is another process's to forget"
