"""Frames per second of the built-in RGB-D camera, and of drives, against a plain per-pixel ray-caster.

    python benchmarks/simulator.py --threads 2 --out benchmarks/results/simulator.json
    python benchmarks/simulator.py --device cuda --batches 256,1024
    python benchmarks/simulator.py --assets ~/.local/share/come_nav/assets     with photographs and furniture, too

Each figure is the median of several repeats over the same random free poses in eight test worlds; the reference tests
every pixel's ray against every box (depth only), in the same process on the same device. Sensors, pitched cameras and
photographed materials and furniture are given as ratios to the plain camera, measured in turn with it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from come_nav.cli.output import format_table
from come_nav.core.files import atomic_write_text
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.assets.pack import read_pack
from come_nav.sim.episodes import simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.chain import SensorChain, generator_of
from come_nav.sim.sensors.colour import Exposure
from come_nav.sim.sensors.settings import REALISTIC
from come_nav.sim.splits import TEST_SEEDS
from come_nav.sim.worlds import World, WorldSettings, generate_world

WORLDS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="pixels of the square camera")
    parser.add_argument("--batches", default="1,16,64,256", help="batch sizes, comma-separated")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--assets", type=Path, help="pack of photographed materials (come-nav assets collect)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    worlds = [generate_world(seed) for seed in TEST_SEEDS[:WORLDS]]
    camera = CameraIntrinsics.from_field_of_view(args.size, args.size, 0.5 * math.pi)
    raycaster = Raycaster(worlds, camera, device=args.device)
    rows = []
    for batch in tqdm([int(word) for word in args.batches.split(",")], desc="camera", unit="batch size"):
        poses, index = random_views(worlds, batch)
        rows.append(measure("camera", batch, args, lambda p=poses, i=index: raycaster.render(p, i)))
    poses, index = random_views(worlds, 4)
    reference = PerPixelDepth(worlds[0], camera, args.device)
    rows.append(measure("per pixel, depth only", 4, args, lambda: reference.render(poses)))
    document = {
        "benchmark": "simulator",
        "size": args.size,
        "rows": rows,
        "ratio_to_per_pixel": max(row["median"] for row in rows[:-1]) / rows[-1]["median"],
        "harder": [row for size in ((64, 64), (320, 240)) for row in measure_harder(worlds, size, args)],
        "drives": measure_drives(worlds, args.repeats),
        "world_ms": measure_worlds(args.repeats),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "machine": machine(args),
    }
    report(document)
    if args.out is not None:
        atomic_write_text(args.out, json.dumps(document, indent=2) + "\n")


def random_views(worlds: list[World], batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Poses (B, 3) where a robot fits, over all worlds in turn."""
    generator = torch.Generator().manual_seed(0)
    poses = []
    for number in range(batch):
        world = worlds[number % len(worlds)]
        while True:
            point = torch.rand(2, generator=generator) * torch.tensor(world.bounds[2:])
            if bool(world.free(point, 0.25)):
                break
        poses.append(torch.cat([point, torch.rand(1, generator=generator) * 2 * math.pi]))
    return torch.stack(poses), torch.arange(batch) % len(worlds)


def measure(name: str, batch: int, args: argparse.Namespace, render: Callable[[], Any]) -> dict[str, Any]:
    """Frames per second over the repeats; each repeat lasts at least 0.3 s."""
    for _ in range(2):
        render()
    rates, cpu_rates = [], []
    for _ in range(args.repeats):
        synchronise(args.device)
        start, cpu_start, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - start < 0.3:
            render()
            synchronise(args.device)
            count += batch
        rates.append(count / (time.perf_counter() - start))
        cpu_rates.append(count / (time.process_time() - cpu_start))
    return {
        "what": name,
        "batch": batch,
        "median": float(np.median(rates)),
        "min": min(rates),
        "max": max(rates),
        "per_cpu_second": float(np.median(cpu_rates)),  # does not suffer from other programs on the machine
    }


