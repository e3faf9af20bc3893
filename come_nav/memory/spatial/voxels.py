"""A bounded voxel map: points with features merge into cells, the least useful cells make room for new ones.

Rows are dense, so that readers take plain slices; a sorted list of cell keys finds the row of a cell. Every operation
is vectorised, and none costs more than a pass over the budget, however many frames have gone in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range, check_shape
from come_nav.core.errors import ShapeError
from come_nav.memory.map_frame import UNANCHORED

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

_BITS = 21  # of each axis in a key
_HALF = 1 << (_BITS - 1)
FIELDS = ("xyz", "features", "weight", "hits", "stamp_s", "key", "anchor")
SPARE = 0.05  # of the capacity, forgotten in addition when it is full, so that not every frame has to look for room


def cell_keys(points_xyz: NDArray[Any], voxel_m: float) -> IntArray:
    """Return one key (N,) for each point's cell; -1 for points that are not finite or more than 2**20 cells away."""
    with np.errstate(invalid="ignore"):
        cells = np.floor(points_xyz / voxel_m)
        inside = np.all(np.abs(cells) < _HALF - 1, axis=1)  # NaN compares false
    shifted = np.where(inside[:, None], cells, 0.0).astype(np.int64) + _HALF
    keys: IntArray = (shifted[:, 0] << (2 * _BITS)) | (shifted[:, 1] << _BITS) | shifted[:, 2]
    keys[~inside] = -1
    return keys


def reach_of(voxel_m: float) -> float:
    """Return how far from the origin cells of this edge reach along each axis, m."""
    return (_HALF - 2) * voxel_m


def merged_by_cell(
    points_xyz: NDArray[Any], features: NDArray[Any], weights: NDArray[Any], voxel_m: float
) -> tuple[IntArray, FloatArray]:
    """Return the sorted keys (U,) of the cells that points hit, and rows (U, 1 + 3 + C): weight, mean xyz, features."""
    keys = cell_keys(points_xyz, voxel_m)
    order = np.argsort(keys)
    order = order[np.searchsorted(keys[order], 0) :]  # without those at key -1
    keys = keys[order]
    weight = np.asarray(weights, np.float64)[order, None]
    values = np.concatenate([points_xyz[order], features[order]], axis=1).astype(np.float64)
    if not len(keys):
        return keys, np.empty((0, 4 + features.shape[1]), np.float32)
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    sums = np.add.reduceat(np.concatenate([weight, weight * values], axis=1), first, axis=0)
    sums[:, 1:] /= sums[:, :1]
    return keys[first], sums.astype(np.float32)


