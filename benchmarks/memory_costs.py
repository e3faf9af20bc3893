"""What memories cost by how long the robot has driven: milliseconds a frame and a read-out, and megabytes, in one run.

    python benchmarks/memory_costs.py --out benchmarks/results/memory_costs.json

One synthetic drive is shown to all memories: rendering 100,000 frames would take hours. The robot wanders about a large
hall; each frame is noise in front of a wall 1 to 6 m away, so that every frame has something new and all budgets are
reached. Between the marks clouds and the short-term memory are shown small frames (``--between`` pixels), because only
how much is remembered matters there, and nothing is encoded; the frames that are timed are of 64 pixels, as the shipped
model's. Clouds of colours and of latents have a budget of ``--points`` each, retrieval one of ``--kept`` frames, which
are reached before 1,000 frames. Times are of the processor, on one thread, medians of ``--timed``.

RGB cloud: observe; render and encode a view. Latent cloud: observe; read a view out. Retrieval: keep a frame if the
robot has moved; find 12 frames that show what lies ahead. Short-term: keep the newest 33; gather 16 of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine_facts
from numpy.typing import NDArray

from come_nav.cli.output import format_table
from come_nav.core.files import atomic_write_text
from come_nav.core.geometry import se2, se3
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics, Frame, Odometry
from come_nav.memory.frame_memory import FrameMemory
from come_nav.memory.retrieval_settings import FrameMemorySettings
from come_nav.memory.short_term import Remembered, ShortTermBuffer
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.latent.features import LatentFeatures
from come_nav.memory.spatial.latent.views import RememberedLatents
from come_nav.memory.spatial.remembered_views import RememberedViews
from come_nav.memory.spatial.settings import SpatialSettings
from come_nav.sim.sensors.mounting import camera_in_base
from come_nav.world_model.images import images_from_rgb
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import RenderedView

SIZE, HALL_M, RATE_HZ, RETRIEVED, GATHERED = 64, 60.0, 4.0, 12, 16
EXTRINSICS = camera_in_base(0.5)
FIGURES = {"frame_ms": "a frame [ms]", "read_out_ms": "a read-out [ms]", "mb": "MB"}
FULL_FROM, GOAL = 1000, 1.1  # frames at which all budgets are reached; growth from there to 100,000


@dataclass(frozen=True)
class Memory:
    """One memory: how it takes a frame, how it is looked at from a pose, and what it takes."""

    name: str
    observe: Callable[[Frame, NDArray[np.float64]], Any]
    read_out: Callable[[Frame, NDArray[np.float64]], Any]
    nbytes: Callable[[], int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[100, 1000, 10_000, 100_000])
    parser.add_argument("--points", type=int, default=10_000, help="budget of the clouds (default 10000)")
    parser.add_argument("--kept", type=int, default=300, help="budget of retrieval, frames (default 300)")
    parser.add_argument("--between", type=int, default=8, help="pixels of the frames that are not timed (default 8)")
    parser.add_argument("--timed", type=int, default=40, help="frames and read-outs timed at each mark (default 40)")
    parser.add_argument("--out", type=Path, help="JSON file to write, after each mark; a PNG beside it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        rows = drive(args)
    if args.out is not None:
        draw(rows, args.out.with_suffix(".png"))


def drive(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Show the drive to all memories; return a row for each of them at each mark."""
    model = DiffusionWorldModel.load(find_resource("models", "tiny"))
    memories, rows = made(model, args.points, args.kept), list[dict[str, Any]]()
    random = np.random.default_rng(0)
    pose, spent = np.zeros(3), {own.name: list[float]() for own in memories}
    for number in range(max(args.frames)):
        mark = next(own for own in sorted(args.frames) if number < own)
        timed = number >= mark - args.timed
        pose = step(pose, random)
        frame = synthetic(number, SIZE, random)
        small = frame if timed else synthetic(number, args.between, random)
        for own in memories:
            seen = frame if own.name == "retrieval" else small
            start = time.process_time()
            own.observe(seen, pose)
            spent[own.name].append(1e3 * (time.process_time() - start))
        if number == mark - 1:
            rows += [measured(own, number + 1, spent[own.name][-args.timed :], frame, pose, args) for own in memories]
            report(rows[-len(memories) :], args, rows)
    return rows


