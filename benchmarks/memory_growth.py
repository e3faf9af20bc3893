"""Megabytes and milliseconds per frame of the spatial memory and the key frames, over ever longer drives.

    python benchmarks/memory_growth.py --frames 10000 --out benchmarks/results/memory_growth.json

The robot drives through one built-in world after another, laid out side by side, so that there is always something new
to remember and the budget is reached. For each mark (100, 1,000, 10,000 frames) the medians of the frames just before
it are printed; time is that of the processor, because other programs may run beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine_facts
from tqdm import tqdm

from come_nav.cli.output import format_table
from come_nav.core.files import atomic_write_text
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.memory.keyframes import Keyframes
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.settings import SpatialSettings
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.mounting import camera_in_base
from come_nav.sim.worlds import generate_world

FRAMES_PER_WORLD = 400
WORLD_PITCH_M = 40.0
LAST = 80  # frames before a mark whose median is reported


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1000, help="length of the drive (default 1000)")
    parser.add_argument("--size", type=int, default=64, help="pixels of the square camera")
    parser.add_argument("--max-voxels", type=int, default=SpatialSettings.max_voxels)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    document = {"benchmark": "memory_growth", **measure(args), "machine": machine_facts()}
    report(document)
    if args.out is not None:
        atomic_write_text(args.out, json.dumps(document, indent=2) + "\n")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Drive on and on; note time and size after every frame."""
    camera = CameraIntrinsics.from_field_of_view(args.size, args.size, 0.5 * math.pi)
    cloud, keyframes = SpatialMemory(SpatialSettings(max_voxels=args.max_voxels)), Keyframes()
    marks = sorted({mark for mark in (100, 1000, 3000, 10_000, args.frames) if mark <= args.frames})
    spent_ms, rows = list[float](), []
    with tqdm(total=args.frames, unit="frame") as bar:
        while len(spent_ms) < args.frames:
            part = len(spent_ms) // FRAMES_PER_WORLD
            for frame, pose in drive(part, min(FRAMES_PER_WORLD, args.frames - len(spent_ms)), camera):
                start = time.process_time()
                cloud.observe(frame, pose)
                keyframes.observe(frame, pose)
                spent_ms.append(1e3 * (time.process_time() - start))
                bar.update()
                if len(spent_ms) in marks:
                    rows.append(row(cloud, keyframes, spent_ms, pose, camera))
    return {"size": args.size, "max_voxels": args.max_voxels, "voxel_m": cloud.config.voxel_m, "rows": rows}


def drive(part: int, count: int, camera: CameraIntrinsics) -> Any:
    """Yield frames of a tour through world ``part``, its poses moved beside the worlds before."""
    world = generate_world(part)
    episode = simulate_episode(world, "tour", FRAMES_PER_WORLD / 4.0, seed=part)
    recording = EpisodeRecording(episode, Raycaster([world], camera), use_truth=True)
    shift = np.array([WORLD_PITCH_M * part, 0.0, 0.0])
    for index in range(count):
        seen = recording.frame(index)
        stamp_s = part * FRAMES_PER_WORLD / 4.0 + seen.stamp_s
        frame = Frame(stamp_s, seen.rgb, seen.depth_m, seen.intrinsics, seen.T_base_camera)
        yield frame, recording.poses_xyyaw[index] + shift


def row(
    cloud: SpatialMemory, keyframes: Keyframes, spent_ms: list[float], pose: np.ndarray, camera: CameraIntrinsics
) -> dict[str, Any]:
    renders = []
    for _ in range(5):
        start = time.process_time()
        cloud.render(pose[None], camera, camera_in_base(0.5))
        renders.append(1e3 * (time.process_time() - start))
    last = np.array(spent_ms[-LAST:])
    return {
        "frames": len(spent_ms),
        "voxels": len(cloud),
        "evicted": cloud.voxels.evicted,
        "cloud_mb": cloud.nbytes / 1e6,
        "keyframes": len(keyframes),
        "keyframes_mb": keyframes.nbytes / 1e6,
        "observe_ms_median": float(np.median(last)),
        "observe_ms_p95": float(np.quantile(last, 0.95)),
        "render_ms_median": float(np.median(renders)),
    }


def report(document: dict[str, Any]) -> None:
    header = ("frames", "voxels", "cloud MB", "key frames", "key frames MB", "observe ms", "95 %", "render ms")
    cells = [
        [
            f"{row['frames']:,}",
            f"{row['voxels']:,}",
            *(f"{row['cloud_mb']:.1f}", f"{row['keyframes']:,}", f"{row['keyframes_mb']:.1f}"),
            *(f"{row[name]:.1f}" for name in ("observe_ms_median", "observe_ms_p95", "render_ms_median")),
        ]
        for row in document["rows"]
    ]
    print(format_table(header, cells))


if __name__ == "__main__":
    main()
