"""Imagined views: targets of a window, evaluating in batches, figures of the table, and what a killed run keeps."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from data_samples import START_S, SampleRecording

from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.geometry import se2
from come_nav.core.types import Frame
from come_nav.evaluation.protocols.protocol import ProtocolSettings
from come_nav.evaluation.protocols.quality import (
    COPY_LAST,
    QualityRow,
    copy_last_row,
    evaluate_batch,
    evaluate_quality,
    quality_windows,
    read_batch,
)
from come_nav.evaluation.protocols.results import ResultStore
from come_nav.evaluation.reports.quality_report import QualityEvaluation, write_quality_report, write_quality_results
from come_nav.evaluation.reports.quality_tables import gain_lines, metric_lines, quality_table

STEPS = (2, 4, 8)
CONFIG = ProtocolSettings(horizon_steps=8)


class Noisy(SampleRecording):
    """Frames with texture of their own, so that PSNR is finite and images differ."""

    def frame(self, index: int) -> Frame:
        rgb = np.random.default_rng(index).integers(0, 255, (16, 24, 3), dtype=np.uint8)
        return Frame(float(self.stamps_s[index]), rgb)


def images(frames) -> torch.Tensor:
    return torch.stack([torch.from_numpy(frame.rgb.transpose(2, 0, 1)).float() / 127.5 - 1.0 for frame in frames])


def windows(count: int = 6, recordings: int = 1):
    return quality_windows([(f"drive {i}", Noisy(30)) for i in range(recordings)], CONFIG, STEPS, count)


def halfway_row(name: str = "halfway") -> QualityRow:
    """Imagine the mean of the truth and the last frame, with a little noise from the batch's generator."""

    def imagine(batch):
        noise = torch.randn(batch.truth.shape, generator=batch.generator())
        return 0.5 * (batch.truth + batch.last[:, None]) + 0.01 * noise

    return QualityRow(name, imagine)


def test_targets_are_the_frames_at_each_horizon_with_their_own_poses_and_times():
    item = windows(1)[0]
    start = item.window.start
    poses = item.window.recording.poses_xyyaw
    assert item.targets == (start + 2, start + 4, start + 8)
    np.testing.assert_allclose(item.rel_frames, [2, 4, 8], atol=1e-5)
    np.testing.assert_allclose(item.times_s, [0.5, 1.0, 2.0], atol=1e-6)
    expected = se2.relative(poses[start][None], poses[list(item.targets)])
    np.testing.assert_allclose(item.poses_xyyaw, expected, atol=1e-12)
    np.testing.assert_allclose(item.path_xyyaw[[1, 3, 7]], expected, atol=1e-12)
    np.testing.assert_allclose(item.path_xyyaw, item.window.driven_xyyaw, atol=1e-9)


def test_uneven_stamps_keep_the_targets_own_time():
    recording = Noisy(40)
    recording.stamps_s = START_S + np.cumsum(np.tile([0.2, 0.3], 20))
    for item in quality_windows([("drive", recording)], CONFIG, STEPS, 5):
        ahead_s = recording.stamps_s[list(item.targets)] - recording.stamps_s[item.window.start]
        np.testing.assert_allclose(item.rel_frames, 4.0 * ahead_s, atol=1e-6)
        assert np.abs(ahead_s - [0.5, 1.0, 2.0]).max() <= 0.1501


@pytest.mark.parametrize("steps", [(), (0, 4), (4, 4), (8, 2)])
def test_horizons_must_increase(steps):
    with pytest.raises(ConfigError):
        quality_windows([("drive", Noisy(30))], ProtocolSettings(horizon_steps=8), steps, 2)


def test_part_leaves_the_windows_inside_and_shares_no_frame_with_the_rest():
    frames = {}
    for part in ((0.0, 0.6), (0.6, 1.0)):
        config = ProtocolSettings(horizon_steps=8, part=part)
        found = quality_windows([("drive", Noisy(50))], config, STEPS, None)
        frames[part] = {index for item in found for index in (*item.window.context, *item.targets)}
    assert min(frames[0.0, 0.6]) == 0
    assert max(frames[0.0, 0.6]) == 29
    assert (min(frames[0.6, 1.0]), max(frames[0.6, 1.0])) == (30, 49)


@pytest.mark.parametrize("part", [(0.6, 0.6), (0.8, 0.2), (-0.1, 0.5), (0.5, 1.1), (math.nan, 1.0)])
def test_a_part_that_is_none_is_refused(part):
    with pytest.raises(ConfigError, match="0 <= first < last <= 1"):
        ProtocolSettings(part=part)


def test_copying_the_last_frame_is_compared_with_every_target():
    batch = read_batch(windows(3), images)
    records = evaluate_batch(copy_last_row(), batch)
    for index, record in enumerate(records):
        for k in range(len(STEPS)):
            error = float(((batch.last[index] - batch.truth[index, k]) ** 2).mean())
            assert record["psnr_db"][k] == pytest.approx(10 * math.log10(4 / error), abs=1e-3)
            assert -1.0 < record["ssim"][k] < 0.5
    assert records[0]["targets"] == list(batch.windows[0].targets)


