"""Features in which sets of images are compared: of one shipped network, whatever the size and number of images."""

from __future__ import annotations

import torch

from come_nav.core.resources import find_resource
from come_nav.evaluation.suites.set_features import IMAGES_PER_CALL, features_of, reference_features
from come_nav.world_model.model import DiffusionWorldModel


def test_they_are_those_of_the_shipped_depth_network_for_images_of_its_size():
    model = DiffusionWorldModel.load(find_resource("models", "tiny"))
    images = torch.rand(IMAGES_PER_CALL + 3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        wanted = torch.cat([model.depth.features(part) for part in images.split(IMAGES_PER_CALL)])
    found = reference_features()(images)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert not found.requires_grad
    torch.testing.assert_close(
        reference_features()(images[:1] + 5.0), features_of(model.depth, 64)(torch.ones(1, 3, 64, 64))
    )


def test_larger_images_are_brought_to_its_size():
    features = reference_features()
    small = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plain, large = (small.repeat_interleave(factor, 2).repeat_interleave(factor, 3) for factor in (4, 16))
    assert features(large).shape == features(plain).shape
    error = (features(large) - features(plain)).norm() / (features(plain[:1]) - features(plain[1:])).norm()
    assert float(error) < 0.15
