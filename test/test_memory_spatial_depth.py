"""Depth from images: triangulation in closed form, robust fits, and scale in a world whose depth is known."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError, MissingDependencyError, ShapeError
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics
from come_nav.memory.spatial.cloud import InsertResult, SpatialMemory
from come_nav.memory.spatial.depth import (
    OdometryScaledDepth,
    ScaleSettings,
    TransformersDepth,
    robust_line,
    weighted_median,
)
from come_nav.memory.spatial.triangulation import triangulate

CAMERA = CameraIntrinsics.from_field_of_view(160, 120, math.pi / 2)


def project(points: np.ndarray) -> np.ndarray:
    x, y = CAMERA.fx * points[:, 0] / points[:, 2] + CAMERA.cx, CAMERA.fy * points[:, 1] / points[:, 2] + CAMERA.cy
    return np.stack([x, y], axis=1)


def test_triangulated_depth_is_exact_and_bad_points_are_told_apart():
    rng = np.random.default_rng(0)
    then = rng.uniform([-2, -1, 2], [2, 1, 6], (50, 3))
    turn = se3.transform_from_xyyaw(np.array([0.0, 0.0, 0.1]))
    T_now_then = se3.make_transform(
        se3.R_BODY_OPTICAL.T @ turn[:3, :3] @ se3.R_BODY_OPTICAL, np.array([0.2, 0.05, -0.3])
    )
    now = se3.transform_points(T_now_then, then)
    seen_then, seen_now = project(then), project(now)
    inverse, sideways_m, error_px = triangulate(seen_then, seen_now, CAMERA, T_now_then)
    np.testing.assert_allclose(inverse, 1.0 / now[:, 2], rtol=1e-9)
    assert error_px.max() < 1e-9
    direction = then @ T_now_then[:3, :3].T / np.linalg.norm(then, axis=1, keepdims=True)
    expected = np.linalg.norm(np.cross(direction, T_now_then[:3, 3]), axis=1)
    np.testing.assert_allclose(sideways_m, expected, rtol=1e-9)
    noise = rng.normal(0, 0.5, (400, 50, 2))
    noisy = np.mean([triangulate(seen_then, seen_now + offset, CAMERA, T_now_then)[0] for offset in noise], axis=0)
    far = sideways_m > 0.05
    np.testing.assert_allclose(noisy[far], 1.0 / now[far, 2], atol=0.02)  # without bias, although 0.5 px is a lot here
    assert triangulate(seen_then, seen_then, CAMERA, np.eye(4))[1].max() < 1e-8, "no motion, no depth"
    assert triangulate(np.zeros((0, 2)), np.zeros((0, 2)), CAMERA, T_now_then)[0].shape == (0,)


def test_the_weighted_median():
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.ones(3)) == 2.0
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.array([5.0, 1.0, 1.0])) == 3.0


def test_the_robust_line_ignores_a_quarter_of_lies():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 5, 200)
    y = 0.3 * x + 0.1 + rng.normal(0, 0.005, 200)
    y[rng.choice(200, 40, replace=False)] += rng.uniform(2, 9, 40)
    slope, offset = robust_line(x, y)
    assert slope == pytest.approx(0.3, rel=0.05)
    assert offset == pytest.approx(0.1, abs=0.04)
    assert robust_line(np.ones(5), np.arange(5.0)) is None


@pytest.fixture(scope="module")
def drive():
    from come_nav.sim.episodes import EpisodeRecording, simulate_episode
    from come_nav.sim.raycaster import Raycaster
    from come_nav.sim.worlds import generate_world

    world = generate_world(10011)
    episode = simulate_episode(world, "tour", 6.0, seed=1)
    return EpisodeRecording(episode, Raycaster([world], CAMERA), use_truth=True)


class FakeNetwork:
    """Knows the true depth but gives it away only up to what a monocular network leaves open."""

    def __init__(self, recording, kind: str) -> None:
        self.kind = kind
        self.recording = recording
        self.index = 0

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        depth = self.recording.frame(self.index).depth_m
        return depth * 0.37 if self.kind == "depth" else (1.0 / depth - 0.05) / 0.02


@pytest.mark.parametrize("kind", ["depth", "disparity"])
def test_odometry_finds_the_scale_that_the_network_leaves_open(drive, kind):
    network = FakeNetwork(drive, kind)
    scaled = OdometryScaledDepth(network)
    memory = SpatialMemory(depth_source=scaled)
    verdicts = []
    for index in range(len(drive)):
        network.index = index
        seen = drive.frame(index)
        blind = type(seen)(seen.stamp_s, seen.rgb, None, seen.intrinsics, seen.T_base_camera)
        verdicts.append(memory.observe(blind, drive.poses_xyyaw[index]))
    assert verdicts[0] is InsertResult.NO_DEPTH, "one frame has no scale"
    assert verdicts[-1] is InsertResult.KEPT
    factor, offset = scaled.scale
    true_factor, true_offset = (1 / 0.37, 0.0) if kind == "depth" else (0.02, 0.05)
    assert factor == pytest.approx(true_factor, rel=0.06)
    assert offset == pytest.approx(true_offset, abs=0.03)
    depth = scaled(drive.frame(len(drive) - 1), se3.transform_from_xyyaw(drive.poses_xyyaw[-1]))
    truth = drive.frame(len(drive) - 1).depth_m
    assert np.nanmedian(np.abs(depth / truth - 1.0)) < 0.06


def test_a_source_of_another_size_is_refused(drive):
    network = FakeNetwork(drive, "depth")
    network.__class__ = type("Small", (FakeNetwork,), {"__call__": lambda self, rgb: np.ones((4, 4))})
    with pytest.raises(ShapeError, match=r"must return \(120, 160\), it returned \(4, 4\)"):
        OdometryScaledDepth(network)(drive.frame(0), np.eye(4))


def test_without_the_library_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'come_nav\[perceptual\]'") as error:
        TransformersDepth("some/model")
    assert "\n" not in str(error.value)


def test_the_adapter_hands_over_images_and_resizes_predictions(monkeypatch):
    asked = {}

    class Library:
        @staticmethod
        def pipeline(task, model, device):
            asked.update(task=task, model=model, device=device)
            if model == "absent":
                raise OSError("absent is not a local folder\nand not on the hub")
            return lambda image: {"predicted_depth": torch.full((1, image.height // 2, image.width // 2), 3.0)}

    monkeypatch.setitem(sys.modules, "transformers", Library)
    source = TransformersDepth("folder", "depth")
    assert asked == {"task": "depth-estimation", "model": "folder", "device": "cpu"}
    assert source(np.zeros((12, 16, 3), np.uint8)).tolist() == np.full((12, 16), 3.0).tolist()
    with pytest.raises(ConfigError, match=r"^depth model 'absent' cannot be loaded \(absent is not a local folder\)"):
        TransformersDepth("absent")


@pytest.mark.parametrize("wrong", [{"min_points": 3}, {"window": 5}, {"min_baseline_m": 0.0}])
def test_impossible_settings_name_the_field(wrong):
    with pytest.raises(ConfigError, match=f"scale.{next(iter(wrong))}"):
        ScaleSettings(**wrong)
