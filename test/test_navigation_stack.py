"""The whole flow with a world model whose images are poses: what it imagines is known exactly."""

import itertools
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from come_nav.config import Config, load_config
from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import Context, Frame, Goal, Imagination, Odometry, PlanStatus
from come_nav.navigation.planning.warm_start import leads_on
from come_nav.navigation.stack import NavStack
from come_nav.planning.objectives import Clearance

START = np.array([2.0, -1.0, 0.5])


def image_of(position_xy):
    """Return an image whose red and green tell a position in metres, -4 to 4."""
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0], image[..., 1] = np.round((np.asarray(position_xy) + 4.0) / 8.0 * 255.0)
    return image


class ImageModel:
    """Sees the odom position as colour; its latents are the position relative to nothing."""

    image_size, context_frames, rate_hz = 8, 4, 4.0

    def __init__(self):
        self.encoded = 0
        self.contexts = []

    def images_from_rgb(self, frames):
        return torch.stack([torch.from_numpy(frame.copy()).permute(2, 0, 1).float() / 127.5 - 1.0 for frame in frames])

    def encode(self, images):
        self.encoded += len(images)
        return images[:, :, :2, :2]

    def decode(self, latents):
        return latents.repeat(1, 1, 4, 4)

    def context_from_frames(self, frames, poses_xyyaw, frame_offsets, *, latents=None):
        relative = torch.from_numpy(se2.relative(poses_xyyaw[-1:], poses_xyyaw)).to(latents)
        return Context(latents[None], relative[None], torch.tensor(frame_offsets).to(latents)[None])

    def imaginer(self, context, rel_frames, mode="jump", *, decode=False):
        self.contexts.append((context, rel_frames, mode))
        model = self

        class Bound:
            def imagine(self, poses_xyyaw, generator):
                seen = context.latents[0, -1, :2, 0, 0] * 4.0  # where the newest frame stood
                start = torch.cat([seen, torch.tensor([START[2]], dtype=seen.dtype)])
                ends = se2.compose(start[None].to(poses_xyyaw), poses_xyyaw[:, -1])[:, :2] / 4.0
                latents = torch.cat([ends, torch.full_like(ends[:, :1], -1.0)], dim=1)[..., None, None]
                latents = latents.expand(-1, -1, 2, 2)
                return Imagination(poses_xyyaw, latents, model.decode(latents) if decode else None)

        return Bound()


def observe(stack, count, speed=0.5, first_s=0.0, twist=(None, None)):
    """Drive straight along the heading and end at START."""
    for index in range(count):
        back = speed * 0.25 * (index - count + 1)
        pose = se2.compose(START, np.array([back, 0.0, 0.0]))
        stamp_s = first_s + 0.25 * index
        stack.observe(Frame(stamp_s, image_of(pose[:2])), Odometry(stamp_s, se3.transform_from_xyyaw(pose), *twist))


def goal_ahead(forward=1.0, left=0.2):
    return se2.compose(START, np.array([forward, left, 0.0]))


@pytest.mark.parametrize("view", ["latent", "image_l1", "image_l2"])
def test_plans_to_what_the_goal_image_shows(view):
    stack = NavStack(ImageModel(), load_config(None, {"objective.view_distance": view, "objective.image_scales": [1]}))
    observe(stack, 6)
    goal = goal_ahead()
    plan = stack.plan(Goal(image_rgb=image_of(goal[:2])))
    assert plan.status is PlanStatus.OK
    np.testing.assert_allclose(plan.poses_odom_xyyaw()[-1, :2], goal[:2], atol=0.1)
    assert plan.stamp_s == 1.25
    np.testing.assert_allclose(plan.start_odom_xyyaw, START, atol=1e-9)


def test_context_is_what_the_world_model_expects():
    model = ImageModel()
    stack = NavStack(model)
    observe(stack, 6, speed=0.4)
    stack.plan(Goal(image_rgb=image_of(goal_ahead()[:2])))
    context, rel_frames, mode = model.contexts[0]
    assert (rel_frames, mode) == (8.0, "jump")
    assert context.latents.shape == (1, 4, 3, 2, 2)
    np.testing.assert_allclose(context.poses_xyyaw[0, :, 0], [-0.3, -0.2, -0.1, 0.0], atol=1e-6)
    np.testing.assert_allclose(context.frame_offsets[0], [-3, -2, -1, 0])
    assert model.encoded == 6 + 1  # each frame once, and the goal


