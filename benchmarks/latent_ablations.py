"""What each choice of a spatial memory of latents is worth: seen views, read out and decoded, and what that costs.

    python benchmarks/latent_ablations.py --worlds 4 --out benchmarks/results/latent_ablations.json

Drives through validation worlds with realistic sensors (noise, exposure, depth that ends and lies, odometry that
drifts), the shipped model's autoencoder. The memory sees every frame where odometry believes it; then the views that it
saw are read out, decoded, and compared with what the same camera saw there. In worlds with people it is compared with
what the camera would have seen without them. Rows change one choice of the first one; differences are paired by view,
intervals are bootstrapped over worlds. Times are of the processor, on one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine_facts
from numpy.typing import NDArray

from come_nav.cli.output import format_table
from come_nav.core.files import atomic_write_text
from come_nav.core.geometry import se3
from come_nav.core.geometry.point_rendering import fill_unseen
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics
from come_nav.evaluation.metrics.image_metrics import psnr, ssim
from come_nav.evaluation.metrics.statistics import bootstrap_mean
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.latent.views import RememberedLatents
from come_nav.memory.spatial.lifting import model_camera
from come_nav.memory.spatial.settings import LatentSettings, SpatialSettings
from come_nav.navigation.memories.remembered_space import space_of
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.settings import sensor_settings
from come_nav.sim.worlds import WorldSettings, generate_world
from come_nav.world_model.images import images_from_rgb
from come_nav.world_model.model import DiffusionWorldModel

PEOPLE, SMALL_BUDGET = 4, 200
BASE = SpatialSettings("latent")
UNMERGED = replace(BASE, latent=LatentSettings(merge=False))
ReadOut = Callable[[RememberedLatents, torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]


def nearest_of_cell(source: RememberedLatents, pose: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return latents (C, h, w), holes filled, and what is known (h, w): as plans read them."""
    latents, known, _ = source.latent_views(pose, size)
    return fill_unseen(latents, known)[0], known[0]


