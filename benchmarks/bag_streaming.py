"""Memory and speed of reading a large bag: writes one of a given size, reads every frame in a fresh process.

    python benchmarks/bag_streaming.py --gigabytes 1 --storage mcap

Prints one JSON document: file size, frames, seconds to open, frames per second, and the peak resident memory
beyond what the libraries take before the bag is opened. The bag lies in a temporary folder and is deleted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import status_bytes

from come_nav.core.errors import StorageError
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics, Frame

WIDTH, HEIGHT = 640, 480
FRAME_BYTES = WIDTH * HEIGHT * (3 + 2)
MEGABYTE = 1024 * 1024


class NoiseRecording:
    """Frames of noise, which no codec shrinks, along a straight line."""

    name = "noise"
    rate_hz = 4.0
    intrinsics = CameraIntrinsics(WIDTH, HEIGHT, 500.0, 500.0, WIDTH / 2, HEIGHT / 2)
    T_base_camera = se3.make_transform(se3.R_BODY_OPTICAL, np.zeros(3))

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        self.stamps_s = 1.7e9 + np.arange(count) / self.rate_hz
        self.poses_xyyaw = np.stack([0.1 * np.arange(count), np.zeros(count), np.zeros(count)], axis=1)
        self.T_odom_base = se3.transform_from_xyyaw(self.poses_xyyaw)
        self.metadata = {"frames": count}
        self._rgb = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        self._depth = rng.uniform(0.5, 9.0, (HEIGHT, WIDTH)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.stamps_s)

    def frame(self, index: int) -> Frame:
        rgb = np.roll(self._rgb, index * 7919, axis=0) + np.uint8(index % 251)
        return Frame(self.stamps_s[index], rgb, self._depth, self.intrinsics, self.T_base_camera)


def read(path: Path) -> dict[str, float]:
    """Iterate all frames of a recording; runs in a process of its own."""
    import cv2  # noqa: F401 - loaded before the baseline is taken
    import rosbags.rosbag2  # noqa: F401

    from come_nav.data import open_recording

    before = status_bytes("VmRSS")
    start, start_cpu = time.perf_counter(), time.process_time()
    recording = open_recording(path)
    opened, opened_cpu = time.perf_counter(), time.process_time()
    known = 0.0
    for index in range(len(recording)):
        frame = recording.frame(index)
        known += float(np.isfinite(frame.depth_m).mean()) + float(frame.rgb[0, 0, 0])
    done, done_cpu = time.perf_counter(), time.process_time()
    peak = status_bytes("VmHWM")
    return {
        "frames": len(recording),
        "open_s": round(opened - start, 2),
        "open_cpu_s": round(opened_cpu - start_cpu, 2),
        "frames_per_s": round(len(recording) / (done - opened), 1),
        "frames_per_cpu_s": round(len(recording) / (done_cpu - opened_cpu), 1),
        "peak_rss_mb": round(peak / MEGABYTE, 1),
        "peak_beyond_libraries_mb": round((peak - before) / MEGABYTE, 1),
        "checksum": round(known, 3),
    }


def measure(args: argparse.Namespace) -> dict[str, float | str]:
    """Write the bag, read it in a child process, delete it."""
    from tqdm import tqdm

    from come_nav.data.bags.writer import write_bag

    count = max(2, int(args.gigabytes * 1e9 / FRAME_BYTES))
    folder = Path(tempfile.mkdtemp(prefix="come_nav_bench_", dir=args.folder))
    try:
        needed = count * FRAME_BYTES * (2.1 if args.compression == "file" else 1.1)
        if shutil.disk_usage(folder).free < needed:
            raise StorageError(f"{folder}: needs {needed / 1e9:.1f} GB of free space; choose another with --folder")
        start = time.perf_counter()
        with tqdm(total=count, desc="writing", unit="frame", disable=None) as bar:
            write_bag(folder / "bag", NoiseRecording(count), args.storage, args.compression, progress=bar.update)
        written_s = time.perf_counter() - start
        size = sum(item.stat().st_size for item in (folder / "bag").iterdir())
        child = subprocess.run(
            [sys.executable, __file__, "--read", str(folder / "bag")], check=True, capture_output=True, text=True
        )
        result = json.loads(child.stdout)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    size_mb = size / MEGABYTE
    return {
        "storage": args.storage,
        "compression": args.compression,
        "file_mb": round(size_mb, 1),
        "write_frames_per_s": round(count / written_s, 1),
        **result,
        "memory_to_file_ratio": round(result["peak_beyond_libraries_mb"] / size_mb, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the bag (default 1)")
    parser.add_argument("--storage", default="mcap", choices=("mcap", "sqlite3"))
    parser.add_argument("--compression", default="none", choices=("none", "chunk", "file", "message"))
    parser.add_argument("--folder", type=Path, help="where the bag is written for a while (default: the system's)")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    print(json.dumps(read(args.read) if args.read is not None else measure(args), indent=2))


if __name__ == "__main__":
    main()
