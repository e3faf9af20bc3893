"""Videos: what is written can be read back with the same count, size and colours; composed frames are laid out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from come_nav.core.errors import ConfigError, ShapeError, StorageError
from come_nav.viz.frames import TopDownView, compose_panels
from come_nav.viz.maps import MapDrawing
from come_nav.viz.palette import BLUE, VERMILLION, rgb255
from come_nav.viz.video import encode_mp4, read_frames, write_mp4


def flat(colour: tuple[int, int, int], height: int = 64, width: int = 96) -> np.ndarray:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def test_round_trip_keeps_count_size_and_colours(tmp_path: Path) -> None:
    colours = [(200, 30, 30), (30, 180, 40), (40, 50, 200), (230, 220, 40), (128, 128, 128)]
    video = write_mp4(tmp_path / "sub" / "video.mp4", [flat(colour) for colour in colours], fps=4.0)
    frames = read_frames(tmp_path / "sub" / "video.mp4")
    assert frames.shape == (5, 64, 96, 3)
    assert video.frames == 5
    for frame, colour in zip(frames, colours, strict=True):
        np.testing.assert_allclose(frame.reshape(-1, 3).mean(axis=0), colour, atol=8)
    assert video.data[4:8] == b"ftyp"
    assert (video.codec in ("avc1", "vp09")) == (video.note == "")


def test_odd_sizes_lose_one_row_or_column() -> None:
    assert encode_mp4([flat((9, 9, 9), 33, 51)] * 2, fps=2.0).frames == 2


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="at least one frame"):
        encode_mp4([], fps=4.0)
    with pytest.raises(ShapeError, match=r"frames\[1\]"):
        encode_mp4([flat((0, 0, 0)), flat((0, 0, 0), 32, 32)], fps=4.0)
    with pytest.raises(ConfigError, match="fps"):
        encode_mp4([flat((0, 0, 0))], fps=0.0)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        write_mp4(tmp_path / "file" / "video.mp4", [flat((0, 0, 0))], fps=4.0)


def test_panels_lie_in_a_grid_with_the_map_beside() -> None:
    red, green, blue = (flat(colour, 10, 10) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    frame = compose_panels({"a": red, "b": green, "c": red}, ("map", blue), cell_px=40, footer="t = 1.0 s")
    assert frame.dtype == np.uint8
    label, gap, cell = 26, 6, 40
    np.testing.assert_array_equal(
        frame[label : label + cell, gap : gap + cell], 255 * np.eye(3)[0] + np.zeros((40, 40, 3))
    )
    np.testing.assert_array_equal(frame[label, 2 * gap + cell], (0, 255, 0))
    np.testing.assert_array_equal(frame[2 * label + cell, gap], (255, 0, 0))
    np.testing.assert_array_equal(frame[label + 5, 3 * gap + 2 * cell + 5], (0, 0, 255))
    assert (frame[2 * (label + cell) :] < 128).any(), "the footer is written"


def test_top_down_view_puts_things_where_they_are() -> None:
    wall = np.array([[0.0, 3.0], [1.0, 3.0], [1.0, 4.0], [0.0, 4.0]])
    view = TopDownView((0.0, 0.0, 8.0, 4.0), height_px=200, map=MapDrawing([wall], [(0.0, 0.0, 0.0)]))
    plan = np.array([[4.0, 1.0], [6.0, 1.0]])
    image = view.draw(
        (4.0, 2.0, 0.0), plan=plan, candidates=plan[None] + 1.0, costs=np.array([np.inf]), goal=(7.0, 3.5)
    )
    assert image.shape == (200, 400, 3)
    np.testing.assert_allclose(image[10:40, 10:40], 0.45 * 0.95 * 255, atol=1)  # paled black
    np.testing.assert_array_equal(image[150, 250], rgb255(BLUE))
    np.testing.assert_array_equal(image[100, 203], rgb255(VERMILLION))
    assert not np.array_equal(image, view.draw((4.0, 2.0, 1.5), plan=plan))
    np.testing.assert_array_equal(view.draw((4.0, 2.0, 0.0))[150, 250], 250)  # earlier drawings leave no trace
