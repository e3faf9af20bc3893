"""Rows of the planning and quality suites: they plan and imagine as the robot's own stack does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from data_samples import SampleRecording
from model_samples import small_model

from come_nav.core.errors import DataError, PlanningError
from come_nav.core.geometry import se3
from come_nav.evaluation.protocols.protocol import ProtocolSettings, Window, choose_windows
from come_nav.evaluation.protocols.quality import quality_windows, read_batch
from come_nav.evaluation.suites.camera_model import CameraModel, unit_image
from come_nav.evaluation.suites.planning_rows import RenderedImaginer, perfect_model_row, world_model_row
from come_nav.evaluation.suites.quality_rows import batched_context, images_of, jump_row, rollout_row
from come_nav.evaluation.suites.replay import Replay, open_loop, show
from come_nav.evaluation.suites.worlds import drive_worlds
from come_nav.navigation.planning.objectives import view_objective
from come_nav.navigation.settings import NavigationSettings
from come_nav.navigation.stack import NavStack
from come_nav.planning.cem import CemPlanner
from come_nav.planning.objectives import Smoothness
from come_nav.planning.settings import PlannerSettings
from come_nav.world_model.inference_settings import InferenceSettings
from come_nav.world_model.model import DiffusionWorldModel

SEARCH = PlannerSettings(samples=6, initial_samples=12, iterations=2, elites=3)
SETTINGS = NavigationSettings(planner=SEARCH, device="cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> DiffusionWorldModel:
    loaded = DiffusionWorldModel.load(small_model(tmp_path_factory.mktemp("models") / "small"))
    loaded.inference = InferenceSettings(precision="float32")
    return loaded


def windows_of(model: DiffusionWorldModel, count: int = 3, frames: int = 40, steps: int = 8) -> list[Window]:
    return choose_windows([("drive", SampleRecording(frames))], ProtocolSettings(model.context_frames, steps), count)


def searched_directly(model: DiffusionWorldModel, window: Window):
    """Plan from the window's own frames, without a stack: an independent statement of the protocol."""
    offsets = (window.context_stamps_s * model.rate_hz).tolist()
    context = model.context_from_frames(window.over_footprint(window.context_frames()), window.context_xyyaw, offsets)
    view = view_objective(SETTINGS.objective, model.images_from_rgb([window.goal_frame().rgb]), model)
    twist = window.initial_twist
    planner = CemPlanner(
        replace(SEARCH, horizon_steps=len(window.driven_xyyaw), dt_s=window.dt_s),
        [view, Smoothness(window.dt_s, initial_twist=torch.from_numpy(twist))],
        {view.name: SETTINGS.objective.view_weight, "smoothness": SETTINGS.objective.smoothness_weight},
    )
    return planner.plan(
        model.imaginer(context, window.rel_frames),
        window.generator(),
        stamp_s=window.stamp_s,
        start_odom_xyyaw=window.start_odom_xyyaw,
        initial_twist=twist,
    )


@pytest.mark.parametrize("steps", [8, 5])
def test_a_row_plans_what_a_direct_search_finds(model, steps):
    row = world_model_row(model, SETTINGS)
    for window in windows_of(model, steps=steps):
        plan, direct = row.plan(window, window.generator()), searched_directly(model, window)
        assert plan.poses_xyyaw.shape == (steps, 3)
        np.testing.assert_allclose(plan.poses_xyyaw, direct.poses_xyyaw, atol=1e-6)
        assert plan.cost == pytest.approx(direct.cost, rel=1e-6)
        np.testing.assert_allclose(plan.start_odom_xyyaw, window.start_odom_xyyaw)
        assert plan.stamp_s == window.stamp_s


def test_no_plan_begins_with_the_one_before(model):
    """Windows in another order, and rows that plan twice, give the same plans."""
    row, again = world_model_row(model, SETTINGS), world_model_row(model, SETTINGS)
    windows = windows_of(model)
    forwards = [row.plan(window, window.generator()).poses_xyyaw for window in windows]
    twice = [row.plan(window, window.generator()).poses_xyyaw for window in windows]
    backwards = [again.plan(window, window.generator()).poses_xyyaw for window in reversed(windows)]
    np.testing.assert_array_equal(forwards, twice)
    np.testing.assert_array_equal(forwards, backwards[::-1])


def test_a_window_is_seen_from_its_own_start(model):
    replay = Replay(NavStack(model, open_loop(SETTINGS)), older_frames=5)
    for window in windows_of(model):
        frames = replay.at(window).memory.newest_frames(99)
        stamps_s = window.recording.stamps_s[window.context[0] - 5 : window.start + 1]
        assert [frame.stamp_s for frame in frames] == list(stamps_s)
        np.testing.assert_allclose(replay.stack.present_twist(), window.initial_twist, atol=1e-9)
        context = replay.context(window)
        np.testing.assert_allclose(context.poses_xyyaw[0].numpy(), window.context_xyyaw, atol=1e-5)


