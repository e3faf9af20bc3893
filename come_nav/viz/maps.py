"""Seen from above: world maps, trajectories and planning candidates, in metres with equal axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.errors import ShapeError
from come_nav.core.geometry import se2
from come_nav.viz.canvas import add_legend, new_figure, png_bytes, style_axes
from come_nav.viz.images import Image, check_rgb, enlarge
from come_nav.viz.palette import BLACK, BLUE, GREY, INK, OUTLINE, VERMILLION, colours_for, dashes_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_METRES = ("x [m]", "y [m]")
_PALING = 0.45


@dataclass(frozen=True)
class MapDrawing:
    """Filled polygons of a world seen from above.

    Attributes:
        polygons: one array (K, 2) of corners per polygon, metres; an array (M, 4, 2) is fine as well.
        colours: (M, 3) RGB in [0, 1], or empty for one quiet grey.
    """

    polygons: Sequence[NDArray[Any]]
    colours: Sequence[Any] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        for index, polygon in enumerate(self.polygons):
            check_shape(f"MapDrawing.polygons[{index}]", np.asarray(polygon), "K 2")
        if len(self.colours) not in (0, len(self.polygons)):
            raise ShapeError(f"MapDrawing has {len(self.polygons)} polygons but {len(self.colours)} colours")

    def colour_of(self, index: int) -> tuple[float, float, float]:
        """Return the RGB in [0, 1] that polygon ``index`` is drawn in: its own, paled so that paths stand out."""
        if len(self.colours) == 0:
            return (0.78, 0.80, 0.83)
        own = np.clip(np.asarray(self.colours[index], dtype=np.float64)[:3], 0.0, 1.0)
        red, green, blue = (float(value) for value in _PALING * 0.95 + (1.0 - _PALING) * own)
        return (red, green, blue)

    def seen_from(self, pose_map_xyyaw: NDArray[Any]) -> MapDrawing:
        """Return the map in the frame of a robot that stands at ``pose_map_xyyaw`` (3,) of this map."""
        pose_robot_map = se2.inverse(np.asarray(pose_map_xyyaw, dtype=np.float64))
        polygons = [se2.transform_points(pose_robot_map, np.asarray(polygon, float)) for polygon in self.polygons]
        return MapDrawing(polygons, self.colours)


def plot_trajectories(
    trajectories: Mapping[str, Any],
    map: MapDrawing | None = None,
    title: str = "",
    goals: Any = None,
) -> bytes:
    """Return a PNG of trajectories from above, in metres, equal axes; a dot marks each start, a triangle each end.

    Args:
        trajectories: name -> poses (N, 3) x m, y m, yaw rad (or positions (N, 2)), all in one frame; a row of NaN
            lifts the pen.
        map: drawn underneath, in the same frame.
        title: one line.
        goals: positions (G, 2) or poses (G, 3) marked with crosses.
    """
    figure = new_figure(7.0, 5.6)
    axes = figure.add_subplot()
    if map is not None:
        _draw_map(axes, map)
    colours, dashes = colours_for(trajectories), dashes_for(trajectories)
    for name, poses in trajectories.items():
        label: str | None = name
        for piece in _pieces(_poses(name, poses)):
            axes.plot(piece[:, 0], piece[:, 1], dashes[name], color=colours[name], linewidth=1.8, label=label, zorder=3)
            axes.plot(*piece[0, :2], "o", color=colours[name], markersize=4, zorder=4)
            _heading_mark(axes, piece[-1], colours[name])
            label = None  # one entry in the legend
    if goals is not None:
        points = np.atleast_2d(np.asarray(goals, float))
        axes.plot(points[:, 0], points[:, 1], "x", color=VERMILLION, markersize=8, label="goal", zorder=5)
    axes.set_aspect("equal", adjustable="datalim")
    style_axes(axes, *_METRES, title)
    add_legend(axes, columns=4, outside=True)
    return png_bytes(figure)


def plot_candidates(
    poses: Any,
    costs: Any,
    chosen: Any,
    truth: Any = None,
    images: Mapping[str, Image] | None = None,
    map: MapDrawing | None = None,
    title: str = "",
    goal: Any = None,
) -> bytes:
    """Return a PNG of what the planner considered, seen from above with the robot's forward direction up.

    Args:
        poses: (S, T, 3) candidates in the start frame (x forward, y left, metres).
        costs: (S,) total costs; rejected candidates (+inf or NaN) are dashed grey.
        chosen: (T, 3) the path that was chosen.
        truth: (T, 3) what the robot really drove.
        images: label -> uint8 (H, W, 3) shown beside the map, e.g. start, imagined, real, goal.
        map: in the start frame (see :meth:`MapDrawing.seen_from`).
        title: one line.
        goal: (2,) or (3,) goal position in the start frame.
    """
    candidates, values = np.asarray(poses, float), np.asarray(costs, float)
    sizes = check_shape("candidate poses", candidates, "S T 3")
    check_shape("candidate costs", values, str(sizes["S"]))
    figure = new_figure(9.0 if images else 6.2, 5.4)
    axes = _axes_beside_images(figure, dict(images or {}))
    limit_m = max(0.5, 1.15 * float(np.abs(candidates[..., :2]).max(initial=0.0)))
    if map is not None:
        _draw_map(axes, MapDrawing([np.asarray(p)[:, ::-1] for p in map.polygons], map.colours))
    _draw_candidates(figure, axes, candidates, values)
    if truth is not None:
        _draw_path(axes, truth, BLACK, "driven (truth)", "--")
    _draw_path(axes, chosen, BLUE, "chosen plan", "-")
    if goal is not None:
        axes.plot(float(goal[1]), float(goal[0]), "*", color=VERMILLION, markersize=14, label="goal", zorder=7)
    axes.plot(0.0, 0.0, "^", color=INK, markersize=9, zorder=7)
    axes.set_aspect("equal", adjustable="box", anchor="N")
    axes.set_xlim(limit_m, -limit_m)  # y points left in the image, as the robot sees it
    axes.set_ylim(-0.35 * limit_m, limit_m)
    style_axes(axes, "y, left of the start [m]", "x, ahead of the start [m]", title)
    add_legend(axes, place="upper left")
    return png_bytes(figure)


def _draw_candidates(figure: Figure, axes: Axes, poses: NDArray[Any], costs: NDArray[Any]) -> None:
    """Draw each candidate from the origin as a line coloured by its cost, the cheapest on top."""
    from matplotlib.collections import LineCollection

    lines = np.concatenate([np.zeros_like(poses[:, :1]), poses], axis=1)[..., [1, 0]]
    usable = np.isfinite(costs)
    rejected = LineCollection(list(lines[~usable]), colors=GREY, linewidths=0.7, linestyles=":", alpha=0.6)
    axes.add_collection(rejected)
    if not usable.any():
        return
    order = np.argsort(-costs[usable])
    collection = LineCollection(list(lines[usable][order]), cmap="viridis", linewidths=1.0, alpha=0.75)
    collection.set_array(costs[usable][order])
    axes.add_collection(collection)
    bar = figure.colorbar(collection, ax=axes, shrink=0.7, pad=0.02)
    bar.set_label("cost (lower is better)", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _draw_path(axes: Axes, poses: Any, colour: str, label: str, style: str) -> None:
    array = np.concatenate([np.zeros((1, 3)), _poses(label, poses)], axis=0)
    axes.plot(array[:, 1], array[:, 0], style, color="white", linewidth=4.5, zorder=5)
    axes.plot(array[:, 1], array[:, 0], style, color=colour, linewidth=2.4, label=label, zorder=6)
    axes.plot(array[-1, 1], array[-1, 0], "o", color=colour, markersize=5, zorder=6)


def _axes_beside_images(figure: Figure, images: dict[str, Image]) -> Axes:
    """Return the axes of the map at the left; labelled images fill a column at the right."""
    if not images:
        return figure.add_subplot()
    grid = figure.add_gridspec(len(images), 2, width_ratios=(3.2, 1.0))
    for row, (label, image) in enumerate(images.items()):
        axes = figure.add_subplot(grid[row, 1])
        axes.imshow(enlarge(check_rgb(label, image), 192, smooth=True))
        axes.set_title(label, fontsize=8, color=INK, pad=2)
        axes.set_axis_off()
    return figure.add_subplot(grid[:, 0])


def _draw_map(axes: Axes, drawing: MapDrawing) -> None:
    from matplotlib.collections import PolyCollection

    colours = [drawing.colour_of(index) for index in range(len(drawing.polygons))]
    corners = [np.asarray(polygon, float) for polygon in drawing.polygons]
    axes.add_collection(PolyCollection(corners, facecolors=colours, edgecolors=OUTLINE, linewidths=0.5, zorder=1))
    axes.autoscale_view()


def _heading_mark(axes: Axes, pose: NDArray[Any], colour: str) -> None:
    """Draw a small triangle that points where the robot looks; its size is in points, so that it is no distance."""
    if len(pose) == 3:
        turn_deg = float(np.degrees(pose[2])) - 90.0
        axes.plot(float(pose[0]), float(pose[1]), marker=(3, 0, turn_deg), color=colour, markersize=9, zorder=5)


def _pieces(poses: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Split poses at rows with NaN, so that one name may stand for several paths."""
    broken = np.isnan(poses).any(axis=1)
    parts = np.split(poses, np.flatnonzero(broken))
    kept = [part[~np.isnan(part).any(axis=1)] for part in parts]
    return [part for part in kept if len(part)]


def _poses(name: str, poses: Any) -> NDArray[np.float64]:
    array = np.asarray(poses, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] not in (2, 3):
        raise ShapeError(f"poses of '{name}' must have shape (N, 3) or (N, 2), got {array.shape}")
    return array