def test_plans_to_a_pose_without_images():
    model = ImageModel()
    stack = NavStack(model)
    observe(stack, 1)
    goal = goal_ahead(0.8, 0.1)
    plan = stack.plan(Goal(pose_odom_xyyaw=goal))
    assert plan.status is PlanStatus.OK
    assert model.contexts == []
    np.testing.assert_allclose(plan.poses_odom_xyyaw()[-1, :2], goal[:2], atol=0.1)


def test_the_end_of_a_plan_to_a_pose_is_shown_if_requested():
    model, goal = ImageModel(), Goal(pose_odom_xyyaw=goal_ahead(0.8, 0.1))
    stack = NavStack(model, Config(show_imagined=True))
    observe(stack, 3)
    assert stack.plan(goal).imagined_rgb is None  # too few frames to imagine from, but enough to plan
    observe(stack, 6, first_s=0.75)
    plan = stack.plan(goal)
    reached = plan.poses_odom_xyyaw()[-1, :2]
    assert np.abs(plan.imagined_rgb[0, 0, :2].astype(float) - image_of(reached)[0, 0, :2]).max() <= 2


def test_present_twist_is_measured_or_derived():
    measured = NavStack(ImageModel())
    observe(measured, 4, twist=(0.3, 0.1))
    np.testing.assert_allclose(measured.present_twist(), [0.3, 0.0, 0.1])
    derived = NavStack(ImageModel())
    assert derived.present_twist() is None
    observe(derived, 4, speed=0.5)
    np.testing.assert_allclose(derived.present_twist(), [0.5, 0.0, 0.0], atol=1e-9)


def test_a_sensor_that_fails_is_a_status():
    stack = NavStack(ImageModel())
    image_goal = Goal(image_rgb=image_of(START[:2]))
    assert stack.plan(image_goal).status is PlanStatus.NO_CONTEXT
    assert stack.plan(None).status is PlanStatus.GOAL_MISSING
    observe(stack, 3)
    few = stack.plan(image_goal)
    assert (few.status, few.message) == (PlanStatus.NO_CONTEXT, "3 of 4 context frames so far")
    observe(stack, 8, first_s=0.75)
    assert stack.plan(image_goal, now_s=2.6).status is PlanStatus.OK
    stale = stack.plan(image_goal, now_s=9.0)
    assert stale.status is PlanStatus.STALE_SENSOR
    assert "6.50 s old" in stale.message
    assert stale.poses_xyyaw.shape == (0, 3)
    wall = torch.stack([torch.full((9,), 0.205), torch.linspace(-0.4, 0.4, 9)], dim=1)  # too near to stop in time
    blocked = stack.plan(image_goal, clearance=Clearance(wall, radius_m=0.2))
    assert blocked.status is PlanStatus.ALL_IN_COLLISION
    asked = []
    free = stack.plan(image_goal, clearance=asked.append)
    assert free.status is PlanStatus.OK
    np.testing.assert_array_equal(asked, [stack.memory.newest.pose_odom_xyyaw])


class SlowImaginer:
    """Lets something else happen while it imagines, as often as it is asked."""

    def __init__(self, imaginer, meanwhile):
        self._imaginer, self._meanwhile = imaginer, meanwhile

    def imagine(self, poses_xyyaw, generator):
        thread = threading.Thread(target=self._meanwhile)
        thread.start()
        thread.join(10.0)
        assert not thread.is_alive(), "remembering waited for the search"
        return self._imaginer.imagine(poses_xyyaw, generator)


def test_frames_are_remembered_while_a_search_runs():
    model, goal = ImageModel(), goal_ahead()
    stack = NavStack(model)
    observe(stack, 6)
    stamps = itertools.count(6)

    def see():
        index = next(stamps)
        pose = se2.compose(START, np.array([0.125 * (index - 5), 0.0, 0.0]))
        odometry = Odometry(0.25 * index, se3.transform_from_xyyaw(pose))
        stack.observe(Frame(0.25 * index, image_of(pose[:2])), odometry)

    undisturbed = model.imaginer
    model.imaginer = lambda *arguments, **words: SlowImaginer(undisturbed(*arguments, **words), see)
    plan = stack.plan(Goal(image_rgb=image_of(goal[:2])))
    assert plan.status is PlanStatus.OK
    assert plan.stamp_s == 1.25  # where it was asked for
    np.testing.assert_allclose(plan.poses_odom_xyyaw()[-1, :2], goal[:2], atol=0.1)
    assert stack.memory.newest.stamp_s == 1.25 + 0.25 * (next(stamps) - 6) > 2.0


