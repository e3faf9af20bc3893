"""ATE and RPE against closed forms and against the recorded figures of evo 1.38.1."""

from __future__ import annotations

import json
import logging
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from come_nav.core.errors import ConfigError, DataError, ShapeError
from come_nav.core.geometry import se3
from come_nav.core.types import Trajectory
from come_nav.evaluation.metrics.alignment import ALIGNMENTS, align, umeyama
from come_nav.evaluation.metrics.trajectory_metrics import RpeSettings, Statistics, ate, plan_errors, rpe, select_pairs


def random_walk(count: int = 40, seed: int = 0) -> Trajectory:
    rng = np.random.default_rng(seed)
    quats = rng.normal(size=(count, 4))
    positions = np.cumsum(rng.normal(size=(count, 3)), axis=0)
    return Trajectory(np.arange(count) * 0.1, se3.make_transform(se3.matrix_from_quaternion(quats), positions))


def moved(trajectory: Trajectory, angle_rad: float, shift, scale: float = 1.0) -> Trajectory:
    """The trajectory in a frame that is turned about z, shifted and scaled."""
    motion = se3.transform_from_xyyaw(np.array([0.0, 0.0, angle_rad]))
    T = motion @ trajectory.T_world_body
    T[:, :3, 3] = scale * T[:, :3, 3] + shift
    return Trajectory(trajectory.stamps_s, T)


def straight(positions_x, turns_rad=None) -> Trajectory:
    """Poses along x at the given positions, with the given headings."""
    x = np.asarray(positions_x, float)
    yaw = np.zeros(len(x)) if turns_rad is None else np.asarray(turns_rad, float)
    return Trajectory.from_xyyaw(np.arange(len(x)) * 1.0, np.stack([x, np.zeros(len(x)), yaw], axis=1))


def test_statistics_of_known_errors():
    summary = Statistics.of(np.array([3.0, 4.0, 0.0, 5.0]))
    assert summary == Statistics(
        rmse=pytest.approx(np.sqrt(12.5)), mean=3.0, median=3.5, std=pytest.approx(np.sqrt(3.5)), min=0.0, max=5.0,
        sse=50.0, n=4,
    )  # fmt: skip
    with pytest.raises(DataError, match="share no pose"):
        Statistics.of(np.zeros(0))


def test_ate_without_alignment_is_the_distance_and_the_angle():
    reference = random_walk()
    estimate = moved(reference, 0.0, (0.3, 0.0, 0.4))
    report = ate(reference, estimate)
    np.testing.assert_allclose(report.translation_errors_m, 0.5, atol=1e-12)
    turned = Trajectory(
        reference.stamps_s, reference.T_world_body @ se3.transform_from_xyyaw(np.array([0.0, 0.0, np.radians(30.0)]))
    )
    rotated = ate(reference, turned)
    assert rotated.rotation_deg.rmse == pytest.approx(30.0, abs=1e-9)
    assert rotated.translation_m.max == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("mode", "scale", "left_over"),
    [("se3", 1.0, 0.0), ("sim3", 2.5, 0.0), ("origin", 1.0, 0.0), ("none", 1.0, None), ("scale_only", 2.5, None)],
)
def test_each_alignment_undoes_its_own_kind_of_motion(mode, scale, left_over):
    reference = random_walk()
    estimate = moved(reference, 0.7, (1.0, -2.0, 3.0), scale)
    report = ate(reference, estimate, mode)
    if left_over is None:
        assert report.translation_m.rmse > 0.5
    else:
        assert report.translation_m.max == pytest.approx(left_over, abs=1e-9)
        assert report.rotation_deg.max == pytest.approx(0.0, abs=1e-6)
    if mode in ("sim3", "scale_only"):
        assert report.alignment.scale == pytest.approx(1 / scale, rel=1e-9)


def test_scale_only_scales_about_the_origin_and_turns_nothing():
    reference = random_walk()
    T = reference.T_world_body.copy()
    T[:, :3, 3] *= 4.0
    report = ate(reference, Trajectory(reference.stamps_s, T), "scale_only")
    assert report.alignment.scale == pytest.approx(0.25, rel=1e-9)
    assert report.translation_m.max < 1e-9
    np.testing.assert_array_equal(report.alignment.rotation, np.eye(3))


