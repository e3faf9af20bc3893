"""``come-nav bag info`` and ``come-nav convert`` as a user types them."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from data_samples import SECOND, START_NS, BagMaker, SampleRecording

from come_nav.cli.main import main
from come_nav.data import open_recording
from come_nav.data.bags.writer import write_bag
from come_nav.data.trajectories import read_trajectory


@pytest.fixture
def drive(tmp_path):
    return write_bag(tmp_path / "drive", SampleRecording(12))


def test_info_as_text(drive, capsys):
    assert main(["bag", "info", str(drive)]) == 0
    text = capsys.readouterr().out
    for part in ("mcap, 2.8 s", "/camera/color/image_raw", "frames  12 of 24x16 at 4.00 Hz", "12 of 12 images"):
        assert part in text


def test_info_as_json_with_an_image(drive, tmp_path, capsys):
    image = tmp_path / "out" / "sheet.png"
    assert main(["bag", "info", str(drive), "--json", "--image", str(image)]) == 0
    document = json.loads(capsys.readouterr().out)
    topics = {topic["name"]: topic for topic in document["topics"]}
    assert topics["/odom"]["count"] == 12
    assert topics["/odom"]["rate_hz"] == pytest.approx(4.0)
    assert topics["/tf_static"]["rate_hz"] is None
    assert document["recording"]["association"]["matched"] == 12
    assert document["recording"]["path_length_m"] == pytest.approx(
        np.linalg.norm(np.diff(SampleRecording(12).poses_xyyaw[:, :2], axis=0), axis=1).sum()
    )
    sheet = cv2.imread(str(image))
    assert sheet.shape[0] > 3 * 240  # three rows of colour over depth


def test_info_of_a_bag_that_cannot_be_used(tmp_path, capsys):
    maker = BagMaker()
    for index in range(3):
        maker.odometry(START_NS + index * SECOND, 0.1)
    folder = maker.write(tmp_path / "blind")
    assert main(["bag", "info", str(folder)]) == 1
    captured = capsys.readouterr()
    assert "/odom" in captured.out
    assert "no colour image topic" in captured.err
    assert captured.err.strip().count("\n") == 0
    assert main(["bag", "info", str(folder), "--json"]) == 1
    assert "no colour image topic" in json.loads(capsys.readouterr().out)["problem"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image-topic", "/camera/color/image"], "did you mean '/camera/color/image_raw'"),
        (["--rate", "fast"], "--rate must be a number"),
        (["--rate", "0"], "rate_hz must be"),
        (["--time-offset", "50"], "set --time-offset"),
    ],
)
def test_mistakes_are_one_line(drive, capsys, arguments, message):
    assert main(["bag", "info", str(drive), *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("come-nav: ")
    assert error.strip().count("\n") == 0


def test_round_trip_through_every_format(drive, tmp_path, capsys):
    nwm, tum, kitti = tmp_path / "nwm", tmp_path / "a.txt", tmp_path / "b.kitti"
    ros1 = BagMaker().drive(12).write_ros1(tmp_path / "old.bag")
    assert main(["convert", str(drive), str(nwm), "--to", "nwm", "--size", "12x8"]) == 0
    assert main(["convert", str(nwm), str(tum)]) == 0
    assert main(["convert", str(tum), str(kitti), "--to", "kitti"]) == 0
    truth = SampleRecording(12).poses_xyyaw
    np.testing.assert_allclose(read_trajectory(kitti).poses_xyyaw, truth, atol=1e-9)
    assert open_recording(nwm).frame(0).rgb.shape == (8, 12, 3)
    target = tmp_path / "new"
    flags = ["--to", "sqlite3", "--compression", "message", "--ground-truth", str(tum), "--json"]
    capsys.readouterr()
    assert main(["convert", str(ros1), str(target), *flags]) == 0
    written = json.loads(capsys.readouterr().out)
    assert (written["count"], written["format"]) == (12, "sqlite3")
    with open_recording(target) as recording:
        assert len(recording) == 12
        assert "/ground_truth/odom" in recording.bag.topics


def test_convert_keeps_all_frames_when_asked(tmp_path):
    folder = BagMaker().drive(40, rate_hz=20.0).write(tmp_path / "fast")
    for rate, count in (("all", 40), ("4", 9), ("10", 21)):
        assert main(["convert", str(folder), str(tmp_path / rate), "--rate", rate]) == 0
        with open_recording(tmp_path / rate, rate_hz=None) as recording:
            assert len(recording) == count


def test_convert_refuses(drive, tmp_path, capsys):
    (tmp_path / "there.txt").write_text("precious")
    cases = [
        ([str(tmp_path / "there.txt")], "--overwrite"),
        ([str(tmp_path), "--to", "tum"], "is a folder"),
        ([str(tmp_path / "x"), "--size", "12"], "--size must be"),
        ([str(tmp_path / "x"), "--compression", "zip"], "compression must be one of"),
        (
            [str(tmp_path / "x.txt"), "--to", "tum", "--start", "1", "--time-offset", "2"],
            "--start, --time-offset: poses are",
        ),
    ]
    for arguments, message in cases:
        assert main(["convert", str(drive), *arguments]) == 1
        assert message in capsys.readouterr().err
    assert (tmp_path / "there.txt").read_text() == "precious"
    assert not (tmp_path / "x").exists()