def test_a_plan_of_an_episode_that_ended_meanwhile_warms_nothing():
    model, goal = ImageModel(), Goal(image_rgb=image_of(goal_ahead()[:2]))
    stack = NavStack(model)
    observe(stack, 6)
    undisturbed = model.imaginer
    model.imaginer = lambda *arguments, **words: SlowImaginer(undisturbed(*arguments, **words), stack.reset)
    assert stack.plan(goal).status is PlanStatus.OK
    model.imaginer = undisturbed
    observe(stack, 6)
    after = stack.plan(goal).poses_xyyaw
    fresh = NavStack(ImageModel())
    observe(fresh, 6)
    np.testing.assert_array_equal(after, fresh.plan(goal).poses_xyyaw)


def test_same_seed_same_plan_and_reset_begins_again():
    goal = Goal(image_rgb=image_of(goal_ahead()[:2]))
    plans = []
    for seed in (1, 1, 2):
        stack = NavStack(ImageModel(), Config(seed=seed))
        observe(stack, 4)
        plans.append(stack.plan(goal).poses_xyyaw)
    np.testing.assert_array_equal(plans[0], plans[1])
    assert not np.array_equal(plans[0], plans[2])
    stack.plan(goal)
    stack.reset()
    assert stack.plan(goal).status is PlanStatus.NO_CONTEXT
    observe(stack, 4)
    np.testing.assert_array_equal(stack.plan(goal).poses_xyyaw, plans[2])


def test_the_imagined_view_is_decoded_when_asked_for():
    stack = NavStack(ImageModel(), Config(show_imagined=True))
    observe(stack, 4)
    goal = goal_ahead()
    plan = stack.plan(Goal(image_rgb=image_of(goal[:2])))
    assert plan.imagined_rgb is not None
    assert plan.imagined_rgb.dtype == np.uint8
    np.testing.assert_allclose(plan.imagined_rgb[0, 0, :2].astype(int), image_of(goal[:2])[0, 0, :2], atol=4)


def test_settings_that_do_not_fit_the_model_are_refused():
    with pytest.raises(ConfigError, match=r"memory\.rate_hz must be the model's 4"):
        NavStack(ImageModel(), load_config(None, ["memory.rate_hz=2.0"]))
    with pytest.raises(ConfigError, match=r"planner\.dt_s must be 0\.25"):
        NavStack(ImageModel(), load_config(None, ["imagination=rollout", "planner.dt_s=0.5"]))


@pytest.mark.parametrize("how", ["same image, another object", "a subgoal that moves on"])
def test_what_is_left_of_a_plan_is_where_the_next_search_begins(how):
    far = goal_ahead(2.0, 0.3)
    if how == "a subgoal that moves on":
        goals = [Goal(pose_odom_xyyaw=far), Goal(pose_odom_xyyaw=se2.compose(far, np.array([0.15, 0.0, 0.1])))]
    else:
        goals = [Goal(image_rgb=image_of(far[:2])), Goal(image_rgb=image_of(far[:2]))]
    config = load_config(None, {"planner.initial_sampling": "gaussian"})
    stack = NavStack(ImageModel(), config)
    observe(stack, 6)
    before = stack.plan(goals[0])
    warm = stack.plan(goals[1]).trace.iterations[0]
    cold = NavStack(ImageModel(), config)
    observe(cold, 6)
    unaided = cold.plan(goals[1]).trace.iterations[0]
    np.testing.assert_allclose(warm.poses_xyyaw[0].numpy(), before.poses_xyyaw, atol=0.02)  # the mean comes first
    assert np.abs(unaided.poses_xyyaw[0].numpy() - before.poses_xyyaw).max() > 0.1
    assert bool((warm.std < unaided.std).all())


def test_a_plan_to_somewhere_else_begins_anew():
    here, there = goal_ahead(1.0, 0.3), goal_ahead(1.0, -0.3)
    one, other = Goal(image_of(here[:2]), here), Goal(image_of(there[:2]), here)
    assert leads_on(one, Goal(image_of(here[:2]), here.copy()))
    assert not leads_on(one, other)
    assert not leads_on(one, Goal(pose_odom_xyyaw=here))
    assert not leads_on(one, Goal(image_of(here[:2])))
    assert not leads_on(one, Goal(image_of(here[:2]), there))
    assert not leads_on(one, Goal(image_of(here[:2]), se2.compose(here, np.array([0.0, 0.0, 1.0]))))
    assert leads_on(Goal(pose_odom_xyyaw=here), Goal(pose_odom_xyyaw=here + np.array([0.0, 0.0, 2 * np.pi])))


