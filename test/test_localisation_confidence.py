"""How sure it is that an image was taken where a key frame says: features and the colours of all surfaces."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.keyframe_map import LocaliserSettings
from come_nav.localisation.localiser import VisualLocaliser
from come_nav.localisation.multi_view.appearance import KEYFRAME_WEIGHTS, appearance, keyframe_confidence, rivalled
from come_nav.localisation.verification import Evidence
from come_nav.localisation.view import make_view, thumbnail
from come_nav.sim.builtin import BuiltInSimulator
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.chain import to_uint8
from come_nav.sim.sensors.mounting import camera_in_base
from come_nav.sim.worlds import generate_world

CAMERA = CameraIntrinsics.from_field_of_view(320, 240, 0.5 * math.pi)
EXTRINSICS = camera_in_base(0.5)
MOVED = np.array([0.25, 0.1, 0.3])
STRONG = Evidence(60, 0.6, 0.4, 0.8, float("nan"))


@pytest.fixture(scope="module")
def pair():
    """Return a view with depth, one without, and the true pose (4, 4) of the second's optical frame in the first's."""
    raycaster = Raycaster([generate_world(10001)], CAMERA)
    start = BuiltInSimulator.in_world(raycaster.worlds[0], seed=3).pose_world_xyyaw
    images, depth = raycaster.render(torch.from_numpy(np.stack([start, se2.compose(start, MOVED)])))
    a, b = to_uint8(images)
    T_a_b = se3.inverse(EXTRINSICS) @ se3.transform_from_xyyaw(MOVED) @ EXTRINSICS
    return make_view(a, CAMERA, depth[0].numpy()), make_view(b, CAMERA), T_a_b, (a, depth[0].numpy(), b)


def test_colours_agree_at_the_right_pose_alone(pair) -> None:
    known, image, T_a_b, _ = pair
    right = appearance(known, T_a_b, image)
    assert right > 0.95
    for wrong in ([1.0, 0.0, 0.0], [0.0, 0.8, 0.0], [0.0, 0.0, 0.5], [0.0, 0.0, -1.0]):
        there = T_a_b @ se3.inverse(EXTRINSICS) @ se3.transform_from_xyyaw(np.array(wrong)) @ EXTRINSICS
        other = appearance(known, there, image)
        if np.isfinite(other):
            assert other < right - 0.05, wrong
            assert keyframe_confidence(STRONG, other) < keyframe_confidence(STRONG, right)
    assert keyframe_confidence(STRONG, right) > 0.975


def test_a_registration_one_tile_off_has_a_rival(pair) -> None:
    known, image, T_a_b, (a, _, _) = pair
    assert not rivalled(known, T_a_b, image)
    for metres in (-0.75, 0.75):  # along the view; what is right lies among the places that are tried
        there = T_a_b @ se3.make_transform(np.eye(3), np.array([0.0, 0.0, metres]))
        assert rivalled(known, there, image)
    assert not rivalled(make_view(a, CAMERA), T_a_b, image)  # without depth nothing is said


def test_exposure_does_not_count(pair) -> None:
    known, image, T_a_b, (_, _, rgb) = pair
    darker = replace(image, thumbnail_rgb=thumbnail((0.5 * rgb + 20.0).astype(np.uint8)))
    assert appearance(known, T_a_b, darker) == pytest.approx(appearance(known, T_a_b, image), abs=0.01)


def test_without_depth_or_shared_surfaces_features_alone_count(pair) -> None:
    known, image, T_a_b, (a, _, _) = pair
    assert np.isnan(appearance(make_view(a, CAMERA), T_a_b, image))
    behind = se3.inverse(EXTRINSICS) @ se3.transform_from_xyyaw(np.array([0.0, 0.0, math.pi])) @ EXTRINSICS
    assert np.isnan(appearance(known, behind, image))
    assert keyframe_confidence(STRONG, float("nan")) == STRONG.confidence


def test_confidence_is_the_regression_over_correlation_and_inlier_ratio() -> None:
    correlation = 0.8
    odds = np.dot([1.0, correlation, 0.5 * math.log(1.8 / 0.2), 0.6], KEYFRAME_WEIGHTS)
    assert keyframe_confidence(STRONG, correlation) == pytest.approx(1.0 / (1.0 + math.exp(-odds)))
    rising = [keyframe_confidence(STRONG, value) for value in np.linspace(-1.0, 1.0, 21)]
    assert np.all(np.diff(rising) >= 0.0)
    assert np.isfinite(rising).all()


def test_an_image_is_certain_by_its_colours_and_not_where_they_differ(pair) -> None:
    """The same features, but the walls around them have other colours: an equal poster elsewhere."""
    _, _, _, (a, depth_m, b) = pair
    from come_nav.core.types import Frame

    localiser = VisualLocaliser(LocaliserSettings(closures=0))
    localiser.observe(Frame(0.0, a, depth_m, CAMERA, EXTRINSICS), np.eye(4))
    found = localiser.relocalise(b, CAMERA)
    assert found.by_colours
    assert found.certain
    assert np.abs(se2.relative(MOVED, found.pose_map_xyyaw)).max() < 0.03
    view = localiser.keyframes[0].view
    painted = np.random.default_rng(0).integers(0, 255, (3, 4, 3)).repeat(20, 0).repeat(20, 1).astype(np.uint8)
    localiser.keyframes[0] = replace(localiser.keyframes[0], view=replace(view, thumbnail_rgb=painted))
    other = localiser.relocalise(b, CAMERA)
    assert other.registration is not None and other.registration.ok
    assert not other.certain
    with_depth = localiser.relocalise(a, CAMERA, depth_m)
    assert not with_depth.by_colours, "surfaces measured in both tell more"
