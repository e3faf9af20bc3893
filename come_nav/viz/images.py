"""Images made of images: conversion to uint8, enlargement, contact sheets and labelled strips."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.errors import ShapeError
from come_nav.viz.canvas import DPI, new_figure, png_bytes
from come_nav.viz.palette import FAINT, INK

Image = NDArray[np.uint8]


def rgb_from_unit(images: Any) -> Image:
    """Return uint8 (..., H, W, 3) from float images (..., 3, H, W) in [-1, 1] (numpy, or torch on the CPU)."""
    array = np.asarray(images, dtype=np.float32)
    check_shape("images", array, "... 3 H W")
    scaled = np.clip(np.nan_to_num((array + 1.0) * 127.5), 0.0, 255.0)
    return np.moveaxis(np.rint(scaled).astype(np.uint8), -3, -1)


def check_rgb(name: str, image: Any) -> Image:
    """Return ``image`` if it is uint8 (H, W, 3); raise ShapeError otherwise."""
    array = np.asarray(image)
    check_shape(name, array, "H W 3")
    if array.dtype != np.uint8:
        raise ShapeError(f"{name} must be uint8, got {array.dtype}")
    return array


def enlarge(image: Image, height_px: int, smooth: bool = False) -> Image:
    """Resize (H, W, 3) to ``height_px`` rows, keeping the aspect: square pixels as they are, or cubic if ``smooth``."""
    import cv2

    width_px = max(1, round(image.shape[1] * height_px / image.shape[0]))
    larger = cv2.INTER_CUBIC if smooth else cv2.INTER_NEAREST
    method = cv2.INTER_AREA if height_px < image.shape[0] else larger
    return np.asarray(cv2.resize(image, (width_px, height_px), interpolation=method), dtype=np.uint8)


def difference_rgb(first: Image, second: Image) -> Image:
    """Return where two images differ, uint8 (H, W, 3): black = equal, white = a mean channel difference of 128 or more.

    Raises:
        ShapeError: when the images are not of one size.
    """
    check_rgb("first", first)
    if first.shape != second.shape:
        raise ShapeError(f"difference needs images of one size, got {first.shape} and {second.shape}")
    gap = np.abs(first.astype(np.int16) - second.astype(np.int16)).mean(axis=-1)
    grey = np.clip(np.rint(2.0 * gap), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def tile(images: Sequence[Image], columns: int, gap_px: int = 2, background: int = 255) -> Image:
    """Lay images (each (H, W, 3), one size) out row by row in ``columns`` columns; return one uint8 image.

    Raises:
        ShapeError: without images, with fewer than one column, or for images of several sizes.
    """
    if not images or columns < 1:
        raise ShapeError(f"a contact sheet needs images and columns >= 1, got {len(images)} images, {columns} columns")
    height, width = check_rgb("images[0]", images[0]).shape[:2]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    shape = (rows * height + (rows + 1) * gap_px, columns * width + (columns + 1) * gap_px, 3)
    sheet = np.full(shape, background, dtype=np.uint8)
    for index, image in enumerate(images):
        if check_rgb(f"images[{index}]", image).shape[:2] != (height, width):
            raise ShapeError(f"images[{index}] must be {height}x{width} like the first, got {image.shape[:2]}")
        top = gap_px + (index // columns) * (height + gap_px)
        left = gap_px + (index % columns) * (width + gap_px)
        sheet[top : top + height, left : left + width] = image
    return sheet


def png_from_rgb(image: Image) -> bytes:
    """Encode uint8 (H, W, 3) as PNG."""
    from PIL import Image as PillowImage

    buffer = io.BytesIO()
    PillowImage.fromarray(check_rgb("image", image)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def contact_sheet(images: Sequence[Image], columns: int, gap_px: int = 2) -> bytes:
    """Return a PNG of :func:`tile`: every image at its own size, pixel for pixel."""
    return png_from_rgb(tile(images, columns, gap_px))


def imagined_vs_real(
    rows: Sequence[tuple[str, Sequence[Image]]],
    column_names: Sequence[str] = (),
    title: str = "",
    cell_px: int = 96,
) -> bytes:
    """Return a PNG of labelled image strips, e.g. context, imagined, real and difference, one window per column.

    Args:
        rows: label and images (each uint8 (H, W, 3)) of every row; rows may differ in length and image size.
        column_names: one word above each column, e.g. the imagined time "+2.0 s".
        title: one line above all.
        cell_px: height at which every image is drawn.
    """
    if not rows or not any(images for _, images in rows):
        raise ShapeError("imagined_vs_real needs at least one row with one image")
    strips = [[enlarge(check_rgb(label, image), cell_px) for image in images] for label, images in rows]
    cell_width = max(image.shape[1] for strip in strips for image in strip)
    count = max(len(strip) for strip in strips)
    gap = 4
    mosaic = np.full((len(strips) * (cell_px + gap) - gap, count * (cell_width + gap) - gap, 3), 255, np.uint8)
    for row, strip in enumerate(strips):
        for column, image in enumerate(strip):
            top, left = row * (cell_px + gap), column * (cell_width + gap)
            mosaic[top : top + cell_px, left : left + image.shape[1]] = image
    labels = [label for label, _ in rows]
    return _labelled_mosaic(mosaic, labels, column_names, title, (cell_px + gap, cell_width + gap))


def _labelled_mosaic(
    mosaic: Image, labels: Sequence[str], column_names: Sequence[str], title: str, pitch_px: tuple[int, int]
) -> bytes:
    """Draw ``mosaic`` pixel for pixel with row labels at its left and column names above."""
    label_px = 16 + 9 * max(len(label) for label in labels)
    top_px = (24 if title else 4) + (20 if column_names else 0)
    height_px, width_px = mosaic.shape[0] + top_px + 4, mosaic.shape[1] + label_px + 6
    figure = new_figure(width_px / DPI, height_px / DPI)
    figure.set_layout_engine("none")
    figure.figimage(mosaic, xo=label_px, yo=4)
    for row, label in enumerate(labels):
        centre_px = top_px + (row + 0.5) * pitch_px[0]
        position = ((label_px - 8) / width_px, 1.0 - centre_px / height_px)
        figure.text(*position, label, ha="right", va="center", fontsize=8.5, color=INK)
    for column, name in enumerate(column_names):
        centre_px = label_px + (column + 0.5) * pitch_px[1]
        position = (centre_px / width_px, 1.0 - (top_px - 4) / height_px)
        figure.text(*position, name, ha="center", va="bottom", fontsize=8, color=INK)
    if title:
        figure.text(8 / width_px, 1.0 - 5 / height_px, title, ha="left", va="top", fontsize=9.5, color=INK)
    figure.patch.set_edgecolor(FAINT)
    return png_bytes(figure)