def test_a_plan_with_a_generator_of_its_own_stands_alone():
    goal = Goal(image_rgb=image_of(goal_ahead()[:2]))
    stack = NavStack(ImageModel())
    observe(stack, 6)
    alone = [stack.plan(goal, generator=torch.Generator().manual_seed(3)).poses_xyyaw for _ in range(2)]
    np.testing.assert_array_equal(*alone)
    fresh = NavStack(ImageModel())
    observe(fresh, 6)
    np.testing.assert_array_equal(stack.plan(goal).poses_xyyaw, fresh.plan(goal).poses_xyyaw)


def test_a_plan_may_have_a_search_and_an_imaginer_of_its_own():
    class Elsewhere:
        def imagine(self, poses_xyyaw, generator):
            wanted = poses_xyyaw[:, -1, :2] - torch.tensor([0.4, -0.1])
            latents = torch.cat([wanted, torch.full_like(wanted[:, :1], -1.0)], dim=1)[..., None, None]
            return Imagination(poses_xyyaw, latents.expand(-1, -1, 2, 2))

    model = ImageModel()
    stack = NavStack(model, load_config(None, {"objective.view_distance": "latent"}))
    observe(stack, 6)
    search = replace(stack.settings.planner, horizon_steps=4, dt_s=0.3)
    goal = Goal(image_rgb=image_of((0.0, 0.0)))
    assert len(stack.plan(goal, planner=search).poses_xyyaw) == 4
    assert model.contexts[-1][1] == pytest.approx(4 * 0.3 * 4.0)
    plan = stack.plan(goal, planner=search, imaginer=Elsewhere())
    assert len(model.contexts) == 1
    assert plan.dt_s == 0.3
    np.testing.assert_allclose(plan.poses_xyyaw[-1, :2], [0.4, -0.1], atol=0.05)


def test_recent_frames_are_forgotten_alone():
    stack = NavStack(ImageModel())
    observe(stack, 6, twist=(0.3, 0.1))
    stack.forget_recent()
    assert stack.plan(Goal(pose_odom_xyyaw=goal_ahead())).status is PlanStatus.NO_CONTEXT
    assert stack.present_twist() is None
    observe(stack, 4)  # stamps from before are as good as any
    assert stack.plan(Goal(image_rgb=image_of(START[:2]))).status is PlanStatus.OK


class NoisyModel(ImageModel):
    """Imagines with noise of standard deviation 0.5."""

    def imaginer(self, context, rel_frames, mode="jump", *, decode=False):
        bound = super().imaginer(context, rel_frames, mode, decode=decode)

        class Noisy:
            def imagine(self, poses_xyyaw, generator):
                told = bound.imagine(poses_xyyaw, generator)
                noise = torch.randn((len(poses_xyyaw), 3, 32, 32), generator=generator)
                return Imagination(poses_xyyaw, told.latents[..., :1, :1] + 0.5 * noise)

        return Noisy()


def test_a_plan_tells_how_much_its_imagined_end_varies():
    def planned(model, goal, **keys):
        stack = NavStack(model, load_config(None, {"objective.view_distance": "latent", **keys}))
        observe(stack, 6)
        return stack.plan(goal), stack.plan(goal)

    pose, image = Goal(pose_odom_xyyaw=goal_ahead()), Goal(image_rgb=image_of(goal_ahead()[:2]))
    assert planned(ImageModel(), image)[0].doubt == 0.0
    assert planned(ImageModel(), pose)[0].doubt is None  # nothing was imagined
    told, silent = (planned(ImageModel(), image, **{"objective.doubt_draws": count}) for count in (3, 0))
    assert silent[0].doubt is None
    for with_doubt, without in zip(told, silent, strict=True):  # its noises are its own
        np.testing.assert_array_equal(with_doubt.poses_xyyaw, without.poses_xyyaw)
    goal = Goal(image_rgb=np.zeros((32, 32, 3), np.uint8))
    model = NoisyModel()
    model.encode = lambda images: images[:, :, :1, :1].expand(-1, -1, 32, 32)
    assert planned(model, goal)[0].doubt == pytest.approx(0.25, rel=0.1)
    with pytest.raises(ConfigError, match="doubt_draws"):
        load_config(None, {"objective.doubt_draws": 1})