def test_origin_aligns_the_first_pose_only():
    reference = straight([0.0, 1.0, 2.0])
    estimate = Trajectory.from_xyyaw(
        np.arange(3.0), np.array([[5.0, 5.0, np.pi / 2], [5.0, 6.0, 0.0], [5.0, 8.0, 0.0]])
    )
    report = ate(reference, estimate, "origin")
    np.testing.assert_allclose(report.translation_errors_m, [0.0, 0.0, 1.0], atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), angle=st.floats(-3.1, 3.1), scale=st.floats(0.05, 20.0), noise=st.floats(0.0, 0.3))
def test_umeyama_is_a_rotation_and_no_other_fit_is_better(seed, angle, scale, noise):
    rng = np.random.default_rng(seed)
    reference = random_walk(15, seed)
    estimate = moved(reference, angle, rng.normal(size=3), scale).positions_xyz + noise * rng.normal(size=(15, 3))
    rotation, translation, found_scale, rank = umeyama(reference.positions_xyz, estimate, with_scale=True)
    assert rank == 3
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1.0)

    def cost(R, t, s):
        return float(((s * estimate @ R.T + t - reference.positions_xyz) ** 2).sum())

    best = cost(rotation, translation, found_scale)
    for _ in range(5):
        turn = se3.matrix_from_quaternion(np.append(0.01 * rng.normal(size=3), 1.0))
        other = cost(
            turn @ rotation, translation + 0.01 * rng.normal(size=3), found_scale * np.exp(0.01 * rng.normal())
        )
        assert best <= other + 1e-9


def test_a_mirrored_estimate_is_not_mirrored_back():
    reference = random_walk()
    mirrored = reference.positions_xyz * [1.0, 1.0, -1.0]
    rotation, *_ = umeyama(reference.positions_xyz, mirrored)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_a_planar_path_is_aligned_in_the_plane():
    yaw = np.linspace(0.0, 2.0, 20)
    reference = Trajectory.from_xyyaw(np.arange(20.0), np.stack([np.cos(yaw), np.sin(yaw), yaw], axis=1))
    report = ate(reference, moved(reference, 1.0, (1.0, 2.0, 0.0)), "se3")
    assert report.translation_m.max < 1e-9
    assert report.rotation_deg.max < 1e-6


@pytest.mark.parametrize(
    ("positions", "shape"), [([1.0, 1.0, 1.0, 1.0], "one point"), ([0.0, 1.0, 2.0, 5.0], "one line")]
)
@pytest.mark.parametrize("mode", ["se3", "sim3"])
def test_degenerate_alignments_are_refused_with_a_way_out(positions, shape, mode):
    line = straight(positions)
    with pytest.raises(DataError, match=f"4 matched positions lie .*{shape}.*'origin'"):
        ate(line, line, mode)


def test_the_scale_of_a_straight_line_is_determined():
    report = ate(straight([0.0, 1.0, 2.0]), straight([0.0, 2.0, 4.0]), "scale_only")
    assert report.alignment.scale == pytest.approx(0.5)
    with pytest.raises(DataError, match="one point"):
        ate(straight([0.0, 0.0]), straight([0.0, 0.0]), "scale_only")


def test_alignment_refuses_unknown_modes_and_unequal_lengths():
    with pytest.raises(ConfigError, match="did you mean 'sim3'"):
        align(np.eye(4)[None], np.eye(4)[None], "sim33")
    with pytest.raises(ShapeError):
        ate(straight([0.0, 1.0, 2.0]), straight([0.0, 1.0]))


