"""Units, quaternion orders and headings of trajectory files: the same drive in every spelling that people have."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from come_nav.core.errors import DataError
from come_nav.data.trajectories import read_trajectory

EPOCH_S = 1_700_000_000
YAW_RAD = 0.1 * np.arange(20)
X_M = 0.05 * np.arange(20)
DECIMALS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def spell(stamps: list[str], sep: str = " ", order: str = "xyzw", extra: str = "", start: str = "") -> str:
    lines = []
    for stamp, x, yaw in zip(stamps, X_M, YAW_RAD, strict=True):
        quat = {"x": 0.0, "y": 0.0, "z": np.sin(yaw / 2), "w": np.cos(yaw / 2)}
        lines.append(sep.join([stamp, f"{x:.6f}", "1", "2", *(f"{quat[part]:.9f}" for part in order)]) + extra)
    return start + "\n".join(lines) + "\n"


def stamps_of(unit: str, start_s: int = EPOCH_S, suffix: str = "") -> list[str]:
    """10 Hz in whole numbers of ``unit``; seconds with a decimal."""
    if unit == "s":
        return [f"{start_s + index // 10}.{index % 10}" for index in range(20)]
    step = 10 ** (DECIMALS[unit] - 1)
    return [f"{start_s * 10 ** DECIMALS[unit] + index * step}{suffix}" for index in range(20)]


def check(trajectory, start_s: float = EPOCH_S) -> None:
    np.testing.assert_allclose(trajectory.stamps_s, start_s + 0.1 * np.arange(20), rtol=0, atol=3e-7)
    np.testing.assert_allclose(trajectory.poses_xyyaw[:, 2], YAW_RAD, atol=1e-6)
    np.testing.assert_allclose(trajectory.positions_xyz[:, 0], X_M)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("suffix", ["", ".000000"])
def test_blanks_are_tum_order_in_every_unit(tmp_path, unit, suffix):
    """Whole-number nanoseconds with TUM's columns, and ORB-SLAM3's nanoseconds with decimals."""
    path = tmp_path / "poses.txt"
    path.write_text(spell(stamps_of(unit, suffix="" if unit == "s" else suffix)))
    check(read_trajectory(path))


@pytest.mark.parametrize("extra", ["", ",", ",0.1,0.0,0.0,", ",1,2,3,4,5,6,7,8,9"])
def test_commas_and_nanoseconds_are_euroc_and_vins(tmp_path, extra):
    path = tmp_path / "poses.csv"
    path.write_text(spell(stamps_of("ns"), ",", "wxyz", extra))
    check(read_trajectory(path))
    check(read_trajectory(path, "euroc"))


@pytest.mark.parametrize(
    ("heading", "order"),
    [
        ("#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []", "wxyz"),
        ("# timestamp_s tx ty tz qx qy qz qw", "xyzw"),
        ("timestamp,x,y,z,qx,qy,qz,qw", "xyzw"),
        ("time,pose.position.x,y,z,pose.orientation.w,pose.orientation.x,y,z", "wxyz"),
    ],
)
@pytest.mark.parametrize("unit", ["s", "ns"])
def test_a_heading_that_names_the_columns_decides(tmp_path, heading, order, unit):
    if unit == "ns":
        heading = heading.replace("_s ", "_ns ")
    path = tmp_path / "poses.csv"
    path.write_text(spell(stamps_of(unit), ",", order, start=heading + "\n"))
    check(read_trajectory(path))


@pytest.mark.parametrize("unit", ["us", "ns"])
@pytest.mark.parametrize("start_s", [0, 7, 50_000])
def test_a_clock_from_boot_is_told_by_its_rate(tmp_path, caplog, unit, start_s):
    path = tmp_path / "poses.txt"
    path.write_text(spell(stamps_of(unit, start_s)))
    with caplog.at_level(logging.WARNING):
        check(read_trajectory(path), start_s)
    assert f"taken as {unit}" in caplog.text


def test_what_digits_cannot_tell_is_noted_and_can_be_set(tmp_path, caplog):
    """0, 100, 200 may be milliseconds, or key frames that are 100 s apart."""
    path = tmp_path / "poses.txt"
    path.write_text(spell(stamps_of("ms", 0)))
    with caplog.at_level(logging.WARNING):
        assert read_trajectory(path, settings=("--est-format", "--est-unit")).stamps_s[1] == 100.0
    assert "100 s apart if the stamps are seconds; if they are not, set --est-unit" in caplog.text
    check(read_trajectory(path, unit="ms"), 0.0)


def test_nanoseconds_keep_the_nearest_double(tmp_path):
    path = tmp_path / "poses.txt"
    path.write_text("1403636580838555648 0 0 0 0 0 0 1\n1403636580938555700 0 0 0 0 0 0 1\n")
    assert list(read_trajectory(path).stamps_s) == [1403636580.838555648, 1403636580.9385557]


def test_the_other_order_of_a_robot_on_a_floor_is_noted(tmp_path, caplog):
    path = tmp_path / "poses.txt"
    path.write_text(spell(stamps_of("s"), order="wxyz"))
    with caplog.at_level(logging.WARNING):
        read_trajectory(path, settings=("--est-format", "--est-unit"))
    assert "set --est-format euroc and --est-unit s" in caplog.text
    check(read_trajectory(path, "euroc", unit="s"))
    caplog.clear()
    path.write_text(spell(stamps_of("s")))
    with caplog.at_level(logging.WARNING):
        read_trajectory(path)
    assert not caplog.text


def test_extra_columns_name_the_setting(tmp_path):
    path = tmp_path / "poses.txt"
    path.write_text(spell(stamps_of("ns"), order="wxyz", extra=" 0.1 0 0"))
    with pytest.raises(DataError, match=r"11 columns.*set --est-format euroc"):
        read_trajectory(path, settings=("--est-format", "--est-unit"))
    check(read_trajectory(path, "euroc"))


@pytest.mark.parametrize(
    "first", ["1.0.5 0 0 0 0 0 0 1", "17000x 0 0 0 0 0 0 1", "1_7 0 0 0 0 0 0 1", "-- 0 0 0 0 0 0 1"]
)
def test_a_damaged_first_pose_is_not_taken_for_a_heading(tmp_path, first):
    path = tmp_path / "poses.txt"
    path.write_text(first + "\n" + spell(stamps_of("s")))
    with pytest.raises(DataError, match="line 1 is not numbers"):
        read_trajectory(path)


def test_a_heading_is_noted_and_only_one_is_taken(tmp_path, caplog):
    path = tmp_path / "poses.txt"
    path.write_text(spell(stamps_of("s"), start="time x y z a b c d\n"))
    with caplog.at_level(logging.INFO):
        check(read_trajectory(path))
    assert "line 1 is taken as a heading: 'time x y z a b c d'" in caplog.text
    path.write_text(spell(stamps_of("s"), start="one\ntwo\n"))
    with pytest.raises(DataError, match="line 2 is not numbers"):
        read_trajectory(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_costs_no_pose(tmp_path, encoding):
    path = tmp_path / "poses.txt"
    path.write_bytes(spell(stamps_of("s")).encode(encoding))
    check(read_trajectory(path))
