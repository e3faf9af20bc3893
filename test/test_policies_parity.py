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


@pytest.fixture
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def close(got, wanted):
    torch.testing.assert_close(got.double(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", DIRECT)
@torch.no_grad()
def test_gnm_and_vint_answer_as_the_official_code(name):
    network, official = fill(DIRECT[name]()), OFFICIAL[name]
    assert parameters(network) == official["parameters"]
    assert layout_sha256(network.state_dict()) == official["layout"]
    distance, waypoints = network(images(2, 6, 64, 85, "seen"), images(2, 1, 64, 85, "goal"))
    close(distance, official["distance"])
    close(waypoints, official["waypoints"])


@torch.no_grad()
def test_nomad_answers_as_the_official_code():
    network, official = fill(NoMaD(published("nomad"))), OFFICIAL["nomad"]
    assert parameters(network) == official["parameters"]
    assert parameters(network.vision_encoder) == official["encoder_parameters"]
    assert layout_sha256(network.state_dict()) == official["layout"]
    masked = torch.tensor([False, True])
    condition = network.vision_encoder(images(2, 4, 96, 96, "seen"), images(2, 1, 96, 96, "goal"), masked)
    close(condition, official["condition"])
    close(network.dist_pred_net(condition), official["distance"])
    eight = condition.repeat_interleave(4, dim=0)
    close(network.noise_pred_net(images(1, 4, 8, 2, "noise")[0, :8], torch.arange(8), eight), official["noise"])


@torch.no_grad()
def test_nomad_draws_the_waypoints_that_the_official_code_draws(in_float64):
    """In double precision: ten steps of diffusion through scattered weights blow rounding errors up."""
    network = fill(NoMaD(published("nomad"))).double()
    seen, goal = images(2, 4, 96, 96, "seen").double(), images(2, 1, 96, 96, "goal").double()
    condition = network.vision_encoder(seen, goal, torch.tensor([False, True]))
    steps = sample_steps(network, condition.repeat_interleave(4, dim=0), torch.Generator().manual_seed(7))
    close(steps_to_waypoints(steps), OFFICIAL["nomad"]["waypoints"])
    close(waypoints_to_steps(steps_to_waypoints(steps)), steps.tolist())


def test_published_parameter_counts():
    assert round(OFFICIAL["vint"]["parameters"] / 1e6, 2) == 29.66
    assert round(OFFICIAL["nomad"]["encoder_parameters"] / 1e6, 2) == 15.18