def test_the_truth_has_the_capped_psnr_and_a_wrong_shape_is_named():
    batch = read_batch(windows(2), images)
    perfect = evaluate_batch(QualityRow("perfect", lambda batch: batch.truth), batch)[0]
    assert perfect["psnr_db"] == [60.0] * 3
    assert perfect["ssim"] == pytest.approx([1.0] * 3)
    assert perfect["energy"] == perfect["truth_energy"]
    with pytest.raises(ShapeError, match="'flat'"):
        evaluate_batch(QualityRow("flat", lambda batch: batch.truth[:, 0]), batch)


def test_figures_of_the_table_are_means_ratios_and_paired_gains():
    found = windows(20, recordings=6)
    batch = read_batch(found, images)
    rows = [copy_last_row(), halfway_row()]
    records = {row.name: evaluate_batch(row, batch) for row in rows}
    groups = {f"drive {i}": f"world {i}" for i in range(6)}
    table = quality_table(records, [0.5, 1.0, 2.0], seed=0, groups=groups)
    assert table.resampled == "6 worlds or recordings"
    half = np.array([record["psnr_db"] for record in records["halfway"]])
    copy = np.array([record["psnr_db"] for record in records[COPY_LAST]])
    for k in range(3):
        interval = table.rows["halfway"]["psnr_db"][k]
        assert interval.value == pytest.approx(half[:, k].mean())
        assert interval.low <= interval.value <= interval.high
        assert (interval.n, interval.clusters) == (20, 6)
        gain = table.gains["halfway"]["psnr_db"][k]
        assert gain.value == pytest.approx((half - copy)[:, k].mean())
        assert 5.9 < gain.low <= gain.high < 6.1  # half the error everywhere is 6.02 dB
        energy = [sum(record[name][k] for record in records["halfway"]) for name in ("energy", "truth_energy")]
        assert table.rows["halfway"]["sharpness"][k].value == pytest.approx(energy[0] / energy[1])
        assert 0.4 < energy[0] / energy[1] < 0.6  # the mean of two unrelated images has half their energy
    assert COPY_LAST not in table.gains
    assert metric_lines(table, "psnr_db")[0] == ["PSNR [dB]", "0.5 s", "1 s", "2 s", "n"]
    assert [line[:2] for line in gain_lines(table)[1]] == [["halfway", "PSNR [dB]"], ["halfway", "SSIM"]]


def test_a_killed_run_goes_on_with_the_same_noise(tmp_path):
    found, rows = windows(7), [copy_last_row(), halfway_row()]
    with ResultStore(tmp_path / "whole.jsonl", {}) as store:
        evaluate_quality(found, rows, images, store, batch_size=3)
        whole = {row.name: store.table([item.window for item in found], row.name) for row in rows}
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    for kept in (1, 5, 9, len(lines)):  # 5 and 9: inside a batch
        path = tmp_path / f"killed{kept}.jsonl"
        path.write_bytes(b"".join(lines[:kept]))
        seen = []
        with ResultStore(path, {}) as store:
            evaluate_quality(found, rows, images, store, seen.append, batch_size=3)
            again = {row.name: store.table([item.window for item in found], row.name) for row in rows}
        assert len(seen) == 14
        for name, records in whole.items():
            for first, second in zip(records, again[name], strict=True):
                assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_a_finished_run_reads_no_frame(tmp_path):
    found = windows(4)
    with ResultStore(tmp_path / "results.jsonl", {}) as store:
        evaluate_quality(found, [copy_last_row()], images, store)

        def refuse(frames):
            raise AssertionError("nothing is missing")

        evaluate_quality(found, [copy_last_row()], refuse, store)


def test_noise_depends_on_the_windows_alone():
    found = windows(4)
    first, second = read_batch(found[:2], images), read_batch(found[2:], images)
    draws = [torch.rand(3, generator=batch.generator()) for batch in (first, second, first)]
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


def test_files_and_report(tmp_path):
    found = windows(5)
    rows = [copy_last_row(), halfway_row("world model, jump")]
    with ResultStore(tmp_path / "results.jsonl", {}) as store:
        evaluate_quality(found, rows, images, store)
        records = {row.name: store.table([item.window for item in found], row.name) for row in rows}
    table = quality_table(records, [0.5, 1.0, 2.0], seed=0)
    evaluation = QualityEvaluation("A drive", found, rows, images, records, table, {"steps": STEPS}, {"v": {"x": 1}})
    write_quality_results(tmp_path, evaluation)
    page = write_quality_report(tmp_path, evaluation).read_text()
    assert page.count("<img") == 3 + 5  # three curves, five examples
    for words in ("nothing moves", "world model, jump", "lower quartile: drive 0, frame", "v.x"):
        assert words in page
    with (tmp_path / "table.csv").open() as handle:
        lines = list(csv.DictReader(handle))
    assert len(lines) == 6
    jump = next(line for line in lines if line["row"] == "world model, jump" and line["horizon_s"] == "1.0")
    assert float(jump["psnr_db"]) == table.rows["world model, jump"]["psnr_db"][1].value
    assert float(jump["gain_psnr_db_low"]) == table.gains["world model, jump"]["psnr_db"][1].low
    assert lines[0]["gain_ssim"] == ""
