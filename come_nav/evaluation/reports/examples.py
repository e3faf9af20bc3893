"""A few windows shown in full: what was seen, tried, chosen and imagined, as figures and as a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.types import Plan
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.protocols.results import Record
from come_nav.evaluation.protocols.rows import Row, driven_path, tried_paths
from come_nav.viz.figures import MapDrawing, imagined_vs_real, plot_candidates, plot_trajectories, rgb_from_unit
from come_nav.viz.frames import TopDownView, compose_panels
from come_nav.viz.video import Mp4, encode_mp4

Image = NDArray[np.uint8]
# window -> obstacles around it in the start frame, or None where no map is known
MapFunction = Callable[[Window], "MapDrawing | None"]

_FORWARD_UP = np.array([0.0, 0.0, 0.5 * np.pi])


@dataclass(frozen=True)
class Example:
    """One window planned again for show; the same generator gives the plan that was evaluated.

    Attributes:
        label: e.g. "median".
        window: the problem.
        plan: of the main row.
        paths: row -> path (T, 3) that would be driven.
        imagined_rgb: view imagined at the chosen and at the true final pose (2 images), or empty.
        last_rgb, goal_rgb: real frames at the size of the imagined ones (or as recorded).
    """

    label: str
    window: Window
    plan: Plan
    paths: dict[str, NDArray[np.float64]]
    imagined_rgb: list[Image]
    last_rgb: Image
    goal_rgb: Image

    @property
    def place(self) -> str:
        """Recording and frame."""
        return f"{self.window.recording_id}, frame {self.window.start}"


def pick_examples(windows: Sequence[Window], records: Sequence[Record]) -> list[tuple[str, Window]]:
    """Return the windows with the best, the median and the worst ATE, so that no image is chosen by taste."""
    by_key = {(window.recording_id, window.start): window for window in windows}
    order = sorted(records, key=lambda record: (record["ate_m"], record["recording"], record["start"]))
    wanted = {"best": 0, "median": len(order) // 2, "worst": len(order) - 1}
    chosen: dict[int, str] = {}
    for label, index in wanted.items():
        chosen.setdefault(index, label)
    return [(label, by_key[order[i]["recording"], order[i]["start"]]) for i, label in chosen.items()]


def make_example(label: str, window: Window, main: Row, rows: Sequence[Row]) -> Example:
    """Plan ``window`` again with every row and collect the images of the ``main`` one."""
    plans = {row.name: row.plan(window, window.generator("plan", row.device)) for row in rows}
    paths = {name: driven_path(plan, window) for name, plan in plans.items()}
    imagined: list[Image] = []
    last, goal = window.recording.frame(window.start).rgb, window.goal_frame().rgb
    if main.imagine is not None and main.image is not None:
        ends = torch.from_numpy(np.stack([paths[main.name], window.driven_xyyaw])).float().to(main.device)
        views = main.imagine(window, ends, window.generator("image", main.device))
        imagined = list(rgb_from_unit(views.float().cpu()))
        frames = [window.recording.frame(window.start), window.goal_frame()]
        last, goal = (rgb_from_unit(main.image(frame).float().cpu()) for frame in frames)
    return Example(label, window, plans[main.name], paths, imagined, last, goal)


def candidates_figure(example: Example, map_of: MapFunction) -> bytes | None:
    """Return a PNG of what the main row tried, or None where it tried nothing."""
    tried = tried_paths(example.plan)
    if not len(tried) or example.plan.trace is None:
        return None
    costs = torch.cat([step.costs.detach().cpu() for step in example.plan.trace.iterations]).numpy()
    images = {"start": example.last_rgb}
    if example.imagined_rgb:
        images["imagined end"] = example.imagined_rgb[0]
    images["goal"] = example.goal_rgb
    return plot_candidates(
        tried,
        costs,
        example.plan.poses_xyyaw if len(example.plan.poses_xyyaw) else np.zeros((1, 3)),
        example.window.driven_xyyaw,
        images,
        map_of(example.window),
        f"{example.label}: {example.place}",
        example.window.driven_xyyaw[-1],
    )


def paths_figure(example: Example) -> bytes:
    """Return a PNG of every row's path beside the one really driven, in the start frame."""
    start = np.zeros((1, 3))
    paths = {"truth": example.window.driven_xyyaw, **example.paths}
    drawn = {name: np.concatenate([start, path]) for name, path in paths.items()}
    return plot_trajectories(drawn, None, f"{example.label}: {example.place}", example.window.driven_xyyaw[-1:])