def all_of_cell(source: RememberedLatents, pose: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean of all points of each cell, however far behind others they lie: no visibility."""
    camera, memory = model_camera(source.camera, size, source.aspect), source.memory
    T_camera_odom = se3.inverse(se3.transform_from_xyyaw(pose[0].double().numpy()) @ source.T_base_camera)
    optical = se3.transform_points(T_camera_odom, memory.points_xyz.astype(np.float64))
    ahead = np.maximum(optical[:, 2], 1e-6)
    u = np.floor(camera.fx * optical[:, 0] / ahead + camera.cx).astype(int)
    v = np.floor(camera.fy * optical[:, 1] / ahead + camera.cy).astype(int)
    inside = (optical[:, 2] > 0.05) & (u >= 0) & (u < size) & (v >= 0) & (v < size)
    cell = v[inside] * size + u[inside]
    count = np.bincount(cell, minlength=size * size)
    features = memory.point_features[inside]
    sums = np.stack([np.bincount(cell, own, size * size) for own in features.T])
    mean = torch.from_numpy(sums / np.maximum(count, 1)).float().unflatten(1, (size, size))
    known = torch.from_numpy(count > 0).unflatten(0, (size, size))
    return fill_unseen(mean[None], known[None])[0], known


@dataclass(frozen=True)
class Choice:
    """One row: how latents are remembered, and how they are read out."""

    name: str
    settings: SpatialSettings
    read_out: ReadOut = nearest_of_cell
    base: str = ""  # the row that it is compared with


def latent(**options: Any) -> SpatialSettings:
    return replace(BASE, latent=LatentSettings(**options))


STILL = (
    Choice("as it ships: cells, bilinear, merged, z-buffer", BASE),
    Choice("depth of the nearest pixel", latent(depth="nearest")),
    Choice("depth: median of the cell", latent(depth="median")),
    Choice("depth: mean of the cell (area)", latent(depth="area")),
    Choice("lifted at pixels, latents interpolated", latent(lift="pixels")),
    Choice("every point kept (Mirage)", UNMERGED),
    Choice(f"budget of {SMALL_BUDGET} points", replace(BASE, max_voxels=SMALL_BUDGET)),
    Choice("no visibility: all points of a cell", BASE, all_of_cell),
    Choice("mean of the surface, gaps closed (blend)", latent(readout="blend")),
)
LIVELY = (
    Choice("people remembered: nothing carved", replace(BASE, carve_looks=0.0)),
    Choice("carved when seen through (as it ships)", BASE),
    Choice("left out by 8 earlier looks", replace(BASE, carve_looks=0.0, earlier_looks=8)),
    Choice("both", replace(BASE, earlier_looks=8)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=4, help="validation worlds, from 10000 on (default 4)")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each drive (default 12)")
    parser.add_argument("--every", type=int, default=2, help="views that are read out: one of so many (default 2)")
    parser.add_argument("--out", type=Path, help="JSON file to write, after each world")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = DiffusionWorldModel.load(find_resource("models", "tiny"))
    parts = {"still": (0, STILL), f"{PEOPLE} people": (PEOPLE, LIVELY)}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in parts}
    with torch.inference_mode():
        for world in range(args.worlds):
            for name, (people, choices) in parts.items():
                found[name] += measured(10_000 + world, people, choices, model, args)
            document = {"benchmark": "latent_ablations", "worlds": world + 1, "seconds": args.seconds}
            tables = {name: summary(found[name], choices) for name, (_, choices) in parts.items()}
            report(tables)
            if args.out is not None:
                text = json.dumps({**document, "tables": tables, "machine": machine_facts()}, indent=2)
                atomic_write_text(args.out, text + "\n")


def drives(seed: int, people: int, seconds: float) -> tuple[EpisodeRecording, EpisodeRecording]:
    """Return a drive among people, and the same one without them; both are one where there are none."""
    sensors = sensor_settings("realistic")
    camera = CameraIntrinsics.from_field_of_view(64, 64, 0.5 * math.pi)
    empty = generate_world(seed)
    episode = simulate_episode(empty, "tour", seconds, seed=1, odometry_noise=sensors.odometry)
    still = EpisodeRecording(episode, Raycaster([empty], camera), sensors=sensors)
    if not people:
        return still, still
    peopled = generate_world(seed, replace(WorldSettings(), people=people))
    return EpisodeRecording(episode, Raycaster([peopled], camera), sensors=sensors), still


def measured(
    seed: int, people: int, choices: tuple[Choice, ...], model: DiffusionWorldModel, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return PSNR, SSIM and known share of every view that was seen, for each choice, and what that cost."""
    drive, still = drives(seed, people, args.seconds)
    frames = [drive.frame(index) for index in range(len(drive))]
    truth = images_from_rgb([still.frame(index).rgb for index in range(len(drive))], model.image_size)
    latents = {frame.stamp_s: model.encode(images_from_rgb([frame.rgb], model.image_size))[0] for frame in frames}
    rows = []
    for choice in choices:
        memory = space_of(model, choice.settings, lambda frame: latents[frame.stamp_s])
        written = [timed(memory.observe, frame, drive.T_odom_base[index]) for index, frame in enumerate(frames)]
        rows += views(seed, choice, memory, drive, truth, model, float(np.median(written)), args.every)
    return rows


def views(
    seed: int,
    choice: Choice,
    memory: SpatialMemory,
    drive: EpisodeRecording,
    truth: torch.Tensor,
    model: DiffusionWorldModel,
    write_ms: float,
    every: int,
) -> list[dict[str, Any]]:
    size = model.autoencoder.settings.latent_size
    source = RememberedLatents(memory, drive.intrinsics, drive.T_base_camera, model.decode, size)
    rows = []
    for index in range(0, len(drive), every):
        pose = torch.from_numpy(drive.poses_xyyaw[index : index + 1])
        shown: list[Any] = []
        read_ms = timed(lambda: shown.append(choice.read_out(source, pose, size)))  # noqa: B023  called at once
        own, known = shown[0]
        image, wanted = model.decode(own[None]).clamp(-1.0, 1.0), truth[index : index + 1]
        rows.append(
            {
                "world": seed,
                "view": index,
                "row": choice.name,
                "psnr_db": float(psnr(image, wanted)),
                "ssim": float(ssim(image, wanted)),
                "known": float(known.float().mean()),
                "write_ms": write_ms,
                "read_ms": read_ms,
                "points": len(memory),
                "kb": memory.nbytes / 1e3,
            }
        )
    return rows


def timed(call: Callable[..., Any], *told: Any) -> float:
    """Return the processor's milliseconds of a call."""
    start = time.process_time()
    call(*told)
    return 1e3 * (time.process_time() - start)


def summary(rows: list[dict[str, Any]], choices: tuple[Choice, ...]) -> list[dict[str, Any]]:
    """Return the means of each row, and its differences from the first, paired by view."""
    first = {(row["world"], row["view"]): row for row in rows if row["row"] == choices[0].name}
    found = []
    for choice in choices:
        own = [row for row in rows if row["row"] == choice.name]
        clusters = [row["world"] for row in own]
        told: dict[str, Any] = {"row": choice.name, "n": len(own)}
        for key in ("psnr_db", "ssim", "known"):
            values = np.array([row[key] for row in own])
            base = np.array([first[row["world"], row["view"]][key] for row in own])
            told[key] = interval(values, clusters)
            if choice is not choices[0] and key != "known":
                told[f"{key}_difference"] = interval(values - base, clusters)
        for key in ("write_ms", "read_ms", "points", "kb"):
            told[key] = float(np.median([row[key] for row in own]))
        found.append(told)
    return found


def interval(values: NDArray[np.float64], clusters: list[int]) -> dict[str, float]:
    own = bootstrap_mean(values, 0, clusters if len(set(clusters)) > 1 else None)
    return {"value": own.value, "low": own.low, "high": own.high}


def report(tables: dict[str, list[dict[str, Any]]]) -> None:
    for name, rows in tables.items():
        print(f"\n{name}")
        keys = ("psnr_db", "psnr_db_difference", "ssim", "known")
        cells = [
            [
                row["row"],
                *(f"{row[key]['value']:.3f}" if key in row else "" for key in keys),
                *(f"{row[key]:.2f}" for key in ("write_ms", "read_ms", "points", "kb")),
            ]
            for row in rows
        ]
        print(format_table(["row", "psnr", "difference", "ssim", "known", "write", "read", "points", "kB"], cells))


if __name__ == "__main__":
    main()
