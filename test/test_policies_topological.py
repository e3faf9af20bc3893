"""Topological maps: folders of numbered images, written and read; localisation as navigate.py's, on a toy policy."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from data_samples import SampleRecording
from PIL import Image
from policy_samples import fill
from test_navigation_stack import ImageModel, image_of, observe

from come_nav.cli.main import main
from come_nav.core.errors import ConfigError, DataError, StorageError
from come_nav.core.types import PlanStatus
from come_nav.data.nwm.folder import write_nwm_folder
from come_nav.data.topological_map import poses_file, read_topological_map, write_topological_map
from come_nav.localisation.place_recognition import RecognisedImages
from come_nav.memory.keyframes import Keyframes
from come_nav.memory.store.store import MemoryStore
from come_nav.navigation.settings import NavigationSettings
from come_nav.navigation.stack import NavStack
from come_nav.navigation.topological import MapFollower
from come_nav.planning.objectives import Clearance
from come_nav.planning.settings import PlannerSettings
from come_nav.policies.model import LearnedPolicy, make_network
from come_nav.policies.settings import published
from come_nav.policies.topological import TopologicalLocaliser, TopologicalSettings


class Counting:
    """Takes an image of grey g for the place g frames along the way."""

    name, frames = "counting", 1

    def __init__(self):
        self.asked = []

    def distances_frames(self, context, goals):
        here = float(context[-1].mean())
        places = [float(goal.mean()) for goal in goals]
        self.asked.append(places)
        return np.abs(np.array(places) - here)


def grey(value):
    return np.full((4, 4, 3), value, np.uint8)


def official(distances, start, goal_node, threshold):
    """What navigate.py computes for NoMaD (commit dca7981, lines 199 to 212), in its own words."""
    min_idx = int(np.argmin(distances))
    closest_node = min_idx + start
    sg_idx = min(min_idx + int(distances[min_idx] < threshold), len(distances) - 1)
    return closest_node, start + sg_idx, closest_node == goal_node


@pytest.mark.parametrize("goal", [-1, 9])
def test_localisation_is_the_official_one_along_a_way(goal):
    images = [grey(8 * node) for node in range(14)]
    policy = Counting()
    localiser = TopologicalLocaliser(policy, images, goal)
    goal_node = 13 if goal == -1 else goal
    closest = 0
    for place in range(0, 8 * goal_node + 3, 5):
        start, end = max(closest - 4, 0), min(closest + 4 + 1, goal_node)
        distances = np.abs(np.array([8.0 * node for node in range(start, end + 1)]) - place)
        wanted = official(distances, start, goal_node, 3)
        found = localiser.update([grey(place)])
        assert (found.node, found.subgoal, found.reached) == wanted
        assert policy.asked[-1] == [8.0 * node for node in range(start, end + 1)]
        closest = wanted[0]
    assert found.reached


def test_a_wider_radius_and_another_start_are_looked_at():
    policy = Counting()
    localiser = TopologicalLocaliser(policy, [grey(8 * n) for n in range(14)], settings=TopologicalSettings(2), start=6)
    assert localiser.update([grey(48)]).node == 6
    assert policy.asked == [[32.0, 40.0, 48.0, 56.0, 64.0, 72.0]]
    with pytest.raises(ConfigError, match="0 to 2"):
        TopologicalLocaliser(policy, [grey(1)] * 3, goal=3)
    with pytest.raises(ConfigError, match="start"):
        TopologicalLocaliser(policy, [grey(1)] * 3, start=-1)


def test_recognition_tells_nodes_by_their_looks_whatever_their_order():
    rng = np.random.default_rng(1)
    walls = [cv2.resize(rng.integers(0, 256, (30, 60, 3), dtype=np.uint8), (360, 180)) for _ in range(6)]
    recognised = RecognisedImages([wall[:, 40:280] for wall in walls])
    for node in (4, 0, 3):
        found, similarity = recognised.most_similar(walls[node][:, 60:300])
        assert found == node
        assert 0.3 < similarity <= 1.0
    assert recognised.most_similar(grey(3)) == (None, 0.0)
    assert RecognisedImages([]).most_similar(walls[0]) == (None, 0.0)


def test_a_map_is_followed_by_the_policy_alone_and_by_the_search(tmp_path):
    settings = published("nomad", context_size=1, encoding_size=16, heads=2, layers=1, ff_factor=1, down_dims=(8, 16))
    LearnedPolicy(fill(make_network(settings))).save(tmp_path / "nomad")
    search = PlannerSettings(proposals=str(tmp_path / "nomad"), samples=6, initial_samples=12, iterations=1, elites=3)
    stack = NavStack(ImageModel(), NavigationSettings(planner=search, device="cpu"))
    nodes = [image_of([0.3 * node, 0.0]) for node in range(8)]
    alone, searching = MapFollower(stack, nodes), MapFollower(stack, nodes, searches=True)
    assert alone.plan().status is PlanStatus.NO_CONTEXT
    assert not alone.reached
    observe(stack, 6)
    tried = {}
    for name, follower in {"alone": alone, "search": searching}.items():
        plan = follower.plan()
        assert plan.status is PlanStatus.OK
        assert plan.poses_xyyaw.shape == (search.horizon_steps, 3)
        assert 0 <= follower.located.node <= follower.located.subgoal < len(nodes)
        tried[name] = 0 if plan.trace is None else len(plan.trace.iterations[0].costs)
    assert tried["alone"] == 0
    assert tried["search"] >= search.initial_samples + search.proposed_paths
    assert alone.plan(now_s=100.0).status is PlanStatus.STALE_SENSOR
    around = torch.tensor([[np.cos(a), np.sin(a)] for a in np.linspace(0, 2 * np.pi, 60)], dtype=torch.float32)
    assert alone.plan(clearance=Clearance(0.25 * around, 0.24, 0.1)).status is PlanStatus.ALL_IN_COLLISION
    stack.close()
    with pytest.raises(ConfigError, match=r"planner\.proposals"):
        MapFollower(NavStack(ImageModel(), NavigationSettings(device="cpu")), nodes)


def test_a_map_is_written_each_second_and_read_back(tmp_path):
    recording = SampleRecording(21)
    made = write_topological_map(recording, tmp_path / "map", 1.0)
    stamps = np.asarray(recording.stamps_s)
    wanted = [0]
    for due in np.arange(stamps[0] + 1.0, stamps[-1] + 1e-6, 1.0):
        wanted.append(int(np.flatnonzero(stamps >= due - 1e-6)[0]))
    assert [path.name for path in made.files] == [f"{node}.png" for node in range(len(wanted))]
    for node, index in enumerate(wanted):
        np.testing.assert_array_equal(made.image(node), recording.frame(index).rgb)
    np.testing.assert_array_equal(made.stamps_s, stamps[wanted])
    np.testing.assert_array_equal(made.poses_xyyaw, np.asarray(recording.poses_xyyaw)[wanted])
    assert {path.suffix for path in (tmp_path / "map").iterdir()} == {".png"}  # their tools read every file there
    with pytest.raises(StorageError, match="--overwrite"):
        write_topological_map(recording, tmp_path / "map", 2.0)
    fewer = write_topological_map(recording, tmp_path / "map", 2.0, overwrite=True)
    assert len(fewer) < len(made)


def test_numbers_are_numbers_and_mistakes_are_one_line(tmp_path):
    for node in (0, 2, 10):
        Image.fromarray(grey(node)).save(tmp_path / f"{node}.png")
    found = read_topological_map(tmp_path)
    assert [int(image.mean()) for image in found.images()] == [0, 2, 10]
    assert found.poses_xyyaw is None
    (tmp_path / "2.jpg").write_bytes((tmp_path / "2.png").read_bytes())
    with pytest.raises(DataError, match="two images of one number"):
        read_topological_map(tmp_path)
    (tmp_path / "2.jpg").rename(tmp_path / "two.jpg")
    with pytest.raises(DataError, match=r"two\.jpg: images of a topological map are named"):
        read_topological_map(tmp_path)
    (tmp_path / "two.jpg").unlink()
    poses_file(tmp_path).write_text("number,stamp_s,x_m,y_m,yaw_rad\n0,0,0,0,0\n")
    with pytest.raises(DataError, match="has no 2"):
        read_topological_map(tmp_path)
    poses_file(tmp_path).write_text("number,stamp_s\n0,x\n")
    with pytest.raises(DataError, match="poses"):
        read_topological_map(tmp_path)
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "absent"):
        with pytest.raises(DataError, match=folder):
            read_topological_map(tmp_path / folder)
    poses_file(tmp_path).unlink()
    (tmp_path / "10.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"10\.png"):
        read_topological_map(tmp_path).images()


def test_the_command_line_makes_a_map_finds_a_drive_in_it_and_keeps_its_key_frames(tmp_path, capsys):
    settings = published("nomad", context_size=1, encoding_size=16, heads=2, layers=1, ff_factor=1, down_dims=(8, 16))
    LearnedPolicy(fill(make_network(settings))).save(tmp_path / "nomad")
    drive, place, store = (str(tmp_path / name) for name in ("drive", "map", "store"))
    write_nwm_folder(tmp_path / "drive", SampleRecording(21))
    assert main(["topomap", "create", drive, "--out", place, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["poses"]
    assert main(["topomap", "info", place]) == 0
    assert f"{facts['nodes']} nodes" in capsys.readouterr().out
    assert main(["topomap", "localise", place, drive, "--policy", str(tmp_path / "nomad"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["frames"]
    assert rows
    assert all(0 <= row["node"] <= row["subgoal"] < facts["nodes"] for row in rows)
    assert main(["topomap", "keyframes", place, "--store", store]) == 0
    kept = Keyframes()
    kept.load_state(MemoryStore(store).load().keyframes)
    made = read_topological_map(tmp_path / "map")
    assert len(kept) == len(made)
    np.testing.assert_allclose(kept.poses_xyyaw, made.poses_xyyaw, atol=1e-9)
    poses_file(tmp_path / "map").unlink()
    assert main(["topomap", "keyframes", place, "--store", store]) == 1
    assert "need poses" in capsys.readouterr().err
