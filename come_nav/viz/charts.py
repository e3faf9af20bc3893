"""Charts of numbers: errors over time, means with intervals, cost by iteration, scatter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import ShapeError
from come_nav.core.types import PlanTrace
from come_nav.viz.canvas import add_legend, new_figure, png_bytes, style_axes
from come_nav.viz.palette import BLUE, GREY, INK, ORANGE, colours_for, dashes_for


def plot_error_over_time(
    series: Mapping[str, tuple[Any, ...]],
    title: str = "",
    y_label: str = "position error [m]",
    x_label: str = "time [s]",
    from_zero: bool = True,
) -> bytes:
    """Return a PNG of errors, or of any other quantity, over time.

    Args:
        series: name -> (times_s (N,), errors_m (N,)) or (times_s, errors_m, lows_m, highs_m) with an interval band.
        title: one line; say n here.
        y_label: quantity and unit.
        x_label: quantity and unit.
        from_zero: let the vertical axis begin at 0, as errors should.
    """
    figure = new_figure(7.0, 3.8)
    axes = figure.add_subplot()
    colours, dashes = colours_for(series), dashes_for(series)
    for name, values in series.items():
        times_s, errors_m, *band = (np.asarray(value, dtype=float) for value in values)
        _same_length(name, times_s, errors_m, *band)
        mark = "o" if len(times_s) <= 30 else ""
        axes.plot(times_s, errors_m, color=colours[name], linestyle=dashes[name], marker=mark, markersize=3, label=name)
        if len(band) == 2:
            axes.fill_between(times_s, band[0], band[1], color=colours[name], alpha=0.15, linewidth=0)
    if from_zero:
        axes.set_ylim(bottom=0.0)
    style_axes(axes, x_label, y_label, title)
    add_legend(axes, columns=3, outside=True)
    return png_bytes(figure)


def plot_bars_with_intervals(
    names: Sequence[str],
    means: Sequence[float],
    lows: Sequence[float],
    highs: Sequence[float],
    unit: str,
    title: str = "",
    n: int | None = None,
) -> bytes:
    """Return a PNG of horizontal bars, one per name from the top, with an interval [low, high] and the value.

    Args:
        names: row names; known rows keep their colour.
        means: bar lengths.
        lows: lower ends of the 95 % intervals.
        highs: upper ends of the 95 % intervals.
        unit: of the numbers, e.g. "ATE [m]".
        title: one line.
        n: number of windows behind each mean, written on the axis.
    """
    _same_length("bars", names, means, lows, highs)
    figure = new_figure(7.0, 1.1 + 0.42 * max(1, len(names)))
    axes = figure.add_subplot()
    places = list(range(len(names)))
    values = np.asarray(means, float)
    spread = np.abs(np.stack([values - np.asarray(lows, float), np.asarray(highs, float) - values]))
    colours = colours_for(names)
    axes.barh(places, values, color=[colours[name] for name in names], alpha=0.85, height=0.62)
    axes.errorbar(values, places, xerr=spread, fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
    ends = np.nan_to_num(np.fmax(values, np.asarray(highs, float)))
    reach = max(float(ends.max(initial=0.0)), 1e-9)
    for place, end, value in zip(places, ends, values, strict=True):
        axes.text(end + 0.015 * reach, place, f"{value:#.3g}", va="center", fontsize=8, color=INK)
    axes.set_yticks(places, list(names))
    axes.invert_yaxis()
    axes.set_xlim(min(0.0, float(np.nanmin(np.append(values, 0.0)))), 1.12 * reach)
    count = f"   (n = {n} windows, 95 % intervals)" if n is not None else "   (95 % intervals)"
    style_axes(axes, f"{unit}{count}", "", title)
    axes.grid(False, axis="y")
    return png_bytes(figure)


def plot_cost_by_iteration(trace: PlanTrace | Sequence[Any], title: str = "") -> bytes:
    """Return a PNG of how a search went: best, elite mean and the 5-95 % band of the costs at each iteration.

    Args:
        trace: a PlanTrace, or one array of costs (S,) per iteration. Non-finite costs are left out and counted.
        title: one line.
    """
    costs, elites = _costs_and_elites(trace)
    if not costs:
        raise ShapeError("plot_cost_by_iteration needs a trace with at least one iteration")
    figure = new_figure(6.0, 3.6)
    axes = figure.add_subplot()
    numbers = np.arange(1, len(costs) + 1)
    finite = [values[np.isfinite(values)] for values in costs]
    low, middle, high = (np.array([_quantile(values, q) for values in finite]) for q in (0.05, 0.5, 0.95))
    best = np.array([values.min() if len(values) else np.nan for values in finite])
    axes.fill_between(numbers, low, high, color=GREY, alpha=0.25, linewidth=0, label="5-95 % of candidates")
    axes.plot(numbers, middle, color=GREY, linestyle=":", marker="o", markersize=3, label="median")
    if elites:
        axes.plot(numbers, [_mean(values) for values in elites], "--s", color=ORANGE, markersize=4, label="elite mean")
    axes.plot(numbers, best, "-o", color=BLUE, markersize=4, label="best")
    axes.set_xticks(numbers)
    rejected = sum(len(values) - len(kept) for values, kept in zip(costs, finite, strict=True))
    samples = f"{len(costs[0])} candidates each" + (f", {rejected} rejected" if rejected else "")
    style_axes(axes, f"iteration ({samples})", "cost (lower is better)", title)
    add_legend(axes)
    return png_bytes(figure)


def plot_scatter(
    x: Any,
    y: Any,
    x_label: str,
    y_label: str,
    title: str = "",
    groups: Sequence[str] | None = None,
    diagonal: bool = False,
) -> bytes:
    """Return a PNG of points (N,) against (N,), coloured by group; ``diagonal`` draws y = x for comparisons."""
    first, second = np.asarray(x, float), np.asarray(y, float)
    _same_length("scatter", first, second, *([groups] if groups is not None else []))
    figure = new_figure(5.2, 4.6)
    axes = figure.add_subplot()
    members = np.array(groups if groups is not None else [""] * len(first))
    colours = colours_for(members.tolist()) if groups is not None else {"": BLUE}
    for name, colour in colours.items():
        chosen = members == name
        axes.scatter(first[chosen], second[chosen], s=16, color=colour, alpha=0.65, linewidths=0, label=name or None)
    if diagonal and len(first):
        ends = [float(np.nanmin([first, second])), float(np.nanmax([first, second]))]
        axes.plot(ends, ends, color=GREY, linewidth=1.0, linestyle="--", label="equal")
    style_axes(axes, x_label, y_label, title or f"n = {len(first)}")
    add_legend(axes)
    return png_bytes(figure)


def _costs_and_elites(trace: PlanTrace | Sequence[Any]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    if not isinstance(trace, PlanTrace):
        return [np.asarray(values, float).reshape(-1) for values in trace], []
    costs: list[NDArray[Any]] = [np.asarray(step.costs, float).reshape(-1) for step in trace.iterations]
    elites = [values[np.asarray(step.elite, int)] for values, step in zip(costs, trace.iterations, strict=True)]
    return costs, elites


def _quantile(values: NDArray[Any], q: float) -> float:
    return float(np.quantile(values, q)) if len(values) else float("nan")


def _mean(values: NDArray[Any]) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else float("nan")


def _same_length(name: str, *columns: Any) -> None:
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise ShapeError(f"'{name}' needs columns of one length, got {lengths}")
