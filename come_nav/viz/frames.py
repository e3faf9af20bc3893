"""Frames of a video: labelled panels side by side, and a map from above that is redrawn quickly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.geometry import se2
from come_nav.viz.images import Image, check_rgb, enlarge
from come_nav.viz.maps import MapDrawing
from come_nav.viz.palette import BLACK, BLUE, GREY, INK, OUTLINE, VERMILLION, rgb255

_LABEL_PX = 26
_GAP_PX = 6


def compose_panels(
    panels: Mapping[str, Image],
    beside: tuple[str, Image] | None = None,
    cell_px: int = 208,
    columns: int = 2,
    footer: str = "",
) -> Image:
    """Return one uint8 frame: labelled images in a grid, a larger one (the map) at their right, a line of text below.

    Args:
        panels: label -> uint8 (H, W, 3), e.g. camera, imagined, goal, real; each is drawn ``cell_px`` high and keeps
            its aspect and its square pixels.
        beside: label and image that fills the frame's whole height.
        cell_px: height of the images in the grid.
        columns: of the grid.
        footer: one line below, e.g. the time.
    """
    cells = [(label, enlarge(check_rgb(label, image), cell_px)) for label, image in panels.items()]
    columns = max(1, min(columns, len(cells)))
    rows = -(-len(cells) // columns)
    pitch_x = max((cell.shape[1] for _, cell in cells), default=0) + _GAP_PX
    height_px = rows * (cell_px + _LABEL_PX)
    placed = [
        (label, cell, (index // columns) * (cell_px + _LABEL_PX) + _LABEL_PX, _GAP_PX + (index % columns) * pitch_x)
        for index, (label, cell) in enumerate(cells)
    ]
    width_px = _GAP_PX + columns * pitch_x
    if beside is not None:
        large = enlarge(check_rgb(beside[0], beside[1]), height_px - _LABEL_PX, smooth=True)
        placed.append((beside[0], large, _LABEL_PX, width_px))
        width_px += large.shape[1] + _GAP_PX
    frame = np.full((height_px + (_LABEL_PX if footer else _GAP_PX), width_px, 3), 255, dtype=np.uint8)
    for _, image, top, left in placed:
        frame[top : top + image.shape[0], left : left + image.shape[1]] = image
    words = [(label, (left + 2, top - _LABEL_PX + 6)) for label, _, top, left in placed]
    return write_words(frame, [*words, *([(footer, (_GAP_PX + 2, height_px + 5))] if footer else [])])


def write_words(image: Image, words: Sequence[tuple[str, tuple[int, int]]], size_px: int = 14) -> Image:
    """Return a copy of ``image`` with each text drawn at (left, top) pixels."""
    from pathlib import Path

    import matplotlib
    from PIL import Image as PillowImage
    from PIL import ImageDraw, ImageFont

    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size_px)
    canvas = PillowImage.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    for text, place in words:
        draw.text(place, text, fill=rgb255(INK), font=font)
    return np.asarray(canvas, dtype=np.uint8)


class TopDownView:
    """Draws paths over a map with OpenCV, fast enough for every frame of a video (the map itself is drawn once).

    Args:
        bounds_m: (x_min, y_min, x_max, y_max) of the world that fills the image, metres; x right, y up.
        height_px: height of the image; the width follows the bounds.
        map: drawn underneath.
    """

    def __init__(
        self,
        bounds_m: tuple[float, float, float, float],
        height_px: int = 256,
        map: MapDrawing | None = None,
    ) -> None:
        x_min, y_min, x_max, y_max = (float(value) for value in bounds_m)
        self._corner_m = np.array([x_min, y_max])
        self._px_per_m = height_px / max(y_max - y_min, 1e-6)
        width_px = max(2, round((x_max - x_min) * self._px_per_m))
        self._background = np.full((height_px, width_px, 3), 250, dtype=np.uint8)
        if map is not None:
            self._fill(map)

    def draw(
        self,
        pose_xyyaw: Any,
        driven: Any = None,
        candidates: Any = None,
        costs: Any = None,
        plan: Any = None,
        goal: Any = None,
    ) -> Image:
        """Return the image uint8 (H, W, 3) with the robot at ``pose_xyyaw`` (3,); all poses in the map's frame.

        Args:
            pose_xyyaw: robot, drawn as an arrow head.
            driven: (N, 2+) where it came from, black.
            candidates: (S, T, 2+) paths, coloured by ``costs`` (S,) from light (dear) to dark (cheap).
            costs: (S,); non-finite ones are grey.
            plan: (T, 2+) chosen path, blue.
            goal: (2,) or (3,), a vermillion ring.
        """
        import cv2

        image = self._background.copy()
        if candidates is not None:
            self._candidates(image, np.asarray(candidates, float), np.asarray(costs, float))
        for path, colour, width_px in ((driven, BLACK, 2), (plan, BLUE, 3)):
            if path is not None and len(path) > 1:
                self._line(image, path, (255, 255, 255), width_px + 3)
                self._line(image, path, rgb255(colour), width_px)
        if goal is not None:
            centre = self._pixels(np.asarray(goal, float)[None, :2])[0]
            cv2.circle(image, tuple(int(v) for v in centre >> 4), 7, rgb255(VERMILLION), 2, cv2.LINE_AA)
        self._robot(image, np.asarray(pose_xyyaw, float))
        return image

    def _pixels(self, points_m: NDArray[Any]) -> NDArray[np.int32]:
        """Return pixel coordinates times 16 (OpenCV's sub-pixel shift of 4 bits)."""
        offset = (np.asarray(points_m, float)[..., :2] - self._corner_m) * (self._px_per_m, -self._px_per_m)
        return np.asarray(np.rint(np.clip(offset, -1e5, 1e5) * 16.0), dtype=np.int32)

    def _fill(self, drawing: MapDrawing) -> None:
        import cv2

        for index, polygon in enumerate(drawing.polygons):
            colour = tuple(round(255 * value) for value in drawing.colour_of(index))
            corners = [self._pixels(np.asarray(polygon))]
            cv2.fillPoly(self._background, corners, colour, cv2.LINE_AA, 4)
            cv2.polylines(self._background, corners, True, rgb255(OUTLINE), 1, cv2.LINE_AA, 4)

    def _line(self, image: Image, path: Any, colour: tuple[int, int, int], width_px: int) -> None:
        import cv2

        cv2.polylines(image, [self._pixels(np.asarray(path, float))], False, colour, width_px, cv2.LINE_AA, 4)

    def _candidates(self, image: Image, paths: NDArray[Any], costs: NDArray[Any]) -> None:
        from matplotlib import colormaps

        sizes = check_shape("candidates", paths, "S T *")
        check_shape("costs", costs, str(sizes["S"]))
        usable = np.isfinite(costs)
        low, high = (float(costs[usable].min()), float(costs[usable].max())) if usable.any() else (0.0, 1.0)
        shades = colormaps["viridis"](np.clip((costs - low) / max(high - low, 1e-12), 0.0, 1.0))
        for index in np.argsort(np.where(usable, -costs, -np.inf)):
            red, green, blue = (int(255 * value) for value in shades[index][:3])
            self._line(image, paths[index], (red, green, blue) if usable[index] else rgb255(GREY), 1)

    def _robot(self, image: Image, pose_xyyaw: NDArray[Any]) -> None:
        import cv2

        size_m = 9.0 / self._px_per_m
        shape = np.array([[1.4, 0.0], [-0.8, 0.9], [-0.3, 0.0], [-0.8, -0.9]]) * size_m
        corners = se2.transform_points(pose_xyyaw[:3], shape)
        cv2.fillPoly(image, [self._pixels(corners)], rgb255(VERMILLION), cv2.LINE_AA, 4)