class Jittered(SampleRecording):
    """Frames as a slow camera gives them: spaced by 0.17 and 0.33 s."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.stamps_s = self.stamps_s + 0.08 * (np.arange(count) % 2)


def test_every_frame_of_a_jittery_recording_is_kept(model):
    recording = Jittered(30)
    window = choose_windows([("drive", recording)], ProtocolSettings(model.context_frames, 4), 1)[0]
    frames = Replay(NavStack(model, open_loop(SETTINGS)), 6).at(window).memory.newest_frames(99)
    assert len(frames) == 6 + model.context_frames


def test_a_car_is_no_jump_of_the_pose(model):
    """10.8 m/s, as of KITTI's: windows are cut where poses jump, so speed alone is no reason to forget."""
    recording = SampleRecording(30)
    recording.poses_xyyaw = np.stack([2.7 * np.arange(30), np.zeros(30), np.zeros(30)], axis=1)
    recording.T_odom_base = se3.transform_from_xyyaw(recording.poses_xyyaw)
    window = choose_windows([("drive", recording)], ProtocolSettings(model.context_frames, 4), 1)[0]
    frames = Replay(NavStack(model, open_loop(SETTINGS))).at(window).memory.newest_frames(99)
    assert len(frames) == model.context_frames


class Torn(SampleRecording):
    """A recording whose images cannot be decoded, all of them or one."""

    def __init__(self, count: int, damaged: range) -> None:
        super().__init__(count)
        self._damaged = damaged

    def frame(self, index: int):
        if index in self._damaged:
            raise DataError(f"frame {index} is damaged")
        return super().frame(index)


def test_one_damaged_image_does_not_cost_the_memory(model):
    stack = NavStack(model, open_loop(SETTINGS))
    show(stack, Torn(12, range(4, 5)), range(12))
    assert len(stack.memory) == 11
    with pytest.raises(DataError, match="no frame from 2 to 6 can be decoded; the last says: frame 5 is damaged"):
        show(stack, Torn(12, range(2, 6)), range(2, 6))


def test_a_start_that_the_robot_does_not_keep_is_told(model):
    class Stuck(SampleRecording):
        def __init__(self) -> None:
            super().__init__(30)
            self.T_odom_base = self.T_odom_base.copy()
            self.T_odom_base[:, 0, 3] = np.nan

    window = choose_windows([("drive", SampleRecording(30))], ProtocolSettings(model.context_frames, 4), 1)[0]
    with pytest.raises(DataError, match=r"no frame to start from \(non_finite\)"):
        Replay(NavStack(model, open_loop(SETTINGS))).at(replace(window, recording=Stuck()))


def test_without_a_model_images_are_compared_as_the_camera_took_them():
    drives = drive_worlds(range(10003, 10004), 4.0, device="cpu")
    row = perfect_model_row(drives.places, SETTINGS, None)
    window = choose_windows(drives.recordings, ProtocolSettings(), 2)[1]
    plan = row.plan(window, window.generator())
    assert plan.trace is not None
    assert plan.cost <= min(float(step.costs.min()) for step in plan.trace.iterations) + 1e-9
    with pytest.raises(PlanningError, match="hand in an imaginer"):
        CameraModel(4.0).imaginer(None, 8.0)


def test_the_perfect_model_sees_what_the_recording_saw():
    """Rendered at the pose really driven, the view is the goal frame but for rounding to 8 bits."""
    drives = drive_worlds(range(10003, 10004), 4.0, device="cpu")
    for window in choose_windows(drives.recordings, ProtocolSettings(), 3):
        imaginer = RenderedImaginer(drives.places[window.recording_id], window.start, None)
        path = torch.from_numpy(window.driven_xyyaw)[None]
        view = imaginer.imagine(path, torch.Generator()).images[0]
        assert float((view - unit_image(window.goal_frame().rgb)).abs().mean()) < 0.01


def test_a_batch_imagines_each_window_as_if_it_were_alone(model):
    """All windows and horizons in one prediction, against the model's own calls, one window and target at a time."""
    protocol = ProtocolSettings(model.context_frames, 4)
    windows = quality_windows([("drive", SampleRecording(30))], protocol, (2, 4), 3)
    batch = read_batch(windows, images_of(model))
    assert batch.truth.shape[:2] == (3, 2)
    settings = NavigationSettings()
    together = batched_context(Replay(NavStack(model, settings)), batch)
    noise = torch.randn(6, *together.latents.shape[2:], generator=batch.generator())
    jumped, rolled = jump_row(model, settings).imagine(batch), rollout_row(model, settings).imagine(batch)
    draws = batch.generator()
    steps = [torch.randn(3, *together.latents.shape[2:], generator=draws) for _ in range(4)]
    for index, item in enumerate(windows):
        context = model.context_from_frames(batch.context[index], item.window.context_xyyaw)
        for k in range(2):
            alone = Given(noise[2 * index + k])
            pose = torch.from_numpy(item.poses_xyyaw[k : k + 1]).float()
            latents = alone.predict(model, context, pose, torch.tensor([float(item.rel_frames[k])]))
            torch.testing.assert_close(jumped[index, k], model.decode(latents)[0], atol=2e-4, rtol=0)
        alone = Given(*(step[index] for step in steps))
        latents = alone.rollout(model, context, torch.from_numpy(item.path_xyyaw[None]).float())
        torch.testing.assert_close(rolled[index], model.decode(latents[0, [1, 3]]), atol=2e-3, rtol=0)


class Given:
    """Predicts with given noise, one draw per call of the sampler."""

    def __init__(self, *noises) -> None:
        self.noises = list(noises)

    def _source(self, generator):
        def next_given(like):
            return self.noises.pop(0)[None].to(like)

        return next_given

    def predict(self, model, context, actions, times):
        from come_nav.world_model import prediction as module

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "noise_source", self._source)
            return model.predict(context, actions, times, torch.Generator())

    def rollout(self, model, context, path):
        from come_nav.world_model import prediction as module

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "noise_source", self._source)
            return model.rollout(context, path, torch.Generator())