def made(model: DiffusionWorldModel, points: int, kept: int) -> list[Memory]:
    """Return the memories, empty."""
    settings = SpatialSettings(max_voxels=points)
    latent_settings = SpatialSettings("latent", max_voxels=points)
    channels, size = model.autoencoder.settings.latent_channels, model.autoencoder.settings.latent_size
    camera = CameraIntrinsics.from_field_of_view(SIZE, SIZE, 0.5 * np.pi)

    blank = torch.zeros(channels, size, size)

    def encode(frame: Frame) -> torch.Tensor:
        if len(frame.rgb) != SIZE:
            return blank
        return model.encode(images_from_rgb([frame.rgb], SIZE))[0]

    rgb, latent = SpatialMemory(settings), SpatialMemory(latent_settings, LatentFeatures(encode, channels))
    frames, newest = FrameMemory(FrameMemorySettings(use=True, max_frames=kept), SIZE), ShortTermBuffer(encode=encode)
    colours = RememberedViews(rgb, camera, EXTRINSICS)
    latents = RememberedLatents(latent, camera, EXTRINSICS, model.decode, size)

    def at(pose: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(pose)[None]

    def held() -> int:
        ring = newest.newest_frames(100)
        return sum(own.frame.rgb.nbytes + own.frame.depth_m.nbytes + own.features.nbytes for own in ring)

    return [
        Memory(
            "RGB cloud",
            rgb.observe,
            lambda _, pose: RenderedView(*colours.views(at(pose), SIZE)).encoded(model.encode),
            lambda: rgb.nbytes,
        ),
        Memory(
            "latent cloud",
            latent.observe,
            lambda _, pose: latents.latent_views(at(pose), size),
            lambda: latent.nbytes,
        ),
        Memory(
            "retrieval",
            lambda frame, pose: frames.observe(Remembered(frame.stamp_s, pose, frame, None)),
            lambda frame, pose: frames.showing(Remembered(frame.stamp_s, pose, frame, None), RETRIEVED, frame.stamp_s),
            lambda: frames.nbytes,
        ),
        Memory(
            "short-term",
            lambda frame, pose: newest.observe(frame, Odometry(frame.stamp_s, se3.transform_from_xyyaw(pose))),
            lambda *_: torch.stack([own.features for own in newest.newest_frames(GATHERED)]),
            held,
        ),
    ]


def step(pose: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Return where the robot is a quarter of a second later: it wanders, and turns about at the walls of the hall."""
    moved = se2.compose(pose, np.array([0.12, 0.0, random.normal(0.0, 0.12)]))
    if np.abs(moved[:2]).max() > 0.5 * HALL_M:
        return se2.compose(pose, np.array([0.0, 0.0, 2.0]))
    return np.asarray(moved)


def synthetic(number: int, size: int, random: np.random.Generator) -> Frame:
    """Return noise in front of a wall across the view, 1 to 6 m away."""
    camera = CameraIntrinsics.from_field_of_view(size, size, 0.5 * np.pi)
    rgb = random.integers(0, 256, (size, size, 3), np.uint8)
    depth = np.full((size, size), random.uniform(1.0, 6.0), np.float32)
    return Frame(number / RATE_HZ, rgb, depth, camera, EXTRINSICS)


def measured(
    memory: Memory,
    frames: int,
    spent: list[float],
    frame: Frame,
    pose: NDArray[np.float64],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Return what a memory costs once it has seen so many frames."""
    random, looked = np.random.default_rng(frames), list[float]()
    for _ in range(args.timed):
        beside = se2.compose(pose, random.normal(0.0, [0.3, 0.3, 0.5]))
        start = time.process_time()
        memory.read_out(frame, beside)
        looked.append(1e3 * (time.process_time() - start))
    return {
        "memory": memory.name,
        "frames": frames,
        "frame_ms": float(np.median(spent)),
        "read_out_ms": float(np.median(looked)),
        "mb": memory.nbytes() / 1e6,
        "n": args.timed,
    }


def ratios(rows: list[dict[str, Any]], low: int, high: int) -> dict[str, dict[str, float]]:
    """Return each memory's figures at ``high`` frames over those at ``low``, where both were reached."""
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(row["memory"] for row in rows):
        own = {row["frames"]: row for row in rows if row["memory"] == name}
        if low in own and high in own:
            found[name] = {key: own[high][key] / own[low][key] for key in FIGURES}
    return found


def report(new: list[dict[str, Any]], args: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    print(
        format_table(
            list(new[0]),
            [[value if isinstance(value, str) else f"{value:.3g}" for value in row.values()] for row in new],
        )
    )
    if args.out is None:
        return
    settings = {
        "points": args.points,
        "kept": args.kept,
        "between_px": args.between,
        "px": SIZE,
        "retrieved": RETRIEVED,
    }
    most = rows[-1]["frames"]
    grown = {"ratio_of": [FULL_FROM, most], "ratios": ratios(rows, FULL_FROM, most), "goal": GOAL}
    document = {"benchmark": "memory_costs", **settings, "rows": rows, **grown}
    atomic_write_text(args.out, json.dumps({**document, "machine": machine_facts()}, indent=2) + "\n")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the figures against the number of frames."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, len(FIGURES)), FIGURES.items(), strict=True):
        for name in dict.fromkeys(row["memory"] for row in rows):
            own = [row for row in rows if row["memory"] == name]
            axes.plot([row["frames"] for row in own], [row[key] for row in own], "o-", label=name)
        axes.set(xscale="log", yscale="log", xlabel="frames", title=title)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=90, metadata={"Software": ""})


if __name__ == "__main__":
    main()
