"""A spatial memory of latents against one of colours that is rendered and then encoded: bytes, milliseconds, latents.

    python benchmarks/latent_memory.py --frames 12 --worlds 4 --out benchmarks/results/latent_memory.json

Both memories see every second frame of drives through built-in worlds. Each is then asked for the latents of the views
that it saw, and of those between. Bytes follow one formula for both (points x (3 coordinates of 4 bytes + C features of
2 bytes)) and one policy of voxels at a time; what the arrays of the running program take is told beside it. Times are
those of the processor, on one thread, the two memories in turn. The autoencoder of Stable Diffusion's shape has random
weights: its times and sizes are those of trained ones, what its latents look like is not, so they are compared as
latents (the share of their variance that a read-out misses, in cells that it knows), and decoded by the trained small
model alone.
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

from come_nav.cli.output import format_table
from come_nav.core.files import atomic_write_text
from come_nav.core.geometry.point_rendering import fill_unseen
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.evaluation.metrics.image_metrics import psnr
from come_nav.evaluation.metrics.statistics import bootstrap_mean
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.latent.features import LatentFeatures
from come_nav.memory.spatial.latent.views import RememberedLatents
from come_nav.memory.spatial.remembered_views import RememberedViews
from come_nav.memory.spatial.settings import LATENT, RGB, UNMERGED_M, LatentSettings, SpatialSettings
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings, ImageAutoencoder
from come_nav.world_model.images import images_from_rgb
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import RenderedView

FORMULA = "points x (3 x 4 + C x 2) bytes"
OPTIONS = {
    "nearest point, merged, bilinear depth": LatentSettings(),
    "surface blended, merged, bilinear depth": LatentSettings(readout="blend"),
    "nearest point, not merged, bilinear depth (Mirage)": LatentSettings(merge=False),
    "nearest point, merged, nearest depth": LatentSettings(depth="nearest"),
    "nearest point, merged, median depth": LatentSettings(depth="median"),
    "nearest point, merged, area depth": LatentSettings(depth="area"),
}


@dataclass(frozen=True)
class Case:
    """One autoencoder and the size of its images."""

    name: str
    autoencoder: ImageAutoencoder
    trained: bool
    worlds: int
    frames: int

    @property
    def size(self) -> int:
        return self.autoencoder.settings.image_size

    @property
    def latent_size(self) -> int:
        return self.autoencoder.settings.latent_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=12, help="of each drive (default 12); 40 of the small model")
    parser.add_argument("--worlds", type=int, default=6, help="of the small model (default 6); 1 of the others")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    with torch.inference_mode():
        for make in cases(args):
            rows.append(measured(make()))
            report(rows[-1])
    document = {"benchmark": "latent_memory", "formula": FORMULA, "rows": rows, "machine": machine_facts()}
    if args.out is not None:
        atomic_write_text(args.out, json.dumps(document, indent=2) + "\n")


def cases(args: argparse.Namespace) -> list[Callable[[], Case]]:
    def small() -> Case:
        own = DiffusionWorldModel.load(find_resource("models", "tiny")).autoencoder
        return Case("tiny, 64 px", own, True, args.worlds, 40)

    def stable_diffusion(size: int) -> Case:
        settings = replace(AutoencoderSettings.stable_diffusion(), image_size=size)
        own = ImageAutoencoder(settings).eval()
        return Case(f"Stable Diffusion's shape, {size} px", own, False, 1, args.frames)

    return [small, lambda: stable_diffusion(64), lambda: stable_diffusion(224)]


def measured(case: Case) -> dict[str, Any]:
    """Return all figures of one autoencoder."""
    drives = [drive_of(10000 + world, case) for world in range(case.worlds)]
    options = OPTIONS if case.trained else dict(list(OPTIONS.items())[:3])
    memories = [Memories(case, drive, options) for drive in drives]
    channels, cells = case.autoencoder.settings.latent_channels, case.latent_size
    return {
        "name": case.name,
        "image_px": case.size,
        "latent_shape": [channels, cells, cells],
        "worlds": case.worlds,
        "frames_remembered": sum(len(own.seen) for own in memories),
        "bytes": byte_rows(memories, channels),
        "milliseconds": time_rows(memories),
        "latents": latent_rows(memories),
    }


def drive_of(seed: int, case: Case) -> EpisodeRecording:
    world = generate_world(seed)
    camera = CameraIntrinsics.from_field_of_view(case.size, case.size, 0.5 * math.pi)
    episode = simulate_episode(world, "tour", case.frames / 4.0, seed=1)
    return EpisodeRecording(episode, Raycaster([world], camera), use_truth=True)


class Memories:
    """All memories of one drive, the frames that they saw, and those between."""

    def __init__(self, case: Case, drive: EpisodeRecording, options: dict[str, LatentSettings]) -> None:
        self.case, self.drive = case, drive
        self.seen, self.between = range(0, len(drive), 2), range(1, len(drive) - 1, 2)
        self.images = {index: self._image(drive.frame(index)) for index in range(len(drive))}
        self.encode_ms: list[float] = []
        self.truth = {index: self._encoded(image) for index, image in self.images.items()}
        largest = SpatialSettings(max_points_per_frame=1_000_000, max_voxels=3_000_000)
        self.rgb = SpatialMemory(largest)
        self.rgb_apart = SpatialMemory(replace(largest, voxel_m=UNMERGED_M, carve_looks=0.0))
        self.latent = {
            name: SpatialMemory(
                replace(largest, features=LATENT, latent=own),
                LatentFeatures(self._latents_of, case.autoencoder.settings.latent_channels, depth=own.depth),
            )
            for name, own in options.items()
        }
        self.write_ms: dict[str, list[float]] = {RGB: [], LATENT: []}
        for index in self.seen:
            self._observe(index)

    @property
    def main(self) -> SpatialMemory:
        return next(iter(self.latent.values()))

    def _image(self, frame: Frame) -> torch.Tensor:
        return images_from_rgb([frame.rgb], self.case.size)

    def _encoded(self, image: torch.Tensor) -> torch.Tensor:
        start = time.process_time()
        latents = self.case.autoencoder.encode(image)
        self.encode_ms.append(1e3 * (time.process_time() - start))
        return latents[0]

    def _latents_of(self, frame: Frame) -> torch.Tensor:
        return self.truth[round(frame.stamp_s * 4.0 - self.drive.frame(0).stamp_s * 4.0)]

    def _observe(self, index: int) -> None:
        frame, pose = self.drive.frame(index), self.drive.T_odom_base[index]
        self.rgb_apart.observe(frame, pose)
        for name, memory in ((RGB, self.rgb), (LATENT, self.main)):
            start = time.process_time()
            memory.observe(frame, pose)
            self.write_ms[name].append(1e3 * (time.process_time() - start))
        for memory in list(self.latent.values())[1:]:
            memory.observe(frame, pose)

    def pose(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.drive.poses_xyyaw[index : index + 1])

    def rgb_read_out(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is rendered and encoded: latents (C, h, w) and the known share of each cell (h, w)."""
        views = RememberedViews(self.rgb, self.drive.intrinsics, self.drive.T_base_camera)
        found = RenderedView(*views.views(self.pose(index), self.case.size)).encoded(self.case.autoencoder.encode)
        return found[0, :-2], found[0, -2]

    def latent_read_out(self, memory: SpatialMemory, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is read out: latents (C, h, w), holes filled, and whether each cell is known (h, w)."""
        camera, extrinsics, size = self.drive.intrinsics, self.drive.T_base_camera, self.case.latent_size
        source = RememberedLatents(memory, camera, extrinsics, self.case.autoencoder.decode, size)
        latents, known, _ = source.latent_views(self.pose(index), size)
        return fill_unseen(latents, known)[0], known[0].float()


def byte_rows(memories: list[Memories], channels: int) -> list[dict[str, Any]]:
    def size(points: int, features: int) -> int:
        return points * (3 * 4 + features * 2)

    apart = next(name for name in memories[0].latent if "not merged" in name)
    policies = {
        "voxels of 5 cm": ([own.rgb for own in memories], [own.main for own in memories]),
        "every point kept": ([own.rgb_apart for own in memories], [own.latent[apart] for own in memories]),
    }
    rows = []
    for policy, (colours, latents) in policies.items():
        points = sum(map(len, colours)), sum(map(len, latents))
        own = size(points[0], 3), size(points[1], channels)
        running = sum(each.nbytes for each in colours), sum(each.nbytes for each in latents)
        rows.append(
            {
                "policy": policy,
                "rgb_points": points[0],
                "latent_points": points[1],
                "rgb_bytes": own[0],
                "latent_bytes": own[1],
                "ratio": own[0] / own[1],
                "arrays_ratio": running[0] / running[1],
            }
        )
    return rows


def time_rows(memories: list[Memories]) -> dict[str, Any]:
    own, spent = memories[0], {"rgb_read_out": [], "rgb_render": [], "latent_read_out": []}
    views = RememberedViews(own.rgb, own.drive.intrinsics, own.drive.T_base_camera)
    calls: dict[str, Callable[[int], Any]] = {
        "rgb_read_out": own.rgb_read_out,
        "rgb_render": lambda index: views.views(own.pose(index), own.case.size),
        "latent_read_out": lambda index: own.latent_read_out(own.main, index),
    }
    for call in calls.values():
        call(0)  # what is made once for a cloud, and the compiler
    for index in own.between:
        for name, call in calls.items():
            start = time.process_time()
            call(index)
            spent[name].append(1e3 * (time.process_time() - start))
    found = {name: float(np.median(values)) for name, values in spent.items()}
    return {
        **found,
        "ratio": found["rgb_read_out"] / found["latent_read_out"],
        "rgb_write": float(np.median(own.write_ms[RGB])),
        "latent_write": float(np.median(own.write_ms[LATENT])),
        "encode": float(np.median(own.encode_ms)),
        "n": len(own.between),
    }


def latent_rows(memories: list[Memories]) -> list[dict[str, Any]]:
    """Return what each way of remembering misses of seen views and of those between."""
    names = ["colours, rendered and encoded", *memories[0].latent]
    rows = []
    for name in names:
        for part in ("seen", "between"):
            found: dict[str, list[float]] = {"missed": [], "known": [], "psnr_db": []}
            clusters = []
            for number, own in enumerate(memories):
                for index in getattr(own, part):
                    shown, known = (
                        own.rgb_read_out(index) if name == names[0] else own.latent_read_out(own.latent[name], index)
                    )
                    truth, cells = own.truth[index], known > 0.5
                    if not cells.any():
                        continue
                    clusters.append(number)
                    error = (shown - truth)[:, cells].square().mean()
                    found["missed"].append(float(error / truth.var()))
                    found["known"].append(float(cells.float().mean()))
                    if own.case.trained:
                        image = own.case.autoencoder.decode(shown[None])
                        found["psnr_db"].append(float(psnr(image, own.images[index])))
            rows.append({"row": name, "views": part, "n": len(clusters), **summaries(found, clusters)})
    return rows


def summaries(found: dict[str, list[float]], clusters: list[int]) -> dict[str, Any]:
    several = clusters if len(set(clusters)) > 1 else None
    means = {key: bootstrap_mean(np.array(values), 0, several) for key, values in found.items() if values}
    return {key: {"value": own.value, "low": own.low, "high": own.high} for key, own in means.items()}


def report(row: dict[str, Any]) -> None:
    print(f"\n{row['name']}: latents {row['latent_shape']}, {row['frames_remembered']} frames")
    print(f"bytes = {FORMULA}")
    for own in row["bytes"]:
        print(f"  {own['policy']}: {own['rgb_bytes']:,} / {own['latent_bytes']:,} = {own['ratio']:.1f}")
    print("  ms " + ", ".join(f"{name} {value:.2f}" for name, value in row["milliseconds"].items()))
    header = ["row", "views", "missed", "known", "psnr"]
    cells = [
        [
            own["row"],
            own["views"],
            *(f"{own[key]['value']:.3f}" if key in own else "" for key in (*header[2:4], "psnr_db")),
        ]
        for own in row["latents"]
    ]
    print(format_table(header, cells))


if __name__ == "__main__":
    main()
