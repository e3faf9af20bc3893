"""Whatever stands in the text files of a published folder: it opens, or one line says what is wrong."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from data_folders import drive, write_euroc, write_kitti, write_tum
from hypothesis import given, settings
from hypothesis import strategies as st

from come_nav.core.errors import ComeNavError
from come_nav.data import open_recording

FILES = {
    "tum": ("rgb.txt", "depth.txt", "groundtruth.txt", "camera_info.yaml"),
    "kitti": ("sequences/03/times.txt", "sequences/03/calib.txt", "poses/03.txt", "sequences/03/camera_info.yaml"),
    "euroc": ("mav0/cam0/data.csv", "mav0/cam0/sensor.yaml", "mav0/state_groundtruth_estimate0/data.csv"),
}
CASES = [(layout, file) for layout, files in FILES.items() for file in files]
WORDS = st.sampled_from(
    [
        "nan",
        "inf",
        "-1",
        "1e999",
        "1e400000",
        "9" * 40,
        "1_0",
        "0x10",
        "",
        ",",
        ":",
        "#",
        "- ",
        "[",
        "{",
        "'",
        "\x00",
        "../../x.png",
        "a" * 300,
        "T_BS:",
        "data: [1]",
        "camera_matrix: {data: abc}",
        "2001-99-99",
        "é",
        "1 2 3",
        "\t",
    ]
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One whole folder of each layout."""
    root = tmp_path_factory.mktemp("whole")
    write_tum(root / "tum", drive(5))
    write_kitti(root / "kitti", drive(5))
    write_euroc(root / "euroc", drive(5))
    return root


def damaged(text: str, draw_at: list[tuple[int, str, int]]) -> str:
    for at, word, cut in draw_at:
        place = at % (len(text) + 1)
        text = text[:place] + word + text[place + cut :]
    return text


@settings(max_examples=25)
@given(edits=st.lists(st.tuples(st.integers(0, 5000), WORDS, st.integers(0, 40)), min_size=1, max_size=3))
@pytest.mark.parametrize(("layout", "file"), CASES)
def test_no_traceback(whole, layout, file, edits):
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / layout
        shutil.copytree(whole / layout, folder)
        path = folder / file
        path.write_text(damaged(path.read_text() if path.exists() else "", edits))
        try:
            with open_recording(folder, rate_hz=None, quiet=True) as recording:
                assert np.isfinite(recording.T_odom_base).all()
                assert np.isfinite(recording.T_base_camera).all()
                assert (np.diff(recording.stamps_s) > 0).all()
                recording.frame(0)
        except ComeNavError as error:
            assert "\n" not in str(error)


@settings(max_examples=15)
@given(content=st.binary(max_size=200))
@pytest.mark.parametrize(("layout", "file"), CASES)
def test_any_bytes(whole, layout, file, content):
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / layout
        shutil.copytree(whole / layout, folder)
        (folder / file).write_bytes(content)
        try:
            open_recording(folder, rate_hz=None, quiet=True).close()
        except ComeNavError as error:
            assert "\n" not in str(error)
