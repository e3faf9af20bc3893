"""Features of a network in a TorchScript file: matched, registered with, refused where the file is something else."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from come_nav.core.errors import CheckpointError, ConfigError
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.features import FeatureSettings, extract_features
from come_nav.localisation.learned.features_file import unit_vectors
from come_nav.localisation.matching import match_features
from come_nav.localisation.place_recognition import PlaceIndex
from come_nav.localisation.registration import register
from come_nav.localisation.view import make_view

CAMERA = CameraIntrinsics(160, 120, 150.0, 150.0, 80.0, 60.0)


class Patches(nn.Module):
    """Blobs of an image, described by the patch around them."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        small, large = functional.avg_pool2d(image, 3, 1, 1), functional.avg_pool2d(image, 9, 1, 4)
        response = (small - large).abs()
        peaks = (response == functional.max_pool2d(response, 7, 1, 3)) & (response > 0.02)
        peaks[:, :, :8], peaks[:, :, -8:], peaks[:, :, :, :8], peaks[:, :, :, -8:] = False, False, False, False
        place = peaks[0, 0].nonzero()
        patches = functional.unfold(small, 11, padding=5)[0].T
        chosen = patches[place[:, 0] * image.shape[3] + place[:, 1]]
        chosen = functional.normalize(chosen - chosen.mean(dim=1, keepdim=True), dim=1)
        return place.flip(1).float(), response[0, 0][place[:, 0], place[:, 1]], chosen


class Pair(nn.Module):
    """Returns too little."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return image, image


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> FeatureSettings:
    path = tmp_path_factory.mktemp("features") / "patches.pt"
    torch.jit.script(Patches()).save(str(path))
    return FeatureSettings(kind="learned", file=str(path))


def scene(shift_px: int = 0) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (30, 60)).astype(np.uint8)
    wide = cv2.resize(noise, (240, 120), interpolation=cv2.INTER_CUBIC)
    return np.repeat(wide[:, 20 + shift_px : 180 + shift_px, None], 3, axis=2)


def test_keypoints_move_with_the_image_and_match(settings):
    a, b = extract_features(scene(), settings), extract_features(scene(6), settings)
    assert len(a) > 30
    pairs = match_features(a, b)
    assert len(pairs) > 0.7 * len(a)
    moved = a.keypoints_px[pairs[:, 0]] - b.keypoints_px[pairs[:, 1]]
    np.testing.assert_allclose(np.median(moved, axis=0), [6.0, 0.0], atol=1e-4)
    assert (np.abs(moved - [6.0, 0.0]).max(axis=1) < 0.5).mean() > 0.95


def test_stored_descriptors_keep_their_direction():
    vectors = np.random.default_rng(1).normal(size=(50, 64)).astype(np.float32)
    from come_nav.localisation.learned.features_file import _compact

    exact = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.einsum("nd,nd->n", unit_vectors(_compact(vectors)), exact).min() > 0.999
    np.testing.assert_array_equal(unit_vectors(_compact(np.zeros((1, 4), np.float32))), np.zeros((1, 4)))


def test_images_register_and_places_are_told_apart(settings):
    depth = np.full((120, 160), 2.0, np.float32)
    a, b = (make_view(scene(shift), CAMERA, depth, settings) for shift in (0, 6))
    found = register(a, b)
    assert found.ok
    np.testing.assert_allclose(found.T_a_b[:3, 3], [6.0 / 150.0 * 2.0, 0.0, 0.0], atol=0.01)
    index = PlaceIndex()
    index.add(a.features)
    assert len(index) == 1


def test_larger_images_are_searched_smaller_and_keypoints_stay_in_their_pixels(settings):
    image = cv2.resize(scene(), (1280, 960), interpolation=cv2.INTER_CUBIC)
    found = extract_features(image, settings)
    assert (found.width, found.height) == (1280, 960)
    assert found.keypoints_px[:, 0].max() > 800
    assert math.isclose(float(found.sizes_px[0]), 16.0)


def test_features_of_two_files_are_not_matched(settings, tmp_path):
    other = tmp_path / "other.pt"
    torch.jit.script(nn.Sequential(Patches())).save(str(other))
    theirs = extract_features(scene(), FeatureSettings(kind="learned", file=str(other)))
    with pytest.raises(Exception, match="cannot be matched"):
        match_features(extract_features(scene(), settings), theirs)


def test_what_is_no_network_of_features_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"learned needs features\.file"):
        FeatureSettings(kind="learned")
    with pytest.raises(ConfigError, match="no other kind has one"):
        FeatureSettings(file="x.pt")
    with pytest.raises(CheckpointError, match="no such file"):
        extract_features(scene(), FeatureSettings(kind="learned", file=str(tmp_path / "absent.pt")))
    text = tmp_path / "text.pt"
    text.write_text("no network")
    with pytest.raises(CheckpointError, match="no TorchScript file"):
        extract_features(scene(), FeatureSettings(kind="learned", file=str(text)))
    pair = tmp_path / "pair.pt"
    torch.jit.script(Pair()).save(str(pair))
    with pytest.raises(CheckpointError, match="returns 2 values"):
        extract_features(scene(), FeatureSettings(kind="learned", file=str(pair)))