@pytest.mark.parametrize(
    ("settings", "pairs"),
    [
        (RpeSettings(1), [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]),
        (RpeSettings(2), [(0, 2), (2, 4)]),
        (RpeSettings(2, all_pairs=True), [(0, 2), (1, 3), (2, 4), (3, 5)]),
        (RpeSettings(9), []),
        (RpeSettings(1.0, "m"), [(0, 1), (1, 4), (4, 5)]),
        # all pairs: nearest to 1 m and within 10 %; poses 2 and 3 stand at one place, the earlier one ends a pair
        (RpeSettings(1.0, "m", all_pairs=True), [(0, 1), (2, 4), (3, 4), (4, 5)]),
        (RpeSettings(1.0, "m", all_pairs=True, rel_delta_tol=0.5), [(0, 1), (1, 2), (2, 4), (3, 4), (4, 5)]),
    ],
)
def test_pairs(settings, pairs):
    positions = np.zeros((6, 3))
    positions[:, 0] = [0.0, 1.0, 1.55, 1.55, 2.5, 3.55]
    assert [tuple(pair) for pair in select_pairs(positions, settings)] == pairs


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=30), st.floats(0.1, 5.0), st.floats(0.0, 0.5))
def test_all_pairs_by_path_agrees_with_a_plain_search(steps, delta, tolerance):
    positions = np.zeros((len(steps) + 1, 3))
    positions[1:, 1] = np.cumsum(steps)
    path = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(positions, axis=0), axis=1))])
    found = {
        tuple(pair)
        for pair in select_pairs(positions, RpeSettings(delta, "m", all_pairs=True, rel_delta_tol=tolerance))
    }
    for start in range(len(steps)):
        misses = np.abs(path[start + 1 :] - path[start] - delta)
        ends = [end for first, end in found if first == start]
        if misses.min() <= tolerance * delta:
            assert len(ends) == 1
            assert misses[ends[0] - start - 1] == pytest.approx(misses.min(), abs=1e-12)
        else:
            assert ends == []


def test_rpe_of_a_constant_drift_is_that_drift():
    reference, estimate = straight([0.0, 1.0, 2.0, 3.0]), straight([0.0, 1.1, 2.2, 3.3])
    assert rpe(reference, estimate).translation_m.rmse == pytest.approx(0.1)
    assert rpe(reference, estimate, RpeSettings(3)).translation_m.rmse == pytest.approx(0.3)
    assert rpe(reference, estimate, alignment="scale_only").translation_m.rmse == pytest.approx(0.0, abs=1e-12)


