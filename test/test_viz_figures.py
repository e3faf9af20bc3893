"""Figures: valid PNGs of a sensible size that change when the data change; exact layout where it can be known."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as PillowImage

from come_nav.core.errors import ShapeError
from come_nav.core.types import PlanTrace
from come_nav.viz import figures, palette
from come_nav.viz.images import enlarge, tile


def pixels(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return np.asarray(PillowImage.open(io.BytesIO(png)).convert("RGB"))


def image(seed: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def curve(amplitude_m: float) -> np.ndarray:
    x = np.linspace(0.0, 3.0, 20)
    return np.stack([x, amplitude_m * np.sin(x), np.zeros_like(x)], axis=1)


def candidates(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    poses = np.cumsum(generator.uniform(0.0, 0.2, (12, 8, 3)), axis=1)
    return poses, generator.uniform(0.0, 1.0, 12)


def candidate_figure(seed: int) -> bytes:
    poses, costs = candidates(seed)
    costs[0] = np.inf
    images = {"start": image(seed), "imagined": image(seed + 1)}
    return figures.plot_candidates(poses, costs, poses[3], poses[4], images, title="t", goal=(1.0, 0.2))


def trace(seed: int) -> PlanTrace:
    generator = np.random.default_rng(seed)
    steps = [SimpleNamespace(costs=generator.gamma(2.0, 1.0, 30), elite=np.arange(5)) for _ in range(3)]
    return PlanTrace(steps)  # type: ignore[arg-type]


FIGURES: dict[str, Callable[[int], bytes]] = {
    "trajectories": lambda k: figures.plot_trajectories({"truth": curve(1.0), "world model": curve(1.0 + k)}),
    "error": lambda k: figures.plot_error_over_time({"world model": (np.arange(8), np.arange(8) * (1.0 + k % 2) ** 2)}),
    "candidates": candidate_figure,
    "imagined": lambda k: figures.imagined_vs_real([("now", [image(k)] * 2), ("real", [image(k + 1)] * 3)], ["a"]),
    "bars": lambda k: figures.plot_bars_with_intervals(["a", "b"], [1.0, 2.0 + k], [0.8, 1.5], [1.2, 9.0], "ATE [m]"),
    "iterations": lambda k: figures.plot_cost_by_iteration(trace(k)),
    "scatter": lambda k: figures.plot_scatter(np.arange(9), (np.arange(9) * 5 + k) % 7, "cost", "error [m]"),
}


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_figure_is_a_png_that_follows_the_data(name: str) -> None:
    make = FIGURES[name]
    first, again, other = make(1), make(1), make(2)
    image = pixels(first)
    assert image.shape[0] >= 150
    assert image.shape[1] >= 300
    assert (image.reshape(-1, 3) == 255).all(axis=1).mean() < 0.995, "the figure is blank"
    assert first == again, "the same data must give the same bytes"
    assert first != other, "other data must give another image"


def test_trajectories_use_the_known_colour_and_equal_axes() -> None:
    square = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0], [0.0, 0.0]])
    image = pixels(figures.plot_trajectories({"world model": square}))
    blue = (np.abs(image.astype(int) - palette.rgb255(palette.BLUE)) <= 12).all(axis=2)
    axes_part = blue[: int(0.85 * image.shape[0])]  # without the legend below
    rows, columns = np.flatnonzero(axes_part.any(axis=1)), np.flatnonzero(axes_part.any(axis=0))
    assert np.ptp(rows) > 100
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), rel=0.03), "a square must be drawn square"


def test_candidates_point_forward_up_and_left_left() -> None:
    ahead_left = np.linspace([0.1, 0.1, 0.0], [1.0, 1.0, 0.0], 8)
    poses = np.stack([ahead_left, ahead_left])
    image = pixels(figures.plot_candidates(poses, np.array([np.inf, np.inf]), ahead_left))
    blue = (np.abs(image.astype(int) - palette.rgb255(palette.BLUE)) <= 12).all(axis=2)
    blue[:110] = False  # the legend
    rows, columns = np.nonzero(blue)
    assert columns[rows.argmin()] < columns[rows.argmax()], "the path must run up and to the left"


def test_map_seen_from_a_pose_is_the_inverse_transform() -> None:
    drawing = figures.MapDrawing([np.array([[1.0, 2.0], [3.0, 2.0], [3.0, 5.0]])])
    seen = drawing.seen_from(np.array([1.0, 2.0, np.pi / 2]))
    np.testing.assert_allclose(seen.polygons[0], [[0.0, 0.0], [0.0, -2.0], [3.0, -2.0]], atol=1e-12)


def test_tile_layout_is_exact() -> None:
    images = [np.full((2, 3, 3), value, dtype=np.uint8) for value in (10, 20, 30)]
    sheet = tile(images, columns=2, gap_px=1, background=7)
    expected = np.full((7, 9), 7)
    expected[1:3, 1:4], expected[1:3, 5:8], expected[4:6, 1:4] = 10, 20, 30
    np.testing.assert_array_equal(sheet[..., 0], expected)
    np.testing.assert_array_equal(pixels(figures.contact_sheet(images, 2, 0))[:2, :6, 1], [[10] * 3 + [20] * 3] * 2)


def test_difference_and_conversion_are_exact() -> None:
    dark, bright = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 100, np.uint8)
    assert figures.difference_rgb(dark, bright).ravel().tolist() == [200, 200, 200]
    assert figures.difference_rgb(bright, bright).max() == 0
    unit = np.array([-1.0, 0.0, 1.0, 2.0]).reshape(1, 1, 4).repeat(3, axis=0)
    assert figures.rgb_from_unit(unit)[0, :, 0].tolist() == [0, 128, 255, 255]


def test_enlarge_keeps_square_pixels() -> None:
    small = image(3, 4)
    np.testing.assert_array_equal(enlarge(small, 8), small.repeat(2, axis=0).repeat(2, axis=1))


def test_rows_keep_their_colour_and_never_share_one() -> None:
    alone = palette.colours_for(["my model"])["my model"]
    together = palette.colours_for(["truth", "stand still", "my model"])
    assert together["my model"] == alone
    assert together["stand still"] == palette.GREY
    names = ["world model", "constant velocity", "perfect model", "a", "b", "c"]
    assert len(set(palette.colours_for(names).values())) == len(names)


@pytest.mark.parametrize(
    "call",
    [
        lambda: figures.plot_trajectories({"bad": np.zeros(3)}),
        lambda: figures.plot_candidates(np.zeros((3, 8, 3)), np.zeros(2), np.zeros((8, 3))),
        lambda: figures.plot_error_over_time({"bad": (np.zeros(3), np.zeros(2))}),
        lambda: figures.contact_sheet([], 2),
        lambda: figures.contact_sheet([image(0, 4), image(0, 5)], 2),
        lambda: figures.contact_sheet([image(0).astype(np.float32)], 2),
        lambda: figures.imagined_vs_real([]),
        lambda: figures.plot_cost_by_iteration([]),
        lambda: figures.MapDrawing([np.zeros((4, 2))], [(0, 0, 0)] * 2),
    ],
)
def test_wrong_shapes_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ShapeError):
        call()


def test_all_costs_rejected_still_gives_a_figure() -> None:
    poses, costs = candidates(0)
    assert pixels(figures.plot_candidates(poses, np.full_like(costs, np.nan), poses[0])).shape[0] > 300
    assert pixels(figures.plot_cost_by_iteration([np.full(5, np.inf), np.ones(5)])).shape[0] > 300


def test_intervals_are_drawn() -> None:
    narrow = figures.plot_bars_with_intervals(["a"], [1.0], [0.9], [1.5], "ATE [m]", n=3)
    assert narrow != figures.plot_bars_with_intervals(["a"], [1.0], [0.5], [1.5], "ATE [m]", n=3)
    assert narrow != figures.plot_bars_with_intervals(["a"], [1.0], [0.9], [1.5], "ATE [m]", n=4)
    line = np.arange(5.0)
    plain = figures.plot_error_over_time({"a": (line, line)})
    assert plain != figures.plot_error_over_time({"a": (line, line, line * 0.5, line)})


def test_a_row_of_nan_lifts_the_pen() -> None:
    left, right = np.array([[0.0, 0.0, 0.0], [0.0, 4.0, 0.0]]), np.array([[4.0, 0.0, 0.0], [4.0, 4.0, 0.0]])
    joined = pixels(figures.plot_trajectories({"world model": np.concatenate([left, right])}))
    apart = pixels(figures.plot_trajectories({"world model": np.concatenate([left, np.full((1, 3), np.nan), right])}))
    blue = [(np.abs(image.astype(int) - palette.rgb255(palette.BLUE)) <= 12).all(axis=2) for image in (joined, apart)]
    middle = slice(blue[0].shape[1] * 2 // 5, blue[0].shape[1] * 3 // 5)
    plot = slice(0, int(0.8 * blue[0].shape[0]))
    assert blue[0][plot, middle].any()
    assert not blue[1][plot, middle].any()
