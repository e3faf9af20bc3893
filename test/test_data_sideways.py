"""Kinematics told from trajectories: who slides is told from who turns, whatever the rate and the noise."""

import numpy as np
import pytest

from come_nav.core.geometry import se2
from come_nav.data.timing.sideways import joined, sideways_motion

T_axle_base = np.array([0.4, 0.0, 0.0])  # base_link ahead of the axle


def driven(twists, dt_s=0.05):
    """Return stamps (N,) and poses (N, 3) of a robot that drives ``twists`` (N - 1, 3)."""
    poses = [np.array([3.0, -1.0, 0.8])]
    for vx, vy, w in np.asarray(twists, float):
        poses.append(se2.compose(poses[-1], se2.integrate_twist(np.array(vx), np.array(w), dt_s, np.array(vy))))
    return dt_s * np.arange(len(poses)), np.stack(poses)


def wander(seed, count=800, sideways=0.0):
    random = np.random.default_rng(seed)
    slow = np.repeat(random.normal(size=(count // 20, 3)), 20, axis=0)
    return np.abs(slow[:, :1]) * [0.4, 0.0, 0.0] + slow * [0.0, sideways, 0.8]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dt_s", [0.02, 0.05, 0.25])
def test_a_differential_drive_is_told(seed, dt_s):
    stamps_s, poses = driven(wander(seed), dt_s)
    noise = np.random.default_rng(seed).normal(scale=[0.002, 0.002, 0.003], size=poses.shape)
    motion = sideways_motion(stamps_s, poses + noise)
    assert motion.kinematics == "differential"
    if dt_s <= 0.05:
        assert motion.share < 0.15


@pytest.mark.parametrize("seed", range(4))
def test_a_base_off_the_axle_is_no_sideways_motion(seed):
    stamps_s, poses = driven(wander(seed))
    motion = sideways_motion(stamps_s, se2.compose(poses, np.broadcast_to(T_axle_base, poses.shape)))
    assert motion.kinematics == "differential"
    assert motion.share < 0.02


@pytest.mark.parametrize("seed", range(4))
def test_a_robot_that_slides_is_told(seed):
    motion = sideways_motion(*driven(wander(seed, sideways=0.4)))
    assert motion.kinematics == "holonomic"


def test_the_share_of_a_constant_slide_is_its_closed_form():
    motion = sideways_motion(*driven([[0.3, 0.4, 0.0]] * 200))
    assert motion.share == pytest.approx(0.8, abs=1e-6)
    assert motion.moved_m == pytest.approx(5.0, rel=0.03)
    np.testing.assert_allclose(motion.twists, np.broadcast_to([0.3, 0.4, 0.0], motion.twists.shape), atol=1e-6)


def test_jumps_and_standing_do_not_count():
    stamps_s, poses = driven([[0.4, 0.0, 0.1]] * 200)
    poses[100:, 1] += 5.0
    assert sideways_motion(stamps_s, poses).kinematics == "holonomic"
    assert sideways_motion(stamps_s, poses, [99]).share < 0.01
    still = np.random.default_rng(0).normal(scale=0.001, size=(100, 3))
    assert sideways_motion(0.25 * np.arange(100), still).kinematics == "differential"
    assert sideways_motion(np.zeros(0), np.zeros((0, 3))).kinematics == "differential"
    assert sideways_motion(np.zeros(1), np.zeros((1, 3))).share == 0.0


def test_recordings_count_by_their_length():
    slide, drive = (sideways_motion(*driven(twists)) for twists in ([[0.0, 0.4, 0.0]] * 100, [[0.4, 0.0, 0.0]] * 300))
    both = joined([slide, drive])
    assert both.share == pytest.approx(slide.moved_m / (slide.moved_m + drive.moved_m), abs=1e-6)
    assert joined([]).share == 0.0
