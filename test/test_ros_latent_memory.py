"""The node of the spatial memory where it is latents: what it saves, and what it keeps beside it."""

from __future__ import annotations

import types

import numpy as np
import pytest

pytest.importorskip("rclpy")

from come_nav.core.types import CameraIntrinsics
from come_nav.memory.spatial.settings import SpatialSettings
from come_nav.ros.nodes.spatial_memory_node import SpatialMemoryNode
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world


def test_the_node_remembers_the_latents_of_its_model() -> None:
    node = types.SimpleNamespace(values={"model": "tiny", "device": "cpu"})
    memory = SpatialMemoryNode._of_latents(node, SpatialSettings("latent"))
    world, camera = generate_world(10000), CameraIntrinsics.from_field_of_view(64, 64, np.pi / 2)
    drive = EpisodeRecording(simulate_episode(world, "tour", 2.0), Raycaster([world], camera), use_truth=True)
    memory.observe(drive.frame(0), drive.T_odom_base[0])
    assert memory.point_features.shape[1] == 32
    assert memory.state()["latent"]


def test_a_request_reaches_the_latents_and_the_colours_beside_them() -> None:
    cleared: list[str] = []

    def cloud(name: str) -> types.SimpleNamespace:
        return types.SimpleNamespace(clear=lambda: cleared.append(name))

    localisation = types.SimpleNamespace(reset=lambda: None)
    node = types.SimpleNamespace(_clouds=[cloud("colours"), cloud("latents")], _localisation=localisation)
    SpatialMemoryNode._obey(node, "reset")
    assert cleared == ["colours", "latents"]


def test_parameters_say_what_is_remembered() -> None:
    names = {parameter.name: parameter.default for parameter in SpatialMemoryNode.PARAMETERS}
    assert names["spatial.features"] == "rgb"
    assert names["spatial.latent.depth"] == "bilinear"
    assert names["model"] == "tiny"