def test_rpe_sees_motion_in_the_body_frame():
    reference = straight([0.0, 1.0, 2.0])
    estimate = straight([0.0, 1.0, 2.0], [0.0, np.pi / 2, np.pi / 2])
    report = rpe(reference, estimate)
    np.testing.assert_allclose(report.rotation_errors_deg, [90.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(report.translation_errors_m, [0.0, np.sqrt(2.0)], atol=1e-12)


def test_pairs_come_from_the_estimate_unless_told_otherwise():
    reference, estimate = straight([0.0, 1.0, 2.0, 3.0, 4.0]), straight([0.0, 2.0, 4.0, 6.0, 8.0])
    assert rpe(reference, estimate, RpeSettings(2.0, "m")).translation_m.n == 4
    assert rpe(reference, estimate, RpeSettings(2.0, "m", pairs_from_reference=True)).translation_m.n == 2


@pytest.mark.parametrize(("delta", "unit"), [(10, "f"), (50.0, "m")])
def test_a_delta_beyond_the_path_is_one_line(delta, unit):
    path = straight([0.0, 1.0, 2.0])
    with pytest.raises(DataError, match=rf"no pair {delta:g} {unit} apart .*2\.00 m of path.*smaller delta"):
        rpe(path, path, RpeSettings(delta, unit))


@pytest.mark.parametrize(("delta", "unit"), [(0.0, "m"), (-1, "f"), (1.5, "f"), (1, "km"), (float("nan"), "m")])
def test_impossible_rpe_settings_are_refused(delta, unit):
    with pytest.raises(ConfigError):
        RpeSettings(delta, unit)


def test_plan_errors_closed_form():
    driven = np.array([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [3.0, 0.0, 3.1]])
    planned = np.array([[1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [3.0, 3.0, -3.1]])
    errors = plan_errors(planned, driven)
    assert errors.ate_m == pytest.approx(np.sqrt(11 / 3))
    assert errors.rpe_m == pytest.approx(np.sqrt(4 / 2))
    assert errors.final_m == pytest.approx(3.0)
    assert errors.final_yaw_rad == pytest.approx(2 * np.pi - 6.2)


def matched(folder: Path, pair: dict) -> tuple[Trajectory, Trajectory]:
    from come_nav.data.trajectories import read_trajectory
    from come_nav.evaluation.protocols.trajectory_comparison import match

    reference = read_trajectory(folder / pair["ref"], pair["format"])
    estimate = read_trajectory(folder / pair["est"], pair["format"])
    reference, estimate, report = match(reference, estimate, 0.01, 0.0, ("reference", "estimate"))
    assert report.matched == pair["n_associated"]
    return reference, estimate


def compare(summary: Statistics, figures: dict) -> list[float]:
    """Relative differences of every figure that evo gave."""
    return [abs(getattr(summary, name) - value) / max(1.0, abs(value)) for name, value in figures.items()]


@pytest.mark.slow
@pytest.mark.shared_data
def test_every_figure_of_evo_is_met(shared_data, caplog, record_property):
    folder = shared_data / "trajectories"
    differences: list[float] = []
    with caplog.at_level(logging.ERROR):
        for pair in json.loads((folder / "evo_reference.json").read_text())["pairs"].values():
            reference, estimate = matched(folder, pair)
            for mode, figures in pair["APE"].items():
                report = ate(reference, estimate, mode)
                differences += compare(report.translation_m, figures["translation_part_m"])
                differences += compare(report.rotation_deg, figures["rotation_angle_deg"])
                if "alignment" in figures:
                    differences.append(abs(report.alignment.scale - figures["alignment"]["scale"]))
                    if mode != "scale_only":  # evo prints the motion that belongs to the scale but does not apply it
                        differences.append(np.abs(report.alignment.rotation - figures["alignment"]["R"]).max())
            for name, figures in pair["RPE"].items():
                differences += rpe_differences(reference, estimate, name, figures)
    record_property("figures of evo compared", len(differences))
    record_property("largest difference", max(differences))
    assert len(differences) > 1100
    assert max(differences) < 1e-6


def rpe_differences(reference: Trajectory, estimate: Trajectory, name: str, figures: dict) -> list[float]:
    delta, unit, *_ = name.split("_")
    chosen = RpeSettings(float(delta), unit[0], "all_pairs" in name, "pairs_from_reference" in name)
    if "error" in figures["translation_part_m"]:
        with pytest.raises(DataError, match="no pair"):
            rpe(reference, estimate, chosen)
        return []
    report = rpe(reference, estimate, chosen, "sim3" if name.endswith("sim3") else "none")
    differences = compare(report.translation_m, figures["translation_part_m"])
    return differences + compare(report.rotation_deg, figures.get("rotation_angle_deg", {}))


@pytest.mark.shared_data
def test_plan_errors_agree_with_evo_on_planar_plans(shared_data):
    rows = json.loads((shared_data / "nwm_parity" / "evo_ate_rpe.json").read_text())["rows"]
    assert len(rows) == 5
    for row in rows:
        planned, driven = (np.pad(np.array(row[key]), ((0, 0), (0, 1))) for key in ("pred", "gt"))
        errors = plan_errors(planned, driven)
        assert errors.ate_m == pytest.approx(row["evo_ate"], abs=1e-6)
        assert errors.rpe_m == pytest.approx(row["evo_rpe"], abs=1e-6)


def test_every_alignment_and_kind_of_pair_runs_together():
    reference, estimate = random_walk(60, 1), random_walk(60, 2)
    for mode, unit, every, source in product(ALIGNMENTS, "fm", (False, True), (False, True)):
        report = rpe(reference, estimate, RpeSettings(3, unit, every, source), mode)
        assert report.translation_m.n == len(report.stamps_s) > 0
        assert np.isfinite(report.rotation_errors_deg).all()
