"""GNM, ViNT and NoMaD against the numbers of the authors' own code (github.com/robodhruv/visualnav-transformer, MIT).

``policy_parity.json`` holds what commit dca7981 answers with efficientnet_pytorch 0.7.1, torchvision's MobileNetV2 and
the U-Net of real-stanford/diffusion_policy when every tensor and image is filled by ``policy_samples``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from policy_samples import fill, images, layout_sha256

from come_nav.policies.networks.gnm import GNM
from come_nav.policies.networks.nomad import NoMaD
from come_nav.policies.networks.vint import ViNT
from come_nav.policies.sampling import sample_steps, steps_to_waypoints, waypoints_to_steps
from come_nav.policies.settings import published

OFFICIAL = json.loads((Path(__file__).parent / "policy_parity.json").read_text(encoding="utf-8"))
DIRECT = {
    "gnm": lambda: GNM(published("gnm")),
    "vint": lambda: ViNT(published("vint")),
    "vint_late_fusion": lambda: ViNT(published("vint", late_fusion=True)),
}


@pytest.fixture(autouse=True)
def in_float64():
    """Double precision: scattered weights blow rounding errors up, and those differ from machine to machine."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def filled(make):
    torch.set_default_dtype(torch.float32)
    network = fill(make())
    torch.set_default_dtype(torch.float64)
    return network.double()


def seen(count, height, width):
    return images(2, count, height, width, "seen").double(), images(2, 1, height, width, "goal").double()


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def close(got, wanted):
    """Agree to 1e-5, the parity that is promised.

    Sines that scatter the weights differ by their last bit from processor to processor: 5e-6 after a chain of
    denoising, 2e-7 without one, between two of them.
    """
    torch.testing.assert_close(got, torch.tensor(wanted), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", DIRECT)
@torch.no_grad()
def test_gnm_and_vint_answer_as_the_official_code(name):
    network, official = filled(DIRECT[name]), OFFICIAL[name]
    assert parameters(network) == official["parameters"]
    assert layout_sha256(network.state_dict()) == official["layout"]
    distance, waypoints = network(*seen(6, 64, 85))
    close(distance, official["distance"])
    close(waypoints, official["waypoints"])


@torch.no_grad()
def test_nomad_answers_as_the_official_code():
    network, official = filled(lambda: NoMaD(published("nomad"))), OFFICIAL["nomad"]
    assert parameters(network) == official["parameters"]
    assert parameters(network.vision_encoder) == official["encoder_parameters"]
    assert layout_sha256(network.state_dict()) == official["layout"]
    condition = network.vision_encoder(*seen(4, 96, 96), torch.tensor([False, True]))
    close(condition, official["condition"])
    close(network.dist_pred_net(condition), official["distance"])
    eight = condition.repeat_interleave(4, dim=0)
    noisy = images(1, 4, 8, 2, "noise")[0, :8].double()
    close(network.noise_pred_net(noisy, torch.arange(8), eight), official["noise"])
    steps = sample_steps(network, eight, torch.Generator().manual_seed(7))
    close(steps_to_waypoints(steps), official["waypoints"])
    close(waypoints_to_steps(steps_to_waypoints(steps)), steps.tolist())


def test_published_parameter_counts():
    assert round(OFFICIAL["vint"]["parameters"] / 1e6, 2) == 29.66
    assert round(OFFICIAL["nomad"]["encoder_parameters"] / 1e6, 2) == 15.18
