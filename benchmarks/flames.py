"""Flame graphs of torch profiles: who calls whom, each as wide as its share of the time."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

LEAST, LEVELS = 0.004, 7  # share of the time below which nothing is drawn; calls within calls
CALL_TREE = dict[tuple[str, ...], float]


def call_tree(events: Iterable[Any], device: bool) -> CALL_TREE:
    """Return the share of the time that is spent under each path of names, of a device or of the processor."""
    total: dict[tuple[str, ...], float] = defaultdict(float)
    for event in events:
        own_us = event.self_device_time_total if device else event.self_cpu_time_total
        if own_us <= 0 or event.name.startswith(("ProfilerStep", "cuda", "Activity")):
            continue
        path, above = [event.name], event.cpu_parent
        while above is not None:
            path.append(above.name)
            above = above.cpu_parent
        names = [name.removeprefix("aten::").lstrip("_") for name in reversed(path)][:LEVELS]
        for level in range(1, len(names) + 1):
            total[tuple(names[:level])] += own_us
    whole = sum(spent for path, spent in total.items() if len(path) == 1)
    return {path: spent / whole for path, spent in total.items()} if whole else {}


def draw(trees: Mapping[str, CALL_TREE], out: Path) -> None:
    """Write one image with a flame graph for each name."""
    figure, axes = plt.subplots(len(trees), 1, figsize=(14, 2.6 * len(trees)), squeeze=False)
    for axis, (name, tree) in zip(axes[:, 0], trees.items(), strict=True):
        axis.set_title(name, loc="left", fontsize=10)
        axis.set(xlim=(0, 1), ylim=(0, LEVELS), xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_visible(False)
        _draw_under(axis, tree, (), 0.0)
    figure.tight_layout()
    figure.savefig(out, dpi=90, metadata={"Software": ""})
    plt.close(figure)


def _draw_under(axis: Any, tree: CALL_TREE, above: tuple[str, ...], left: float) -> None:
    below = {path: share for path, share in tree.items() if path[:-1] == above and share >= LEAST}
    for path, share in sorted(below.items(), key=lambda pair: -pair[1]):
        hue = zlib.crc32(path[-1].encode()) % 1000 / 1000  # the same name has the same colour everywhere
        colour = plt.get_cmap("YlOrRd")(0.15 + 0.6 * hue)
        axis.add_patch(plt.Rectangle((left, len(path) - 1), share, 0.96, facecolor=colour, edgecolor="white"))
        letters = int(share * 190)
        if letters >= 4:
            words = f"{path[-1]} {100 * share:.0f} %"
            shown = words if len(words) <= letters else path[-1][:letters]
            axis.text(left + 0.002, len(path) - 0.5, shown, va="center", fontsize=6.5, clip_on=True)
        _draw_under(axis, tree, path, left)
        left += share