def imagined_figure(examples: Sequence[Example]) -> bytes | None:
    """Return a PNG of imagined against real views, one example per column; None where nothing is imagined."""
    having = [example for example in examples if example.imagined_rgb]
    if not having:
        return None
    strips = [
        ("last seen", [example.last_rgb for example in having]),
        ("imagined, chosen pose", [example.imagined_rgb[0] for example in having]),
        ("imagined, true pose", [example.imagined_rgb[1] for example in having]),
        ("real goal", [example.goal_rgb for example in having]),
    ]
    return imagined_vs_real(strips, [example.label for example in having])


def video(examples: Sequence[Example], map_of: MapFunction, frames_per_second: float = 4.0) -> Mp4:
    """Return an MP4: the camera along the drive beside the plan made at its start, example by example."""
    reach_m = max(0.75, 1.2 * max(float(np.abs(example.window.driven_xyyaw[:, :2]).max()) for example in examples))
    frames = [frame for example in examples for frame in _example_frames(example, reach_m, map_of(example.window))]
    return encode_mp4(frames, frames_per_second)


def _example_frames(example: Example, reach_m: float, obstacles: MapDrawing | None) -> list[Image]:
    window = example.window
    up = None if obstacles is None else obstacles.seen_from(se2.inverse(_FORWARD_UP))
    view = TopDownView((-reach_m, -0.5 * reach_m, reach_m, 1.5 * reach_m), 416, up)
    driven = _turned(np.concatenate([np.zeros((1, 3)), window.driven_xyyaw]))
    plan = _turned(np.concatenate([np.zeros((1, 3)), driven_path(example.plan, window)]))
    tried = tried_paths(example.plan)
    search: dict[str, Any] = {}
    if len(tried) and example.plan.trace is not None:
        costs = torch.cat([step.costs.detach().cpu() for step in example.plan.trace.iterations]).numpy()
        search = {"candidates": _turned(tried), "costs": costs}
    stamps_s = np.asarray(window.recording.stamps_s[window.start : window.goal + 1]) - window.stamp_s
    frames = []
    for step in range(len(driven)):
        index = window.start + int(np.argmin(np.abs(stamps_s - step * window.dt_s)))
        panels: Mapping[str, Image] = {
            "camera": _same_size(window.recording.frame(index).rgb, example.goal_rgb),
            "goal": example.goal_rgb,
            **({"imagined at plan's end": example.imagined_rgb[0]} if example.imagined_rgb else {}),
            **({"imagined at true end": example.imagined_rgb[1]} if example.imagined_rgb else {}),
        }
        seen = view.draw(driven[step], driven[: step + 1], plan=plan, goal=driven[-1], **search)
        footer = f"{example.label}: {example.place}   +{step * window.dt_s:.2f} s"
        frames.append(compose_panels(panels, ("plan (blue) and drive (black)", seen), footer=footer))
    return frames


def _turned(poses_xyyaw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn poses of the start frame so that forward points up in an image."""
    return se2.compose(_FORWARD_UP, poses_xyyaw)


def _same_size(image: Image, like: Image) -> Image:
    """Crop ``image`` in the middle to the aspect of ``like``, so that every panel of a video has one shape."""
    height, width = image.shape[:2]
    wanted = like.shape[1] / like.shape[0]
    new_height, new_width = min(height, round(width / wanted)), min(width, round(height * wanted))
    top, left = (height - new_height) // 2, (width - new_width) // 2
    return image[top : top + new_height, left : left + new_width]
