"""Trajectory files: exact round trips, formats found by content, mistakes told with their line."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from data_samples import BagMaker, SampleRecording
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se3
from come_nav.core.types import Trajectory
from come_nav.data.bags.writer import write_bag
from come_nav.data.trajectories import read_trajectory, recording_trajectory, write_kitti, write_tum


def random_trajectory(seed: int, count: int = 20) -> Trajectory:
    rng = np.random.default_rng(seed)
    rotations = Rotation.random(count, random_state=seed).as_matrix()
    stamps_s = 1.7e9 + np.cumsum(rng.uniform(0.01, 0.5, count))
    return Trajectory(stamps_s, se3.make_transform(rotations, rng.normal(0, 100, (count, 3))))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31))
def test_tum_round_trip(tmp_path, seed):
    truth = random_trajectory(seed)
    write_tum(tmp_path / "poses.txt", truth)
    back = read_trajectory(tmp_path / "poses.txt")
    np.testing.assert_allclose(back.stamps_s, truth.stamps_s, rtol=0, atol=3e-7)
    np.testing.assert_array_equal(back.positions_xyz, truth.positions_xyz)
    np.testing.assert_allclose(back.T_world_body, truth.T_world_body, atol=1e-12)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31))
def test_kitti_round_trip(tmp_path, seed):
    truth = random_trajectory(seed)
    write_kitti(tmp_path / "poses.txt", truth)
    back = read_trajectory(tmp_path / "poses.txt", rate_hz=5.0)
    np.testing.assert_array_equal(back.T_world_body, truth.T_world_body)
    np.testing.assert_allclose(np.diff(back.stamps_s), 0.2)


def test_known_lines(tmp_path):
    """90 degrees to the left at (1, 2, 3), in all three spellings."""
    half = np.sqrt(0.5)
    files = {
        "tum": f"# stamp x y z qx qy qz qw\n1.5 1 2 3 0 0 {half} {half}\n2.5,1,2,3,0,0,{half},{half}\n",
        "kitti": "0 -1 0 1 1 0 0 2 0 0 1 3\n" * 2,
        "euroc": "#timestamp,px,py,pz,qw,qx,qy,qz,vx,vy,vz,a,b,c,d,e,f\n"
        + f"1403636580838555648,1,2,3,{half},0,0,{half},0,0,0,0,0,0,0,0,0\n"
        + f"1403636581838555648,1,2,3,{half},0,0,{half},0,0,0,0,0,0,0,0,0\n",
    }
    expected = np.array([[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], float)
    for name, text in files.items():
        path = tmp_path / f"{name}.dat"
        path.write_text(text)
        for trajectory in (read_trajectory(path), read_trajectory(path, name)):
            assert len(trajectory) == 2
            np.testing.assert_allclose(trajectory.T_world_body[1], expected, atol=1e-12)
    assert read_trajectory(tmp_path / "tum.dat").stamps_s[0] == 1.5
    assert read_trajectory(tmp_path / "euroc.dat").stamps_s[0] == pytest.approx(1403636580.838555648, abs=3e-7)


def test_euroc_with_eight_columns_and_a_heading(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("timestamp,x,y,z,qw,qx,qy,qz\n1403636580838555648,1,2,3,1,0,0,0\n")
    np.testing.assert_allclose(read_trajectory(path).T_world_body[0, :3, :3], np.eye(3), atol=1e-12)


def test_poses_of_a_bag_and_of_a_recording(tmp_path):
    sample = SampleRecording(6)
    folder = write_bag(tmp_path / "drive", sample)
    trajectory = read_trajectory(folder)
    np.testing.assert_array_equal(trajectory.stamps_s, sample.stamps_s)
    np.testing.assert_allclose(trajectory.T_world_body, sample.T_odom_base, atol=1e-12)
    np.testing.assert_allclose(recording_trajectory(sample).path_length_m, trajectory.path_length_m)
    np.testing.assert_allclose(read_trajectory(folder, topic="/tf").T_world_body, trajectory.T_world_body, atol=1e-12)
    with pytest.raises(DataError, match="did you mean '/odom'"):
        read_trajectory(folder, topic="/odometry")
    maker = BagMaker()
    maker.image(10**18)
    with pytest.raises(DataError, match="no odometry, pose or /tf"):
        read_trajectory(maker.write(tmp_path / "blind"))


def test_duplicates_are_dropped_with_a_count(tmp_path, caplog):
    path = tmp_path / "poses.txt"
    path.write_text("".join(f"{stamp} {x} 0 0 0 0 0 1\n" for stamp, x in [(1, 0), (2, 1), (2, 9), (3, 2)]))
    with caplog.at_level(logging.WARNING):
        trajectory = read_trajectory(path)
    np.testing.assert_array_equal(trajectory.positions_xyz[:, 0], [0, 1, 2])
    assert "dropped 1 of 4 poses" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no poses"),
        ("# only a comment\n", "holds no poses"),
        ("1 0 0 0 0 0 0 1\n2 0 0 0 0 0 0\n", "line 2 has 7 columns, the lines before have 8"),
        ("1 2 3\n", "3 columns; a TUM file has 8"),
        ("1 0 0 0 0 0 0 1\n2 0 0 zero 0 0 0 1\n", "line 2 is not numbers"),
        ("1 0 0 0 0 0 0 1\n2 0 nan 0 0 0 0 1\n", "line 2 holds NaN"),
        ("1 0 0 0 0 0 0 1\n2 0 inf 0 0 0 0 1\n", "line 2 holds NaN or an infinite"),
        ("2 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n", "not sorted: pose 1"),
        ("1 0 0 0 0 0 0 0\n", "quaternion of length zero"),
        ("5 0 0 1 0 5 0 2 0 0 5 3\n", "pose 0 is no rotation"),
    ],
)
def test_mistakes_name_their_line(tmp_path, content, message):
    path = tmp_path / "poses.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_trajectory(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_mistakes(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_trajectory(tmp_path / "missing.txt")
    (tmp_path / "image.jpg").write_bytes(b"\xff\xd8\xff\xe0" * 20)
    with pytest.raises(DataError, match="not a text file"):
        read_trajectory(tmp_path / "image.jpg")
    (tmp_path / "kitti.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    with pytest.raises(DataError, match="line 1 has 12 columns, but tum needs 8"):
        read_trajectory(tmp_path / "kitti.txt", "tum")
    with pytest.raises(ConfigError, match="did you mean 'kitti'"):
        read_trajectory(tmp_path / "kitti.txt", "kiti")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_are_a_trajectory_or_a_data_error(tmp_path, content):
    path = tmp_path / "any.txt"
    path.write_bytes(content)
    try:
        read_trajectory(path)
    except DataError as error:
        assert "\n" not in str(error)


@pytest.mark.shared_data
def test_real_files(shared_data):
    folder = shared_data / "trajectories"
    assert len(read_trajectory(folder / "KITTI_00_gt.txt")) == 4541
    assert len(read_trajectory(folder / "freiburg1_xyz-groundtruth.txt")) == 3000
    assert read_trajectory(shared_data / "bags" / "kitchen").path_length_m == pytest.approx(6.88, abs=0.02)
