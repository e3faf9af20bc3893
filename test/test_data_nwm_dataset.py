"""Data sets in NWM's layout: written, read back, and every fault told; actions as the published arithmetic has them."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from data_samples import SampleRecording

from come_nav.cli.main import main
from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2
from come_nav.core.geometry.waypoint_units import normalised_from_spacings, spacings_from_normalised
from come_nav.data.bags.writer import write_bag
from come_nav.data.nwm.actions import (
    in_metres,
    official_step_actions,
    path_of_actions,
    step_actions,
    waypoints,
)
from come_nav.data.nwm.dataset import DATASETS, NwmDataset, dataset_facts
from come_nav.data.nwm.writer import write_nwm_dataset
from come_nav.experts.normalizer import Normalizer

RECON = dataset_facts("recon")


class Drive(SampleRecording):
    """Sample frames at the protocol rate."""

    rate_hz = 4.0


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nwm")
    result = write_nwm_dataset(root, RECON, [("long", Drive(72)), ("short", Drive(14))])
    assert (result.trajectories, result.windows) == (2, {"navigation": 9, "time": 1, "rollout": 1})
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "data"))


# -- layout ------------------------------------------------------------------------------------------------------------


def test_layout_and_round_trip(written: Path) -> None:
    dataset = NwmDataset(written, RECON)
    assert dataset.names() == ["long", "short"]
    entries = dataset.index("navigation")
    assert {(entry.min_frames, entry.max_frames) for entry in entries} == {(8, 8)}
    assert all(entry.start % 8 == 3 for entry in entries)
    np.testing.assert_allclose(dataset.trajectory("short").poses_xyyaw, Drive(14).poses_xyyaw, atol=1e-12)
    assert len(dataset.window(entries[0], 8, "navigation")) == 72
    assert (written / "data_splits/recon/test/rollout_traj_names.txt").read_text() == "long\n"
    assert pickle.loads((written / "data_splits/recon/test/time.pkl").read_bytes()) == [("long", 3, 64, 64)]


def test_folders_are_found_where_people_have_them(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "data_splits", tmp_path / "official")
    for splits in (tmp_path / "official", tmp_path / "official/recon/test"):
        assert len(NwmDataset(written / "recon", RECON, splits).index("time")) == 1
    with pytest.raises(DataError, match="no such folder; give the folder of the data sets with --root"):
        NwmDataset(tmp_path / "absent", RECON)
    with pytest.raises(DataError, match="holds neither a folder 'scand' nor trajectory folders"):
        NwmDataset(written, dataset_facts("scand"))
    with pytest.raises(DataError, match=r"navigation_eval\.pkl: no such index"):
        NwmDataset(written, RECON, tmp_path).index("navigation")


def test_adding_a_trajectory_keeps_the_others(root: Path) -> None:
    result = write_nwm_dataset(root, RECON, [("another", Drive(20))])
    assert (result.trajectories, result.windows["navigation"]) == (3, 11)
    with pytest.raises(DataError, match="layout is at 4 Hz, got 8"):
        fast = Drive(20)
        fast.rate_hz = 8.0
        write_nwm_dataset(root, RECON, [("fast", fast)])


def test_datasets_have_their_published_spacings_and_priors() -> None:
    spacings = {name: facts.spacing_m for name, facts in DATASETS.items()}
    assert spacings == {"recon": 0.25, "scand": 0.38, "sacson": 0.255, "tartan_drive": 0.72, "go_stanford": 0.12}
    assert dataset_facts("huron").prior_mean == (-0.33, 0.0, 0.0)
    assert not dataset_facts("go_stanford").prior_known
    with pytest.raises(ConfigError, match="did you mean 'tartan_drive'"):
        dataset_facts("tartandrive")


# -- faults ------------------------------------------------------------------------------------------------------------


def index_of(root: Path, windows: object) -> NwmDataset:
    content = windows if isinstance(windows, bytes) else pickle.dumps(windows)
    (root / "data_splits/recon/test/navigation_eval.pkl").write_bytes(content)
    return NwmDataset(root, RECON)


def test_an_index_that_names_an_absent_trajectory_is_told(root: Path) -> None:
    dataset = index_of(root, [("nowhere", 3, 8, 8)])
    with pytest.raises(DataError, match=r"navigation_eval\.pkl names trajectory 'nowhere', but .*recon has no such"):
        dataset.window(dataset.index("navigation")[0], 8, "navigation")
    outside = index_of(root, [("../../etc", 3, 8, 8)])
    with pytest.raises(DataError, match="names trajectory"):
        outside.window(outside.index("navigation")[0], 8, "navigation")


def test_a_missing_frame_is_told(root: Path) -> None:
    (root / "recon/short/5.jpg").unlink()
    dataset = NwmDataset(root, RECON)
    entry = next(entry for entry in dataset.index("navigation") if entry.trajectory == "short")
    with pytest.raises(DataError, match=r"has 14 poses but 5\.jpg is missing"):
        dataset.window(entry, 8, "navigation")


def test_a_window_beyond_the_trajectory_is_told(root: Path) -> None:
    dataset = index_of(root, [("short", 9, 8, 8), ("short", 1, 8, 8)])
    for entry in dataset.index("navigation"):
        with pytest.raises(DataError, match=r"needs frames .* but there are 14; the trajectory was cut"):
            dataset.window(entry, 8, "navigation")


class Attack:
    def __reduce__(self):
        return os.system, ("touch OWNED",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([("long", 3, 8)], r"entry 0 must be \(trajectory, frame, shortest, longest\)"),
        ([("long", 3, 8, 8), ("long", "x", 8, 8)], "entry 1 must be"),
        ({"long": 3}, "must hold a list of windows, holds dict"),
        ([], "lists no window"),
        (b"\x80\x04junk", "not a readable pickle"),
        ([Attack()], "refused: the pickle wants to call posix.system"),
    ],
)
def test_strange_index_files_are_told(root: Path, monkeypatch, tmp_path: Path, content: object, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=words):
        index_of(root, content).index("navigation")
    assert not (tmp_path / "OWNED").exists()


# -- units and actions -------------------------------------------------------------------------------------------------


def test_normalised_zero_is_not_standing_still() -> None:
    zero = spacings_from_normalised(np.zeros(3))
    np.testing.assert_allclose(zero, [1.25, 0.0, 0.0])
    np.testing.assert_allclose(normalised_from_spacings(np.array([0.0, 0.0, 0.5])), [-1 / 3, 0.0, 0.5])
    np.testing.assert_allclose(
        normalised_from_spacings(np.array([[-2.5, -4, 0], [5, 4, 9.0]]))[:, :2], [[-1, -1], [1, 1]]
    )
    actions = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spacings_from_normalised(normalised_from_spacings(actions)), actions)


def test_units_are_those_that_the_expert_feeds_its_network() -> None:
    metres = torch.tensor([[0.3, -0.1, 0.2], [0.0, 0.0, 0.0]])
    spacings = metres / torch.tensor([0.38, 0.38, 1.0])
    torch.testing.assert_close(Normalizer.nwm(0.38).action(metres), normalised_from_spacings(spacings))


def drive(count: int = 20) -> np.ndarray:
    """A drive along arcs, from anywhere in the world."""
    turn = np.where(np.arange(count) < count // 2, 0.1, -0.2)
    steps = np.stack([np.full(count, 0.2), np.zeros(count), turn], axis=1)
    start = np.array([[3.0, -2.0, 2.0]])
    return np.concatenate([start, se2.compose(start, path_of_actions(steps))])


def test_waypoints_are_the_published_arithmetic() -> None:
    poses, start = drive(), 4
    found = waypoints(poses, start, 8, 0.25)
    yaw = poses[start, 2]
    rotation = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    local = (poses[start + 1 : start + 9, :2] - poses[start, :2]) @ rotation / 0.25
    np.testing.assert_allclose(found[:, :2], local, atol=1e-12)
    np.testing.assert_allclose(found[:, 2], (poses[start + 1 : start + 9, 2] - yaw + np.pi) % (2 * np.pi) - np.pi)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_step_actions_lead_to_the_waypoints(stride: int) -> None:
    local = waypoints(drive(), 2, 16, 0.25)
    path = path_of_actions(step_actions(local, stride))
    np.testing.assert_allclose(path, local[stride - 1 :: stride], atol=1e-9)


def test_the_official_rollout_tells_every_later_step_1_25_spacings_too_many() -> None:
    straight = np.stack([0.9 * np.arange(1, 9), np.zeros(8), np.zeros(8)], axis=1)
    told = official_step_actions(straight)
    np.testing.assert_allclose(told[0], [0.9, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(told[1:, 0], 0.9 + 1.25)
    np.testing.assert_allclose(step_actions(straight)[:, 0], 0.9)
    # summed over a stride, the offset still enters each call but the first once
    np.testing.assert_allclose(official_step_actions(straight, 4)[:, 0], [3.6, 3.6 + 1.25])
    # and a jump over all steps has none, for the sum telescopes
    np.testing.assert_allclose(official_step_actions(straight, 8)[0], straight[-1])


def test_official_differences_stay_in_the_axes_of_the_start() -> None:
    local = waypoints(drive(), 0, 8, 0.25)
    told = normalised_from_spacings(official_step_actions(local))
    np.testing.assert_allclose(told[0], normalised_from_spacings(local)[0])
    np.testing.assert_allclose(told[1:], np.diff(normalised_from_spacings(local), axis=0))
    assert np.abs(told[5] - normalised_from_spacings(step_actions(local))[5]).max() > 0.1
    np.testing.assert_allclose(in_metres(local, 0.25)[:, :2], local[:, :2] * 0.25)


# -- the command line --------------------------------------------------------------------------------------------------


def test_simulate_and_convert_write_data_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "nwm"
    words = ["simulate", "--nwm-dataset", "scand", "--worlds", "20000-20001", "--duration", "4", "--size", "24"]
    assert main([*words, "--out", str(root)]) == 0
    assert "2 trajectories; windows: 2 navigation, 0 time" in capsys.readouterr().out
    dataset = NwmDataset(root, dataset_facts("scand"))
    entry = dataset.index("navigation")[0]
    recording = dataset.window(entry, 8, "navigation")
    assert len(recording) == 17
    source = root / "scand" / entry.trajectory
    assert main(["convert", str(source), str(tmp_path / "copy"), "--to", "nwm-dataset", "--dataset", "scand"]) == 0
    copied = NwmDataset(tmp_path / "copy", dataset_facts("scand"))
    np.testing.assert_allclose(copied.trajectory(entry.trajectory).poses_xyyaw, recording.poses_xyyaw)
    assert main([*words, "--out", str(root)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words[:4], "20001-20000", *words[5:], "--out", str(root)]) == 1
    assert "--worlds must be a seed or a range" in capsys.readouterr().err


def test_a_bag_becomes_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = Drive(24)
    bag = write_bag(tmp_path / "drive", sample)
    words = ["convert", str(bag), str(tmp_path / "nwm"), "--to", "nwm-dataset", "--dataset", "recon", "--size", "32x24"]
    assert main(words) == 0
    dataset = NwmDataset(tmp_path / "nwm", RECON)
    entries = dataset.index("navigation")
    recording = dataset.window(entries[0], 8, "navigation")
    assert recording.frame(3).rgb.shape == (24, 32, 3)
    np.testing.assert_allclose(
        se2.relative(recording.poses_xyyaw[:1], recording.poses_xyyaw),
        se2.relative(sample.poses_xyyaw[:1], sample.poses_xyyaw)[: len(recording)],
        atol=1e-3,
    )


@pytest.mark.parametrize("name", ["lo\0ng", "x" * 5000, "../long", "gone"])
def test_names_that_no_folder_can_have_are_one_line(root: Path, name: str) -> None:
    path = root / "data_splits" / "recon" / "test" / "navigation_eval.pkl"
    assert path.is_file()
    path.write_bytes(pickle.dumps([(name, 4, 8, 8)]))
    dataset = NwmDataset(root, RECON)
    with pytest.raises(DataError, match="has no such folder with") as caught:
        dataset.window(dataset.index("navigation")[0], 8, "navigation")
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)
