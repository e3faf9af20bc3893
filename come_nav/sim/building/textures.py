"""Procedural surface textures: shared patterns and, per world, its own posters. Images are (3, S, S) in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

TEXTURE_SIZE = 64
IMAGES_PER_WORLD = 10


def value_noise(rng: np.random.Generator, size: int, cells: int, octaves: int = 3) -> NDArray[np.float64]:
    """Return smooth periodic noise (size, size) in about [0, 1]."""
    total = np.zeros((size, size))
    weight_sum = 0.0
    for octave in range(octaves):
        count = cells * 2**octave
        if count > size:
            break
        lattice = rng.random((count, count))
        position = (np.arange(size) + 0.5) / size * count
        low = np.floor(position).astype(int)
        fraction = position - low
        fraction = fraction * fraction * (3 - 2 * fraction)
        low, high = low % count, (low + 1) % count
        rows = lattice[low] * (1 - fraction[:, None]) + lattice[high] * fraction[:, None]
        weight = 0.5**octave
        total += weight * (rows[:, low] * (1 - fraction) + rows[:, high] * fraction)
        weight_sum += weight
    return total / weight_sum


def _grey(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.repeat(values[None], 3, axis=0)


def _axes() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows, columns = np.mgrid[0:TEXTURE_SIZE, 0:TEXTURE_SIZE]
    return rows, columns


def _plain(rng: np.random.Generator) -> NDArray[np.float64]:
    return _grey(0.95 + 0.05 * value_noise(rng, TEXTURE_SIZE, 4))


def _planks(rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = _axes()
    plank = rows // 16
    shade = rng.uniform(0.68, 1.0, (4, 2))
    shift = (plank * 23) % TEXTURE_SIZE
    half = ((columns + shift) % TEXTURE_SIZE) // 32
    grain = value_noise(rng, TEXTURE_SIZE, 4)[:, :1] * 0.1 + 0.05 * value_noise(rng, TEXTURE_SIZE, 8)
    values = shade[plank, half] - grain
    values[(rows % 16 == 0) | ((columns + shift) % 32 == 0)] *= 0.55
    return _grey(values)


def _tiles(rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = _axes()
    shade = rng.uniform(0.86, 1.0, (2, 2))[rows // 32, columns // 32]
    values = shade - 0.06 * value_noise(rng, TEXTURE_SIZE, 8)
    values[(rows % 32 < 2) | (columns % 32 < 2)] = 0.55
    return _grey(values)


def _bricks(rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = _axes()
    course = rows // 16
    along = (columns + 16 * (course % 2)) % TEXTURE_SIZE
    shade = rng.uniform(0.7, 1.0, (4, 2))[course, along // 32]
    values = shade - 0.1 * value_noise(rng, TEXTURE_SIZE, 16, 1)
    values[(rows % 16 < 2) | (along % 32 < 2)] = 0.95
    return _grey(values)


def _stripes(rng: np.random.Generator) -> NDArray[np.float64]:
    _, columns = _axes()
    return _grey(np.where(columns % 32 < 14, 0.72, 1.0) - 0.03 * rng.random((TEXTURE_SIZE, TEXTURE_SIZE)))


def _carpet(rng: np.random.Generator) -> NDArray[np.float64]:
    return _grey(0.72 + 0.2 * value_noise(rng, TEXTURE_SIZE, 8) + 0.1 * rng.random((TEXTURE_SIZE, TEXTURE_SIZE)))


def _checker(rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = _axes()
    return _grey(np.where((rows // 32 + columns // 32) % 2 == 0, 1.0, 0.42) - 0.05 * value_noise(rng, TEXTURE_SIZE, 8))


def _panels(rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = _axes()
    values = 0.92 + 0.05 * value_noise(rng, TEXTURE_SIZE, 4)
    inner = (np.abs(rows - 31.5) < 26) & (np.abs(columns - 31.5) < 26)
    edge = inner & ~((np.abs(rows - 31.5) < 24) & (np.abs(columns - 31.5) < 24))
    values[edge] = 0.62
    values[(rows == 0) | (columns == 0)] = 0.7
    return _grey(values)


def _dots(rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = _axes()
    shifted = columns + 16 * ((rows // 32) % 2)
    distance = np.hypot(rows % 32 - 15.5, shifted % 32 - 15.5)
    return _grey(np.where(distance < 7, 0.62, 1.0) - 0.03 * rng.random((TEXTURE_SIZE, TEXTURE_SIZE)))


def _wood(rng: np.random.Generator) -> NDArray[np.float64]:
    rings = value_noise(rng, TEXTURE_SIZE, 2, 2)
    rows, _ = _axes()
    return _grey(0.86 + 0.12 * np.sin(2 * np.pi * (rows / 16 + 1.5 * rings)) * 0.8)


def _books(rng: np.random.Generator) -> NDArray[np.float64]:
    values = np.full((3, TEXTURE_SIZE, TEXTURE_SIZE), 0.16)
    for shelf in range(3):
        bottom, column = 21 * shelf + 20, 1
        while column < TEXTURE_SIZE - 3:
            width, height = int(rng.integers(2, 6)), int(rng.integers(11, 19))
            colour = rng.uniform(0.15, 1.0, 3)
            values[:, bottom - height : bottom, column : column + width] = colour[:, None, None]
            column += width + int(rng.random() < 0.2)
        values[:, bottom : bottom + 2] = 0.62
    values[:, :, [0, 1, -1, -2]] = 0.62
    return values


def _drawers(rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = _axes()
    values = 0.92 - 0.05 * value_noise(rng, TEXTURE_SIZE, 4)
    values[(rows % 16 < 2) | (columns % 64 < 1)] = 0.45
    values[(np.abs(rows % 16 - 8) < 1.5) & (np.abs(columns - 31.5) < 6)] = 0.25
    return _grey(values)


def _leaves(rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = _axes()
    values = np.full((TEXTURE_SIZE, TEXTURE_SIZE), 0.35)
    for _ in range(70):
        row, column = rng.uniform(0, TEXTURE_SIZE, 2)
        angle, shade = rng.uniform(0, np.pi), rng.uniform(0.45, 1.0)
        dy = (rows - row + 32) % TEXTURE_SIZE - 32
        dx = (columns - column + 32) % TEXTURE_SIZE - 32
        along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        values[(along / 8) ** 2 + (across / 3) ** 2 < 1] = shade
    return _grey(values)


def _weave(rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = _axes()
    return _grey(0.82 + 0.12 * np.where((rows // 8 + columns // 8) % 2 == 0, 1, -1) * rng.uniform(0.8, 1.0))


def _cardboard(rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = _axes()
    values = 0.9 + 0.1 * value_noise(rng, TEXTURE_SIZE, 4)
    values[np.abs(columns - 31.5) < 5] *= 0.72
    values[(rows > 40) & (rows < 52) & (columns > 6) & (columns < 22)] = 1.1
    return _grey(values)


def _concrete(rng: np.random.Generator) -> NDArray[np.float64]:
    return _grey(0.7 + 0.3 * value_noise(rng, TEXTURE_SIZE, 3, 5))


def _diamonds(rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = _axes()
    distance = np.abs(rows % 32 - 15.5) + np.abs(columns % 32 - 15.5)
    return _grey(np.where(distance < 11, 0.66, 1.0) - 0.04 * rng.random((TEXTURE_SIZE, TEXTURE_SIZE)))


def _doors(rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = _axes()
    values = 0.92 - 0.06 * value_noise(rng, TEXTURE_SIZE, 3)
    values[np.abs(columns - 31.5) < 1.5] = 0.35
    values[(rows < 2) | (rows > 61) | (columns < 2) | (columns > 61)] = 0.5
    values[(np.abs(rows - 31.5) < 6) & ((np.abs(columns - 26) < 1.5) | (np.abs(columns - 37) < 1.5))] = 0.15
    return _grey(values)


_PATTERNS: dict[str, Callable[[np.random.Generator], NDArray[np.float64]]] = {
    "plain": _plain,
    "planks": _planks,
    "tiles": _tiles,
    "bricks": _bricks,
    "stripes": _stripes,
    "carpet": _carpet,
    "checker": _checker,
    "panels": _panels,
    "dots": _dots,
    "wood": _wood,
    "books": _books,
    "drawers": _drawers,
    "leaves": _leaves,
    "weave": _weave,
    "cardboard": _cardboard,
    "concrete": _concrete,
    "diamonds": _diamonds,
    "doors": _doors,
}
PATTERN_INDEX = {name: index for index, name in enumerate(_PATTERNS)}
PATTERN_COUNT = len(_PATTERNS)


@lru_cache(maxsize=1)
def make_patterns() -> Image:
    """Return the patterns that all worlds share (P, 3, S, S), read-only."""
    images = [make(np.random.default_rng(7000 + index)) for index, make in enumerate(_PATTERNS.values())]
    patterns = np.clip(np.stack(images), 0.0, 1.0).astype(np.float32)
    patterns.setflags(write=False)
    return patterns


def make_images(rng: np.random.Generator, count: int = IMAGES_PER_WORLD) -> Image:
    """Return posters (count, 3, S, S): a window, a whiteboard, then landscapes and abstract ones."""
    makers = [_landscape, _blocks, _circles, _waves, _sign]
    images = [_window(rng), _whiteboard(rng)]
    images += [makers[int(rng.integers(len(makers)))](rng) for _ in range(count - 2)]
    return np.clip(np.stack(images), 0.0, 1.0).astype(np.float32)


def _framed(image: NDArray[np.float64], colour: NDArray[np.float64]) -> NDArray[np.float64]:
    for edge in (np.s_[:, :3], np.s_[:, -3:], np.s_[:, :, :3], np.s_[:, :, -3:]):
        image[edge] = colour[:, None, None]
    return image


def _filled(colour: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.broadcast_to(colour[:, None, None], (3, TEXTURE_SIZE, TEXTURE_SIZE)).copy()


def _window(rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = _axes()
    sky = np.array([0.75, 0.88, 1.0])[:, None, None] + 0.2 * (rows / TEXTURE_SIZE)[None]
    ground = rows > 40 + 5 * np.sin(columns / 9 + rng.uniform(0, 6))
    image = np.where(
        ground[None], rng.uniform(0.3, 0.7, 3)[:, None, None] * np.array([0.7, 1.0, 0.6])[:, None, None], sky
    )
    image[:, 30:34] = image[:, :, 30:34] = 0.97
    return _framed(image, np.full(3, 0.97))


def _whiteboard(rng: np.random.Generator) -> NDArray[np.float64]:
    image = _filled(np.full(3, 0.97))
    for row in range(10, 54, 8):
        start, stop = np.sort(rng.integers(6, 58, 2))
        image[:, row : row + 2, start:stop] = rng.uniform(0.0, 0.7, 3)[:, None, None]
    return _framed(image, np.full(3, 0.5))


def _landscape(rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = _axes()
    top, low = rng.uniform(0.3, 1.0, 3), rng.uniform(0.4, 1.0, 3)
    blend = (rows / TEXTURE_SIZE)[None]
    image = top[:, None, None] * (1 - blend) + low[:, None, None] * blend
    sun = np.hypot(rows - rng.uniform(8, 24), columns - rng.uniform(12, 52)) < rng.uniform(4, 9)
    image[:, sun] = np.array([1.0, 0.9, 0.5])[:, None]
    for base in (32, 44):
        hill = rows > base + rng.uniform(4, 9) * np.sin(columns * rng.uniform(0.06, 0.2) + rng.uniform(0, 6))
        image[:, hill] = rng.uniform(0.05, 0.75, 3)[:, None]
    return _framed(image, rng.uniform(0.05, 0.6, 3))


def _blocks(rng: np.random.Generator) -> NDArray[np.float64]:
    image = _filled(rng.uniform(0.5, 1.0, 3))
    for _ in range(int(rng.integers(4, 8))):
        row, column = rng.integers(2, 48, 2)
        height, width = rng.integers(8, 32, 2)
        image[:, row : row + height, column : column + width] = rng.uniform(0, 1, 3)[:, None, None]
    return _framed(image, rng.choice([0.08, 0.9], 1).repeat(3))


def _circles(rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = _axes()
    image = _filled(rng.uniform(0.2, 1.0, 3))
    row, column = rng.uniform(18, 46, 2)
    for radius in (27, 20, 13, 6):
        image[:, np.hypot(rows - row, columns - column) < radius] = rng.uniform(0, 1, 3)[:, None]
    return _framed(image, rng.uniform(0.05, 0.95, 3))


def _waves(rng: np.random.Generator) -> NDArray[np.float64]:
    rows, columns = _axes()
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(0.15, 0.45)
    phase = (rows * np.cos(angle) + columns * np.sin(angle)) * pitch
    wave = np.sin(phase + rng.uniform(0, 2) * np.sin(columns * 0.12)) > 0
    one, two = rng.uniform(0, 1, 3), rng.uniform(0, 1, 3)
    return _framed(np.where(wave[None], one[:, None, None], two[:, None, None]), rng.uniform(0.05, 0.5, 3))


def _sign(rng: np.random.Generator) -> NDArray[np.float64]:
    ground, ink = rng.uniform(0.0, 1.0, 3), rng.choice([0.02, 0.98])
    image = _filled(ground)
    for row in (12, 28, 44):
        for column in range(8, 56, 10):
            if rng.random() < 0.75:
                image[:, row : row + int(rng.integers(4, 11)), column : column + int(rng.integers(3, 8))] = ink
    return _framed(image, np.full(3, ink))
