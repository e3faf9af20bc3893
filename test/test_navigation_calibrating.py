"""Weights that follow what came true: which knowledge a test uses, what it counts, and what the weights come to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_samples import small_model

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics, Context, Frame, Odometry
from come_nav.memory.short_term import Remembered, ShortTermSettings
from come_nav.memory.spatial.cloud import InsertResult, SpatialMemory, snapshot_of
from come_nav.navigation.calibrating.online import Moment, OnlineCalibration
from come_nav.navigation.calibrating.settings import CalibrationSettings
from come_nav.navigation.loading import load_configured_model
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
from come_nav.navigation.stack import NavStack
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world
from come_nav.world_model.calibration.contrasts import Contrasts

SETTINGS = CalibrationSettings(use=True, period_s=1.0, horizons_s=(1.0, 1.0), prior_frames=2.0, half_life_frames=10.0)
NAMES = ("base", "spatial")


class Said:
    """Stands for what the experts say: ``right`` of the contrast of the memory is the truth, the rest is noise."""

    def __init__(self, right: float, seed: int = 0) -> None:
        self.right, self.generator = right, torch.Generator().manual_seed(seed)

    def contrasts(self) -> Contrasts:
        draw = lambda: torch.randn(1, 4, 3, 3, generator=self.generator)  # noqa: E731
        free, base, memory = draw(), draw(), draw()
        clean = free + base + self.right * memory + 0.1 * draw()
        without = torch.stack([free, free])
        return Contrasts(NAMES, clean, without + torch.stack([base, memory]), without)


def frame_at(stamp_s: float) -> Remembered:
    frame = Frame(stamp_s, np.zeros((2, 2, 3), np.uint8), None, None)
    return Remembered(stamp_s, np.array([stamp_s, 0.0, 0.0]), frame, torch.zeros(4, 3, 3))


def moment_at(stamp_s: float) -> Moment:
    context = Context(torch.zeros(1, 1, 4, 3, 3), torch.zeros(1, 1, 3), torch.zeros(1, 1))
    return Moment(stamp_s, np.array([stamp_s, 0.0, 0.0]), context, None)  # type: ignore[arg-type]  # tests of what is asked when need no model


def taught(right: float, tests: int, settings: CalibrationSettings = SETTINGS) -> OnlineCalibration:
    calibration, said = OnlineCalibration(settings, {"base": 1.0, "spatial": 1.0}), Said(right)
    for number in range(tests):
        calibration._take(said.contrasts(), float(number), 1.0, 1.0)
    return calibration


def test_weights_go_to_what_is_right_and_begin_at_those_that_are_set() -> None:
    assert OnlineCalibration(SETTINGS, {"base": 1.0, "spatial": 1.0}).weights == {}
    for right in (0.3, 0.0, 1.7):
        weights = taught(right, 60).weights[1.0]
        assert weights["base"] == pytest.approx(1.0, abs=0.05)
        # ten frames of half life are 14.9 in all; the prior's two draw by 2 / 16.9 of the way
        assert weights["spatial"] == pytest.approx(right + (1.0 - right) * 2.0 / 16.9, abs=0.05)
    first = taught(0.0, 1)
    assert first.tests[0].weights == {"base": 1.0, "spatial": 1.0}  # before the frame came
    assert first.tests[0].prior == first.tests[0].calibrated


def test_errors_are_counted_before_the_frame_teaches_and_fall() -> None:
    tests = list(taught(0.0, 40).tests)
    late = tests[20:]
    assert np.mean([own.calibrated for own in late]) < 0.2 * np.mean([own.prior for own in late])
    weights = np.array([tests[5].weights[name] for name in NAMES])
    again = Said(0.0)
    for _ in range(5):
        again.contrasts()
    said = again.contrasts()
    predicted = said.free + torch.einsum("k,kbchw->bchw", torch.from_numpy(weights).float(), said.contrasts)
    assert tests[5].calibrated == pytest.approx(float(((said.clean - predicted) ** 2).mean()), rel=1e-4)


def test_old_tests_fade() -> None:
    calibration, wrong, right = OnlineCalibration(SETTINGS, {"base": 1.0, "spatial": 1.0}), Said(0.0), Said(1.0, 1)
    for own in [wrong] * 40 + [right] * 40:
        calibration._take(own.contrasts(), 0.0, 1.0, 1.0)
    assert calibration.weights[1.0]["spatial"] > 0.9


def test_an_expert_that_comes_begins_anew() -> None:
    calibration = taught(0.0, 20)
    said = Said(0.0).contrasts()
    alone = Contrasts(("base",), said.clean, said.with_memory[:1], said.without[:1])
    calibration._take(alone, 30.0, 1.0, 1.0)
    assert set(calibration.weights[1.0]) == {"base"}


def test_a_test_is_answered_by_the_first_frame_that_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    calibration, asked, answered = OnlineCalibration(SETTINGS, {"base": 1.0}), [], []
    monkeypatch.setattr(calibration, "_test", lambda before, seen: answered.append((before.stamp_s, seen.stamp_s)))
    for stamp_s in (0.0, 0.5, 1.0, 1.25, 1.5, 2.0, 2.25, 9.0, 9.25, 10.25):

        def now(stamp_s: float = stamp_s) -> Moment:
            asked.append(stamp_s)
            return moment_at(stamp_s)

        calibration.observe(frame_at(stamp_s), now)
    # the frame at 9.0 comes too late for what was asked at 2.0, and asks again
    assert answered == [(0.0, 1.0), (1.0, 2.0), (9.0, 10.25)]
    assert asked == [0.0, 1.0, 2.0, 9.0, 10.25]


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="horizons_s must satisfy 0 < low <= high, got 3, 1"):
        CalibrationSettings(horizons_s=(3.0, 1.0))
    with pytest.raises(ConfigError, match=r"levels must lie in \[0, 1\]"):
        CalibrationSettings(levels=(1.5,))
    with pytest.raises(ConfigError, match="least_exponent"):
        CalibrationSettings(least_exponent=0.6)


def test_a_snapshot_of_a_cloud_shows_what_it_showed() -> None:
    camera, pose = CameraIntrinsics(8, 8, 8.0, 8.0, 4.0, 4.0), np.eye(4)
    T_base_camera = se3.make_transform(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.zeros(3))
    red = Frame(0.0, np.full((8, 8, 3), (255, 0, 0), np.uint8), np.full((8, 8), 2.0, np.float32), camera, T_base_camera)
    memory = SpatialMemory()
    memory.observe(red, pose)
    kept, at = snapshot_of(memory), torch.zeros(1, 3)
    before = kept.render(at, camera, T_base_camera).image.clone()
    blue = Frame(
        1.0, np.full((8, 8, 3), (0, 0, 255), np.uint8), np.full((8, 8), 1.0, np.float32), camera, T_base_camera
    )
    assert memory.observe(blue, pose) is InsertResult.KEPT
    assert torch.equal(kept.render(at, camera, T_base_camera).image, before)
    assert not torch.equal(memory.render(at, camera, T_base_camera).image, before)


@pytest.fixture(scope="module")
def drive() -> EpisodeRecording:
    world = generate_world(10000)
    camera = CameraIntrinsics.from_field_of_view(64, 64, 1.5)
    return EpisodeRecording(simulate_episode(world, "tour", 10.0, 4.0, 1), Raycaster([world], camera), use_truth=True)


def test_a_robot_weighs_its_experts_by_what_it_saw(drive) -> None:
    experts = ExpertsSettings(calibration=CalibrationSettings(use=True, period_s=0.5, horizons_s=(1.0, 1.5)))
    settings = NavigationSettings(experts=experts, memory=ShortTermSettings(tolerance=0.5))
    stack = NavStack(load_configured_model(settings), settings, background_training=False)
    for index in range(len(drive)):
        stack.observe(drive.frame(index), Odometry(float(drive.stamps_s[index]), drive.T_odom_base[index]))
    tests = list(stack.calibration.tests)
    assert len(tests) >= 4
    assert set(tests[-1].weights) == {"base", "short_term", "spatial"}
    assert all(1.0 <= own.ahead_s <= 1.9 for own in tests)
    model, _ = stack.episode.model()
    weights = stack.episode.calibrated[1.0]
    counted = dict(zip(model.experts, model.composition.at(1.0).weights, strict=True))  # type: ignore[attr-defined]
    assert counted == pytest.approx({name: weights[name] for name in counted})
    assert weights["short_term"] == 0.0 or "short_term" in counted  # one that turns out to help joins in
    report = stack.calibration.report()
    assert set(report) == {"calibration", "weight base", "weight short_term", "weight spatial"}
    assert f"{len(tests)} tests" in report["calibration"]
    assert "(set 1.00, alone " in report["weight spatial"]
    stack.reset()
    assert stack.episode.calibrated == {}
    assert stack.calibration.report() == {}
    assert not stack.calibration.tests


def test_a_model_of_a_base_alone_is_tested_on_that(tmp_path, drive) -> None:
    experts = ExpertsSettings(calibration=CalibrationSettings(use=True, period_s=0.5, horizons_s=(1.0, 1.5)))
    short = ShortTermSettings(tolerance=0.5)
    settings = NavigationSettings(model=str(small_model(tmp_path / "small")), experts=experts, memory=short)
    stack = NavStack(load_configured_model(settings), settings, background_training=False)
    for index in range(20):
        stack.observe(drive.frame(index), Odometry(float(drive.stamps_s[index]), drive.T_odom_base[index]))
    assert {tuple(own.weights) for own in stack.calibration.tests} == {("base",)}
    model, _ = stack.episode.model()
    assert model.composition.weights == (1.0,)  # type: ignore[attr-defined]