def anchored(state: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return a saved state with an anchor for each cell, which version 0.1 did not know: none."""
    if "anchor" in state or "weight" not in state:
        return state
    return {**state, "anchor": np.full(len(state["weight"]), UNANCHORED, np.int32)}


def checked_state(state: dict[str, NDArray[Any]], channels: int, capacity: int) -> tuple[int, IntArray]:
    """Return how many cells a saved state holds, and their keys (N,); raise ShapeError where it is none."""
    missing = [name for name in FIELDS if name not in state]
    if missing:
        raise ShapeError(f"a voxel map needs the arrays {', '.join(FIELDS)}; {', '.join(missing)} is missing")
    count = check_shape("xyz", state["xyz"], "N 3")["N"]
    check_shape("features", state["features"], f"{count} {channels}")
    for name in FIELDS[2:]:
        check_shape(name, state[name], f"{count}")
    keys = np.asarray(state["key"], np.int64)
    if count > capacity or len(np.unique(keys)) != count or (keys < 0).any():
        raise ShapeError(f"a voxel map of at most {capacity} cells cannot hold these {count}, or two are one")
    return count, keys


class VoxelMap:
    """Cells of ``voxel_m`` metres with a mean position, mean features, a weight, a count of looks and a stamp.

    Attributes:
        voxel_m: edge of a cell.
        capacity: most cells kept.
        channels: C, features of a point (3 for colour).
        max_weight: a cell's weight never exceeds this, so that newer looks keep counting.
        max_hits: the count of looks never exceeds this, so that what vanished can be unlearnt in bounded time.
        forget_s, forget_m: see :meth:`make_room`.
        evicted: cells that made room so far.
    """

    def __init__(
        self,
        voxel_m: float,
        capacity: int,
        channels: int = 3,
        *,
        max_weight: float = 8.0,
        max_hits: float = 10.0,
        forget_s: float = 600.0,
        forget_m: float = 20.0,
    ) -> None:
        self.voxel_m = check_range("voxel_m", voxel_m, 0.0, open_low=True)
        self.capacity = int(check_range("capacity", capacity, 1))
        self.channels = int(check_range("channels", channels, 1))
        self.max_weight = check_range("max_weight", max_weight, 0.0, open_low=True)
        self.max_hits = check_range("max_hits", max_hits, 1.0)
        self.forget_s = check_range("forget_s", forget_s, 0.0, open_low=True)
        self.forget_m = check_range("forget_m", forget_m, 0.0, open_low=True)
        self.evicted = 0
        self.clear()

    def clear(self) -> None:
        """Forget all cells."""
        self._count = 0
        self._rows = _empty_rows(min(1024, self.capacity), self.channels)
        self._sorted_keys: IntArray = np.empty(0, np.int64)
        self._sorted_rows: IntArray = np.empty(0, np.int64)

    def __len__(self) -> int:
        return self._count

    @property
    def xyz(self) -> FloatArray:
        """Mean positions (N, 3) in metres; a view, valid until the next change."""
        return self._rows["xyz"][: self._count]

    @property
    def features(self) -> FloatArray:
        """Mean features (N, C)."""
        return self._rows["features"][: self._count]

    @property
    def weight(self) -> FloatArray:
        """Sum of the weights (N,) that went into the means, at most ``max_weight``."""
        return self._rows["weight"][: self._count]

    @property
    def hits(self) -> FloatArray:
        """Looks (N,) that saw the cell, less those that saw through it, at most ``max_hits``."""
        return self._rows["hits"][: self._count]

    @property
    def stamp_s(self) -> NDArray[np.float64]:
        """Time (N,) of the newest look at each cell."""
        return self._rows["stamp_s"][: self._count]

    @property
    def anchor(self) -> NDArray[np.int32]:
        """Key frame (N,) that was the newest at the newest look at each cell; -1 = none."""
        return self._rows["anchor"][: self._count]

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take, allocated reserve included."""
        arrays = [*self._rows.values(), self._sorted_keys, self._sorted_rows]
        return sum(int(array.nbytes) for array in arrays)

    def add(
        self,
        points_xyz: NDArray[Any],
        features: NDArray[Any],
        weights: NDArray[Any],
        stamp_s: float,
        position_xyz: NDArray[Any],
        anchor: int = UNANCHORED,
    ) -> tuple[int, int]:
        """Merge points into their cells by weighted means; where there is no room, forget cells of little use.

        Args:
            points_xyz: (M, 3); points that are not finite are left out.
            features: (M, C).
            weights: (M,) > 0.
            stamp_s: time of the look.
            position_xyz: (3,) where the robot is; cells far from there make room first (see :meth:`make_room`).
            anchor: the newest key frame.

        Returns:
            how many cells were new, and how many were known.

        Raises:
            ShapeError: for arrays that do not agree.
        """
        count = check_shape("points_xyz", points_xyz, "M 3")["M"]
        check_shape("features", features, f"{count} {self.channels}")
        check_shape("weights", weights, f"{count}")
        keys, columns = merged_by_cell(points_xyz, features, weights, self.voxel_m)
        place, known = self._find(keys)
        rows = self._sorted_rows[place[known]]
        self._update(rows, columns[known], stamp_s, anchor)
        fresh = ~known
        added = int(fresh.sum())
        if added:
            if self._count + added > self.capacity:
                spare = int(SPARE * self.capacity)
                self.make_room(self._count + added - self.capacity + spare, stamp_s, position_xyz)
            self._insert(keys[fresh], columns[fresh], stamp_s, anchor)
        return added, len(rows)

    def remove(self, gone: NDArray[np.bool_]) -> int:
        """Forget the cells of a mask (N,); return how many. Rows change their order."""
        check_shape("gone", gone, f"{self._count}")
        removed = int(gone.sum())
        if not removed:
            return 0
        kept = self._count - removed
        staying = ~gone[self._sorted_rows]
        self._sorted_keys, self._sorted_rows = self._sorted_keys[staying], self._sorted_rows[staying]
        holes = np.flatnonzero(gone[:kept])
        movers = kept + np.flatnonzero(~gone[kept:])
        for array in self._rows.values():
            array[holes] = array[movers]
        self._sorted_rows[np.searchsorted(self._sorted_keys, self._rows["key"][holes])] = holes
        self._count = kept
        return removed

    def weaken(self, rows: IntArray, loss: NDArray[Any]) -> int:
        """Take ``loss`` (R,) looks from cells ``rows`` (R,); forget those with none left; return how many."""
        hits = self.hits
        hits[rows] -= loss
        gone = np.zeros(self._count, bool)
        gone[rows] = hits[rows] <= 0.0
        return self.remove(gone)

    def make_room(self, wanted: int, now_s: float, position_xyz: NDArray[Any]) -> int:
        """Forget the ``wanted`` cells of least use: old, far from ``position_xyz`` (3,), or seldom seen.

        The use of a cell is log2(1 + hits) - age / forget_s - distance / forget_m: twice the looks are worth
        ``forget_s`` seconds or ``forget_m`` metres.
        """
        wanted = min(int(wanted), self._count)
        if wanted <= 0:
            return 0
        distances = np.linalg.norm(self.xyz - np.asarray(position_xyz, np.float32), axis=1)
        use = np.log2(1.0 + self.hits) - (now_s - self.stamp_s) / self.forget_s - distances / self.forget_m
        gone = np.zeros(self._count, bool)
        gone[np.argpartition(use, wanted - 1)[:wanted]] = True
        self.evicted += wanted
        return self.remove(gone)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return copies of all rows as plain arrays."""
        return {name: self._rows[name][: self._count].copy() for name in FIELDS}

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Replace all cells by those of :meth:`state`.

        Raises:
            ShapeError: for missing arrays, shapes that do not agree, two points of one cell, or too many of them.
        """
        state = anchored(state)
        count, keys = checked_state(state, self.channels, self.capacity)
        self.clear()
        self._reserve(count)
        for name in FIELDS:
            self._rows[name][:count] = state[name]
        self._count = count
        self._sorted_rows = np.argsort(keys)
        self._sorted_keys = keys[self._sorted_rows]

    def stamps_at(self, keys: IntArray) -> NDArray[np.float64]:
        """Return the stamp (N,) of the last look at the cells of ``keys`` (N,) in s, NaN where there is none."""
        place, known = self._find(keys)
        stamps = np.full(len(keys), np.nan)
        stamps[known] = self.stamp_s[self._sorted_rows[place[known]]]
        return stamps

    def _find(self, keys: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
        """Return the place of each key in the sorted list and whether it is there."""
        place = np.searchsorted(self._sorted_keys, keys)
        known = np.zeros(len(keys), bool)
        within = place < len(self._sorted_keys)
        known[within] = self._sorted_keys[place[within]] == keys[within]
        return place, known

    def _update(self, rows: IntArray, columns: FloatArray, stamp_s: float, anchor: int) -> None:
        weight, xyz, features = self.weight, self.xyz, self.features
        total = weight[rows] + columns[:, 0]
        gain = (columns[:, 0] / total)[:, None]
        xyz[rows] += gain * (columns[:, 1:4] - xyz[rows])
        features[rows] += gain * (columns[:, 4:] - features[rows])
        weight[rows] = np.minimum(total, self.max_weight)
        self.hits[rows] = np.minimum(self.hits[rows] + 1.0, self.max_hits)
        self.stamp_s[rows] = np.maximum(self.stamp_s[rows], stamp_s)
        self.anchor[rows] = anchor

    def _insert(self, keys: IntArray, columns: FloatArray, stamp_s: float, anchor: int) -> None:
        """Append cells; of more than the whole capacity those with the most weight."""
        if len(keys) > self.capacity - self._count:
            chosen = np.sort(np.argsort(-columns[:, 0], kind="stable")[: self.capacity - self._count])
            keys, columns = keys[chosen], columns[chosen]
        start, stop = self._count, self._count + len(keys)
        self._reserve(stop)
        self._count = stop
        self.weight[start:] = np.minimum(columns[:, 0], self.max_weight)
        self.xyz[start:], self.features[start:] = columns[:, 1:4], columns[:, 4:]
        self.hits[start:], self.stamp_s[start:], self.anchor[start:] = 1.0, stamp_s, anchor
        self._rows["key"][start:stop] = keys
        place = np.searchsorted(self._sorted_keys, keys)
        self._sorted_keys = np.insert(self._sorted_keys, place, keys)
        self._sorted_rows = np.insert(self._sorted_rows, place, np.arange(start, stop))

    def _reserve(self, wanted: int) -> None:
        have = len(self._rows["key"])
        if wanted <= have:
            return
        larger = _empty_rows(min(self.capacity, max(wanted, 2 * have)), self.channels)
        for name, array in larger.items():
            array[: self._count] = self._rows[name][: self._count]
        self._rows = larger


def _empty_rows(size: int, channels: int) -> dict[str, NDArray[Any]]:
    return {
        "xyz": np.empty((size, 3), np.float32),
        "features": np.empty((size, channels), np.float32),
        "weight": np.empty(size, np.float32),
        "hits": np.empty(size, np.float32),
        "stamp_s": np.empty(size, np.float64),
        "key": np.empty(size, np.int64),
        "anchor": np.empty(size, np.int32),
    }
