"""What a view of a large cloud costs: compiled loops and operations on tensors, by the number of points.

A robot with an RGB-D camera drives through validation worlds that lie side by side until the cloud is full; views are
the ends of candidate paths around its last pose, as a plan renders them. Figures are of the processor on the CPU
(others' work does not count) and of the clock on a GPU, of one thread.

    python benchmarks/rendering.py --out benchmarks/results/rendering.json
    python benchmarks/rendering.py --device cuda --views 512
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine_facts

from come_nav.core import compiled
from come_nav.core.files import atomic_write_text
from come_nav.core.geometry import se3
from come_nav.core.geometry.point_rendering import camera_fractions
from come_nav.core.types import CameraIntrinsics
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.settings import SpatialSettings
from come_nav.memory.spatial.splatting import Splats, Viewpoint, render_splats
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world

SENSOR = CameraIntrinsics.from_field_of_view(160, 120, math.pi / 2)
APART_M = 30.0  # between the origins of worlds


def a_cloud(points: int, first_seed: int) -> tuple[SpatialMemory, np.ndarray]:
    """Return a memory of so many points of drives through worlds side by side, and the last pose (3,)."""
    memory, pose = SpatialMemory(SpatialSettings(max_voxels=points)), np.zeros(3)
    for number in range(40):
        world = generate_world(first_seed + number)
        recording = EpisodeRecording(simulate_episode(world, "tour", 60.0), Raycaster([world], SENSOR), use_truth=True)
        shift = se3.transform_from_xyyaw(np.array([APART_M * number, 0.0, 0.0]))
        for index in range(0, len(recording.stamps_s), 2):
            T_odom_base = shift @ recording.T_odom_base[index]
            memory.observe(recording.frame(index), T_odom_base)
            pose = se3.xyyaw_from_transform(T_odom_base)
            if len(memory) >= 0.98 * points:
                return memory, pose
    return memory, pose


def seconds_a_view(splats: Splats, view: Viewpoint, size: int, repeats: int) -> list[float]:
    """Return seconds for each view of each repeat."""
    cuda = splats.points_xyz.is_cuda
    clock_s, found = (time.perf_counter if cuda else time.process_time), []
    for _ in range(repeats + 1):
        started_s = clock_s()
        render_splats(splats, view, (size, size))
        if cuda:
            torch.cuda.synchronize()
        found.append((clock_s() - started_s) / len(view.poses_xyyaw))
    return found[1:]  # the first one packs, or compiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--points", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--size", type=int, default=64, help="px")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--no-tensors", action="store_true", help="measure the compiled loops alone")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for points in args.points:
        memory, pose = a_cloud(points, 10000)
        splats = memory._splats.of(memory.voxels, memory.config.voxel_m, torch.device(args.device))
        poses = torch.tensor(pose) + torch.randn(args.views, 3, generator=torch.Generator().manual_seed(0)) * 0.5
        camera = CameraIntrinsics.from_field_of_view(args.size, args.size, math.pi / 2)
        T_base_camera = torch.from_numpy(EXTRINSICS)[None]
        view = Viewpoint(*(x.to(splats.points_xyz) for x in (poses, camera_fractions(camera), T_base_camera)))
        seen = render_splats(splats, view, (args.size, args.size))
        ways = {"as it is": seconds_a_view(splats, view, args.size, args.repeats)}
        if compiled.available() and args.device == "cpu" and not args.no_tensors:
            found, compiled.available = compiled.available, lambda: False
            ways["operations on tensors"] = seconds_a_view(splats, view, args.size, max(2, args.repeats // 3))
            compiled.available = found
        for way, spent_s in ways.items():
            row = {
                "points": len(splats.points_xyz),
                "way": way,
                "ms_a_view": round(1e3 * statistics.median(spent_s), 4),
                "ms_a_view_range": [round(1e3 * own, 4) for own in (min(spent_s), max(spent_s))],
                "views": args.views,
                "n": len(spent_s),
                "known_share": round(float(seen.visible.float().mean()), 3),
            }
            rows.append(row)
            print(" ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    if args.out is not None:
        what = __doc__.splitlines()[0]
        document = {"what": what, "device": args.device, "size_px": args.size, "machine": machine_facts(), "rows": rows}
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


EXTRINSICS = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1]])

if __name__ == "__main__":
    main()
