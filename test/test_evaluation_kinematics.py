"""Rows of a planning table move as the robot does, as it is told or as its recordings tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from data_samples import START_S, SampleRecording

from come_nav.config import load_layers
from come_nav.core.geometry import se2
from come_nav.core.types import Odometry
from come_nav.evaluation.protocols.protocol import ProtocolSettings, make_window
from come_nav.evaluation.protocols.rows import CONSTANT_VELOCITY, STAND_STILL, trivial_rows
from come_nav.evaluation.suites.closed_loop.suite import ClosedLoop, loop_settings
from come_nav.evaluation.suites.inputs import Input
from come_nav.evaluation.suites.kinematics import kinematics_by_row, stored_motion, told_kinematics, with_kinematics
from come_nav.memory.short_term import ShortTermBuffer, ShortTermSettings
from come_nav.navigation.planning.present_twist import present_twist
from come_nav.navigation.settings import NavigationSettings
from come_nav.planning.settings import KinematicsSettings, MotionPriorSettings
from come_nav.policies.motion.model import LearnedMotion
from come_nav.policies.motion.network import MotionNetwork
from come_nav.policies.motion.settings import MotionSettings


def recording_of(vx: float, vy: float, w: float, count: int = 40) -> SampleRecording:
    recording, times_s = SampleRecording(count), 0.25 * np.arange(count)
    recording.stamps_s = START_S + times_s
    drive = [np.full_like(times_s, value) for value in (vx, w)]
    recording.poses_xyyaw = se2.integrate_twist(*drive, times_s, np.full_like(times_s, vy))
    return recording


def source_of(*recordings: SampleRecording) -> Input:
    return Input("drives", [(f"drive {n}", own) for n, own in enumerate(recordings)], {}, 10, facts={"kept": 1})


@pytest.mark.parametrize(("kinematics", "exact"), [("differential", False), ("holonomic", True), ("car", False)])
def test_constant_velocity_goes_sideways_where_the_robot_can(kinematics, exact):
    recording = recording_of(0.2, 0.3, 0.4)
    window = make_window("drive", recording, 10, 18, ProtocolSettings())
    rows = {row.name: row for row in trivial_rows(KinematicsSettings(kinematics))}
    path = rows[CONSTANT_VELOCITY].plan(window, window.generator()).poses_xyyaw
    error_m = np.linalg.norm((path - window.driven_xyyaw)[:, :2], axis=1)
    assert (error_m.max() < 1e-9) if exact else (error_m[-1] > 0.3)
    np.testing.assert_allclose(path[:, 2], window.driven_xyyaw[:, 2], atol=1e-9)
    assert kinematics_by_row(list(rows.values())) == {STAND_STILL: "", CONSTANT_VELOCITY: kinematics}


@pytest.mark.parametrize(
    ("asked", "vy", "expected"),
    [
        ("auto", 0.3, "holonomic"),
        ("auto", 0.0, "differential"),
        ("", 0.3, "car"),
        ("differential", 0.3, "differential"),
        ("car", 0.0, "car"),
    ],
)
def test_kinematics_are_told_by_the_recording_only_where_asked(asked, vy, expected):
    own = KinematicsSettings("car" if asked == "" else "differential")
    navigation, source = told_kinematics(NavigationSettings(robot=own), source_of(recording_of(0.2, vy, 0.1)), asked)
    assert navigation.robot.kinematics == expected
    assert source.facts["kinematics"].startswith(expected)
    assert source.facts["kept"] == 1


def test_motion_beyond_the_limits_is_told():
    within, beyond = (
        told_kinematics(NavigationSettings(), source_of(recording_of(vx, 0.0, 0.1)), "auto")[1].facts["kinematics"]
        for vx in (0.5, 9.0)
    )
    assert "beyond" not in within
    assert "100 % of its steps are beyond planner.limits" in beyond
    assert "9.00" in beyond


def test_folders_of_differential_robots_depend_on_nothing_new():
    assert stored_motion(NavigationSettings()) == {}
    stored = stored_motion(NavigationSettings(robot=KinematicsSettings("holonomic")))
    assert stored["robot"]["kinematics"] == "holonomic"
    assert stored["motion_prior"]["use"] == "auto"


def test_rows_that_move_say_how():
    rows = with_kinematics(trivial_rows(), KinematicsSettings("car"))
    assert kinematics_by_row(rows) == {STAND_STILL: "", CONSTANT_VELOCITY: "car"}


def test_who_names_kinematics_is_known():
    assert "robot.kinematics" in load_layers(None, ["robot.kinematics=differential"]).given
    assert "robot.kinematics" not in load_layers(None, ["seed=1"]).given


def test_measured_speed_to_the_side_is_part_of_the_present_twist():
    memory = ShortTermBuffer(ShortTermSettings(), lambda frame: None)
    np.testing.assert_allclose(present_twist(Odometry(0.0, np.eye(4), 0.3, 0.1, -0.2), memory), [0.3, -0.2, 0.1])
    np.testing.assert_allclose(present_twist(Odometry(0.0, np.eye(4), 0.3, 0.1), memory), [0.3, 0.0, 0.1])
    assert present_twist(Odometry(0.0, np.eye(4)), memory) is None


def test_plans_with_a_learned_prior_depend_on_its_weights(tmp_path):
    LearnedMotion(MotionNetwork(MotionSettings(image_size=16, width=16, hidden=8))).save(tmp_path / "own", "# own\n")
    prior = MotionPriorSettings(network=str(tmp_path / "own"), network_weight=0.02)
    stored = stored_motion(NavigationSettings(motion_prior=prior))["motion_prior"]
    assert stored["network"].keys() == {"name", "sha256", "shape"}
    assert stored["network"]["shape"]["hidden"] == 8
    assert stored["network_weight"] == 0.02
    other = stored_motion(NavigationSettings(motion_prior=replace(prior, use="never")))
    assert other == {}
    told = stored_motion(NavigationSettings(motion_prior=replace(prior, network="", differential_weight=0.1)))
    assert not {"network", "network_weight"} & told["motion_prior"].keys()
    plain = loop_settings(ClosedLoop(stack=NavigationSettings()))["stack"]["motion_prior"]
    assert not {"network", "network_weight"} & plain.keys()
    looking = loop_settings(ClosedLoop(stack=NavigationSettings(motion_prior=prior)))["stack"]["motion_prior"]
    assert looking["network"]["sha256"] == stored["network"]["sha256"]
