"""KITTI's drift against closed forms, against the rule in words, and against what ORB-SLAM2 published."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from come_nav.core.errors import DataError, ShapeError
from come_nav.core.geometry import se3
from come_nav.core.types import Trajectory
from come_nav.evaluation.metrics.drift import LENGTHS_M, drift


def straight(length_m: float, scale: float = 1.0, yaw_rad_per_m: float = 0.0) -> Trajectory:
    """One pose a metre along x; headings turn, positions do not."""
    x = np.arange(length_m + 1.0)
    poses = np.stack([scale * x, np.zeros_like(x), yaw_rad_per_m * x], axis=1)
    return Trajectory.from_xyyaw(0.1 * x, poses)


def test_a_scale_error_is_its_percentage():
    found = drift(straight(1000), straight(1000, scale=1.02))
    # a stretch ends at the first pose further than the length: 101 m for 100 m
    expected = [2.0 * (length + 1) / length for length in LENGTHS_M]
    assert [row.t_rel_percent for row in found.lengths] == pytest.approx(expected)
    counts = [len(range(0, 1000 - int(length), 10)) for length in LENGTHS_M]
    assert [row.n for row in found.lengths] == counts
    assert found.n == sum(counts)
    assert found.t_rel_percent == pytest.approx(np.average(expected, weights=counts))
    assert found.r_rel_deg_per_m == pytest.approx(0.0, abs=1e-9)


def test_a_constant_turn_is_degrees_per_metre():
    turn_rad_per_m = np.radians(0.01)
    found = drift(straight(400), straight(400, yaw_rad_per_m=turn_rad_per_m), lengths_m=(100.0,))
    assert found.r_rel_deg_per_m == pytest.approx(0.01 * 101 / 100)


def test_equal_trajectories_and_another_world_frame_have_no_drift():
    reference = straight(300)
    moved = se3.make_transform(Rotation.from_euler("zyx", [1.0, 0.4, 0.2]).as_matrix(), np.array([5.0, 6.0, 7.0]))
    found = drift(reference, Trajectory(reference.stamps_s, moved @ reference.T_world_body))
    assert found.t_rel_percent == pytest.approx(0.0, abs=1e-9)
    assert [row.length_m for row in found.lengths] == [100.0, 200.0]


def test_the_rule_in_words():
    rng = np.random.default_rng(4)
    motions = se3.make_transform(
        Rotation.from_rotvec(rng.normal(0, 0.02, (260, 3))).as_matrix(), rng.uniform(0.2, 2.0, (260, 3))
    )
    noisy = motions.copy()
    noisy[:, :3, 3] += rng.normal(0, 0.05, (260, 3))
    noisy[:, :3, :3] = noisy[:, :3, :3] @ Rotation.from_rotvec(rng.normal(0, 0.01, (260, 3))).as_matrix()
    truth, estimate = [np.eye(4)], [np.eye(4)]
    for good, bad in zip(motions, noisy, strict=True):
        truth.append(truth[-1] @ good)
        estimate.append(estimate[-1] @ bad)
    truth, estimate = np.array(truth), np.array(estimate)
    distance = [0.0]
    for before, after in pairwise(truth):
        distance.append(distance[-1] + np.linalg.norm(after[:3, 3] - before[:3, 3]))
    errors = []
    for first in range(0, len(truth), 10):
        for length in LENGTHS_M:
            last = next((i for i in range(first, len(truth)) if distance[i] > distance[first] + length), None)
            if last is None:
                continue
            motion_truth = np.linalg.inv(truth[first]) @ truth[last]
            error = np.linalg.inv(np.linalg.inv(estimate[first]) @ estimate[last]) @ motion_truth
            angle = np.arccos(np.clip(0.5 * (np.trace(error[:3, :3]) - 1.0), -1.0, 1.0))
            errors.append((100 * np.linalg.norm(error[:3, 3]) / length, np.degrees(angle) / length))
    stamps_s = np.arange(len(truth), dtype=float)
    found = drift(Trajectory(stamps_s, truth), Trajectory(stamps_s, estimate))
    assert found.n == len(errors)
    assert (found.t_rel_percent, found.r_rel_deg_per_m) == pytest.approx(tuple(np.mean(errors, axis=0)), rel=1e-6)


def test_mistakes():
    with pytest.raises(DataError, match=r"50\.0 m long, shorter than the shortest stretch of 100 m"):
        drift(straight(50), straight(50))
    with pytest.raises(ShapeError):
        drift(straight(500), straight(400))


@pytest.mark.shared_data
def test_orb_slam2_on_kitti_00_as_published(shared_data):
    """Mur-Artal and Tardos, T-RO 2017, table I: t_rel 0.70 %, r_rel 0.25 degrees per 100 m."""
    from come_nav.data.trajectories import read_trajectory

    folder = shared_data / "trajectories"
    found = drift(read_trajectory(folder / "KITTI_00_gt.txt"), read_trajectory(folder / "KITTI_00_ORB.txt"))
    assert round(found.t_rel_percent, 2) == 0.70
    assert round(100 * found.r_rel_deg_per_m, 2) == 0.25