def measure_harder(worlds: list[World], size: tuple[int, int], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Milliseconds a frame of what makes frames realistic, and their ratio to rendering the plain frame.

    Plain frames and the others take turns, so that what else the machine does meets both.
    """
    camera = CameraIntrinsics.from_field_of_view(*size, 0.5 * math.pi)
    batch = 16 if size[0] < 128 else 4
    poses, index = random_views(worlds, batch)
    plain = Raycaster(worlds, camera, device=args.device)
    images, depth = plain.render(poses, index)
    chain, exposures = SensorChain(REALISTIC, camera), [Exposure(1.2, 0.015, 1.1)] * batch
    generators = [generator_of(0, 1, number) for number in range(batch)]
    pitched = Raycaster(worlds, camera, device=args.device, pitch_rad=math.radians(-10.0))
    cases: dict[str, Callable[[], Any]] = {
        "realistic sensors alone": lambda: chain.capture(images, depth, exposures, [0.5] * batch, generators),
        "pitched by 10 degrees": lambda: pitched.render(poses, index),
    }
    if args.assets is not None:
        settings = WorldSettings(photographed=True, assets=str(args.assets))
        covered = Raycaster([generate_world(world.seed, settings) for world in worlds], camera, device=args.device)
        cases["photographed materials"] = lambda: covered.render(poses, index)
        if read_pack(args.assets).models:
            settings = replace(settings, furnished=True)
            rooms = [generate_world(world.seed, settings) for world in worlds]
            furnished, own = Raycaster(rooms, camera, device=args.device), random_views(rooms, batch)
            cases["furnished"] = lambda: furnished.render(*own)
    rows = []
    for what, run in cases.items():
        ratios, times = [], []
        for _ in range(args.repeats + 1):
            spent = [cpu_ms(work, args.device) for work in (lambda: plain.render(poses, index), run)]
            ratios.append(spent[1] / spent[0])
            times.append(spent[1] / batch)
        row = {"what": what, "size": f"{size[0]}x{size[1]}", "batch": batch}
        rows.append({**row, "ms": float(np.median(times[1:])), "ratio_to_plain": float(np.median(ratios[1:]))})
    return rows


def cpu_ms(work: Callable[[], Any], device: str, least_s: float = 0.1) -> float:
    """Milliseconds of one call: of the process's CPU time, of the wall's on a GPU."""
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    start, count = clock(), 0
    while count == 0 or clock() - start < least_s:
        work()
        synchronise(device)
        count += 1
    return 1e3 * (clock() - start) / count


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


class PerPixelDepth:
    """The plain way: every ray against every box."""

    def __init__(self, world: World, camera: CameraIntrinsics, device: str) -> None:
        self.boxes = world.boxes.to(device)
        self.device = device
        u = (torch.arange(camera.width) + 0.5 - camera.cx) / camera.fx
        v = (camera.cy - torch.arange(camera.height) - 0.5) / camera.fy
        self.up, self.right = (part.reshape(-1).to(device) for part in torch.meshgrid(v, u, indexing="ij"))

    def render(self, poses: torch.Tensor) -> torch.Tensor:
        x, y, half_x, half_y, yaw, low, high = self.boxes.T
        depths = []
        for pose in poses.to(self.device):
            cosine, sine = pose[2].cos(), pose[2].sin()
            dx, dy = cosine + self.right * sine, sine - self.right * cosine
            c, s = yaw.cos(), yaw.sin()
            origin_x = c * (pose[0] - x) + s * (pose[1] - y)
            origin_y = c * (pose[1] - y) - s * (pose[0] - x)
            near, far = [], []
            for speed, first, last in (
                (dx[:, None] * c + dy[:, None] * s, -half_x - origin_x, half_x - origin_x),
                (dy[:, None] * c - dx[:, None] * s, -half_y - origin_y, half_y - origin_y),
                (self.up[:, None], low - 0.5, high - 0.5),
            ):
                one, two = first / speed, last / speed
                near.append(torch.minimum(one, two))
                far.append(torch.maximum(one, two))
            enter, leave = torch.stack(near).amax(0), torch.stack(far).amin(0)
            depths.append(torch.where((enter < leave) & (enter > 0), enter, torch.inf).amin(1))
        return torch.stack(depths)


def measure_drives(worlds: list[World], repeats: int) -> list[dict[str, Any]]:
    """Seconds to simulate 120 s with each driver, grid of distances included the first time."""
    rows = []
    for driver in ("wander", "tour", "point_to_point"):
        times = []
        for number in range(repeats):
            start = time.perf_counter()
            simulate_episode(worlds[number % len(worlds)], driver, 120.0, seed=number)
            times.append(time.perf_counter() - start)
        rows.append({"driver": driver, "median_s": float(np.median(times)), "min_s": min(times), "max_s": max(times)})
    return rows


def measure_worlds(repeats: int) -> float:
    """Median milliseconds to generate a world."""
    times = []
    for seed in TEST_SEEDS[WORLDS : WORLDS + repeats]:
        start = time.perf_counter()
        generate_world(seed)
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


def machine(args: argparse.Namespace) -> dict[str, Any]:
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    return {
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else processor,
        "cores": os.cpu_count(),
        "threads": args.threads,
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def report(document: dict[str, Any]) -> None:
    facts = document["machine"]
    print(f"{facts['device']}, {facts['threads']} threads, torch {facts['torch']}, load {facts['load_average']:.1f}")
    rows = [
        [row["what"], str(row["batch"]), *(f"{row[key]:.0f}" for key in ("median", "min", "max", "per_cpu_second"))]
        for row in document["rows"]
    ]
    size = document["size"]
    print(format_table([f"RGB-D {size}x{size}", "batch", "frames/s", "min", "max", "per CPU s"], rows))
    print(f"ratio to per pixel: {document['ratio_to_per_pixel']:.0f}")
    rows = [
        [row["what"], row["size"], *(f"{row[key]:.2f}" for key in ("ms", "ratio_to_plain"))]
        for row in document["harder"]
    ]
    print(format_table(["", "pixels", "ms a frame", "ratio to the plain frame"], rows))
    for row in document["drives"]:
        print(f"120 s of {row['driver']}: {row['median_s']:.3f} s ({row['min_s']:.3f} to {row['max_s']:.3f})")
    print(f"one world: {document['world_ms']:.0f} ms; peak memory {document['peak_memory_mb']:.0f} MB")


if __name__ == "__main__":
    main()
