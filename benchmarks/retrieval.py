"""How long it takes to find the remembered frames that show a view, by the number of frames.

    python benchmarks/retrieval.py --out benchmarks/results/retrieval.json

Frames look in random directions, the depth of each is 1 to 6 m, all in one hall of 20 x 20 m, so that every query has
thousands of frames in view: the worst case for its shortlist. Times are of the processor, on one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine_facts

from come_nav.cli.output import format_table
from come_nav.core.files import atomic_write_text
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.memory.retrieval import FrameRetrieval
from come_nav.sim.sensors.mounting import camera_in_base

CAMERA = CameraIntrinsics.from_field_of_view(64, 64, 0.5 * np.pi)
HALL_M, K = 20.0, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[100, 1000, 10_000, 100_000])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measured(count, args.queries) for count in args.frames]
    print(format_table(list(rows[0]), [[f"{value:.3g}" for value in row.values()] for row in rows]))
    if args.out is not None:
        document = {"benchmark": "retrieval", "k": K, "hall_m": HALL_M, "rows": rows, "machine": machine_facts()}
        atomic_write_text(args.out, json.dumps(document, indent=2) + "\n")


def measured(count: int, queries: int) -> dict[str, Any]:
    """Return median and 95 % quantile of the time of a query among ``count`` frames."""
    random = np.random.default_rng(0)
    found, extrinsics = FrameRetrieval(), camera_in_base(0.5)
    rgb = np.zeros((64, 64, 3), np.uint8)
    for number in range(count):
        depth = np.full((64, 64), random.uniform(1.0, 6.0), np.float32)
        found.add(Frame(0.25 * number, rgb, depth, CAMERA, extrinsics), pose(random))
    found.query(pose(random), CAMERA, extrinsics, K)  # places of all points in the world, once for all
    spent = []
    for _ in range(queries):
        asked = pose(random)
        start = time.process_time()
        found.query(asked, CAMERA, extrinsics, K)
        spent.append(1e3 * (time.process_time() - start))
    return {
        "frames": count,
        "query_ms_median": float(np.median(spent)),
        "query_ms_p95": float(np.quantile(spent, 0.95)),
        "mb": found.nbytes / 1e6,
        "n": queries,
    }


def pose(random: np.random.Generator) -> np.ndarray:
    return np.array([*random.uniform(0.0, HALL_M, 2), random.uniform(-np.pi, np.pi)])


if __name__ == "__main__":
    main()
