"""Mutates files and reads them: whatever comes, a reader answers or raises one ComeNavError, in time, and runs nothing.

    python benchmarks/fuzz_readers.py --mutations 100000 --seed 0
    python benchmarks/fuzz_readers.py --only trajectory,nwm --mutations 20000

Prints one JSON document: for each kind of file the mutations, how many were read or refused, tracebacks (with their
seeds, so that --seed S --mutations 1 shows one again), hangs over 10 s, and code that ran.
"""

from __future__ import annotations

import argparse
import json
import logging
import pickle
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from come_nav.core.errors import ComeNavError

LIMIT_S = 10
TOKENS = (
    b"\x00",
    b"\xff\xff\xff\xff",
    b"\x7f",
    b"nan",
    b"1e400",
    b"-1",
    b",",
    b"\n",
    b" ",
    b"{",
    b"!!python/name:",
    b"\x80\x04",
)


@dataclass
class Target:
    """One kind of file: ``make`` writes valid ones into a folder, ``read`` reads that folder; ``files`` are mutated."""

    make: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    reset: bool = True


@dataclass
class Tally:
    """Outcomes of one kind."""

    mutations: int = 0
    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    tracebacks: list[dict[str, Any]] = field(default_factory=list)
    hangs: list[int] = field(default_factory=list)
    code_run: int = 0


class Hang(BaseException):
    """Raised by the alarm; not an Exception, so that no reader catches it."""


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Return ``data`` with one to four changes: bits, bytes, cuts, doubled or moved pieces, tokens."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        size = len(out)
        if not size:
            return bytes(out)
        at, kind = int(rng.integers(size)), int(rng.integers(7))
        length = int(min(size - at, rng.integers(1, 64)))
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at] = int(rng.integers(256))
        elif kind == 2:
            del out[at:]
        elif kind == 3:
            del out[at : at + length]
        elif kind == 4:
            out[at:at] = out[at : at + length]
        elif kind == 5:
            out[at : at + length] = rng.bytes(length)
        else:
            token = TOKENS[int(rng.integers(len(TOKENS)))]
            out[at : at + len(token)] = token
    return bytes(out)


def fuzz(name: str, target: Target, mutations: int, seed: int, step: Callable[[], object] = lambda: None) -> Tally:
    """Mutate one file of the kind at a time and read it; mutation i has the generator of (seed, i)."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="fuzz_") as scratch:
        folder, mark = Path(scratch) / "input", Path(scratch) / "ran"
        folder.mkdir()
        originals = {path: path.read_bytes() for path in target.make(folder)}
        paths = sorted(originals)
        old = signal.signal(signal.SIGALRM, _on_alarm)
        began = time.monotonic()
        for index in range(mutations):
            rng = np.random.default_rng([seed, index])
            path = paths[int(rng.integers(len(paths)))]
            path.write_bytes(_attack(mark) if name == "nwm" and index % 50 == 0 else mutate(originals[path], rng))
            _one(target, folder, seed, index, tally)
            for other in paths:
                if other == path or not other.exists():
                    other.write_bytes(originals[other])
            for extra in set(folder.rglob("*-wal")) | set(folder.rglob("*-shm")) | set(folder.rglob("*-journal")):
                extra.unlink()
            tally.code_run += mark.exists()
            step()
        tally.seconds = round(time.monotonic() - began, 1)
        signal.signal(signal.SIGALRM, old)
    return tally


def _attack(mark: Path) -> bytes:
    """Return a pickle that would write a file if it were loaded without restriction."""

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (mark,))

    return pickle.dumps({"position": Attack(), "yaw": np.zeros(3)})


def _one(target: Target, folder: Path, seed: int, index: int, tally: Tally) -> None:
    tally.mutations += 1
    began = time.monotonic()
    signal.alarm(LIMIT_S)
    try:
        target.read(folder)
        tally.read += 1
    except ComeNavError as error:
        tally.refused += 1
        if "\n" in str(error):
            tally.tracebacks.append({"seed": [seed, index], "error": f"several lines: {error!s:.200}"})
    except Hang:
        tally.hangs.append(index)
    except Exception as error:  # that is what is looked for
        where = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in where if "come_nav" in frame.filename] or where
        place = f"{ours[-1].filename.rpartition('come_nav/')[2]}:{ours[-1].lineno}"
        tally.tracebacks.append(
            {"seed": [seed, index], "error": f"{type(error).__name__}: {error!s:.100}", "at": place}
        )
    finally:
        signal.alarm(0)
    tally.slowest_s = max(tally.slowest_s, round(time.monotonic() - began, 2))


def _on_alarm(*_: object) -> None:
    raise Hang


class Arc:
    """A few small frames along an arc, as a Recording."""

    name, rate_hz, metadata = "arc", 4.0, {"note": "fuzz"}

    def __init__(self) -> None:
        from come_nav.core.geometry import se3
        from come_nav.core.types import CameraIntrinsics

        steps = np.arange(6)
        self.stamps_s = 1.7e9 + 0.25 * steps
        self.poses_xyyaw = np.stack([0.1 * steps, 0.01 * steps**2, 0.05 * steps], axis=1)
        self.T_odom_base = se3.transform_from_xyyaw(self.poses_xyyaw)
        self.intrinsics = CameraIntrinsics(16, 12, 10.0, 10.0, 8.0, 6.0)
        self.T_base_camera = se3.make_transform(se3.R_BODY_OPTICAL, np.zeros(3))

    def __len__(self) -> int:
        return len(self.stamps_s)

    def frame(self, index: int) -> Any:
        """Return frame ``index``."""
        from come_nav.core.types import Frame

        rgb = np.full((12, 16, 3), 20 * index, np.uint8)
        depth = np.full((12, 16), 2.0, np.float32)
        return Frame(float(self.stamps_s[index]), rgb, depth, self.intrinsics, self.T_base_camera)


def _make_bag(storage: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        from come_nav.data.bags.writer import write_bag

        write_bag(folder / "bag", Arc(), storage)
        return [path for path in (folder / "bag").iterdir() if path.is_file()]

    return make


def _read_recording(folder: Path) -> None:
    from come_nav.data import open_recording

    with open_recording(next(folder.iterdir()), quiet=True) as recording:
        for index in range(len(recording)):
            recording.frame(index)


def _make_info(folder: Path) -> list[Path]:
    from come_nav.data.bags.ros_messages import MessageWriter

    (folder / "info.cdr").write_bytes(MessageWriter().camera_info(1, "camera", Arc().intrinsics))
    return [folder / "info.cdr"]


def _read_info(folder: Path) -> None:
    from come_nav.data.bags.calibration import camera_intrinsics
    from come_nav.data.bags.ros_types import CAMERA_INFO, MessageDecoder

    message = MessageDecoder(False).decode((folder / "info.cdr").read_bytes(), CAMERA_INFO)
    camera_intrinsics(message, (16, 12), "/camera_info", [])


def _make_trajectories(folder: Path) -> list[Path]:
    rows = [(1.7e9 + 0.1 * i, 0.1 * i, 0.0, 0.0, 0.0, 0.0, np.sin(i / 20), np.cos(i / 20)) for i in range(12)]
    texts = {
        "tum.txt": "".join(" ".join(f"{value:.9f}" for value in row) + "\n" for row in rows),
        "euroc.csv": "#timestamp [ns],x,y,z,qw,qx,qy,qz\n"
        + "".join(f"{round(row[0] * 1e9)},{row[1]},0,0,{row[7]},0,0,{row[6]}\n" for row in rows),
        "kitti.txt": "".join(f"1 0 0 {row[1]} 0 1 0 0 0 0 1 0\n" for row in rows),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]


def _read_trajectories(folder: Path) -> None:
    from come_nav.data.trajectories import read_trajectory

    refused = None
    for path in sorted(folder.iterdir()):
        try:
            read_trajectory(path)
        except ComeNavError as error:
            refused = error
    if refused is not None:
        raise refused


def _make_nwm(folder: Path) -> list[Path]:
    from come_nav.data.nwm.folder import write_nwm_folder

    written = write_nwm_folder(folder / "nwm", Arc())
    return [written / "traj_data.pkl", written / "3.jpg"]


def _make_checkpoint(folder: Path) -> list[Path]:
    """The smallest model with every part, so that a mutation meets headers and settings rather than weights."""
    from come_nav.core.resources import find_resource

    shipped = find_resource("models", "tiny")
    (folder / "model").mkdir()
    shutil.copy(shipped / "config.yaml", folder / "model" / "config.yaml")
    data = (shipped / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    (folder / "model" / "model.safetensors").write_bytes(data[: 8 + size + 4096])
    return [folder / "model" / "config.yaml", folder / "model" / "model.safetensors"]


def _read_checkpoint(folder: Path) -> None:
    from come_nav.world_model.model import DiffusionWorldModel

    DiffusionWorldModel.load(folder / "model")


TARGETS = {
    "mcap": Target(_make_bag("mcap"), _read_recording),
    "sqlite3": Target(_make_bag("sqlite3"), _read_recording),
    "camera_info": Target(_make_info, _read_info),
    "trajectory": Target(_make_trajectories, _read_trajectories),
    "nwm": Target(_make_nwm, _read_recording),
    "checkpoint": Target(_make_checkpoint, _read_checkpoint),
}
SHARES = {"mcap": 0.1, "sqlite3": 0.1, "camera_info": 0.25, "trajectory": 0.25, "nwm": 0.2, "checkpoint": 0.1}


def main() -> None:
    """Fuzz what is asked for and print the outcomes."""
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=100_000, help="in all (default 100000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(TARGETS), help=f"kinds of {', '.join(TARGETS)}")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    names = args.only.split(",")
    total = sum(SHARES[name] for name in names)
    result: dict[str, Any] = {"seed": args.seed}
    for name in names:
        count = round(args.mutations * SHARES[name] / total)
        with tqdm(total=count, desc=name, unit="mutation", disable=None, file=sys.stderr) as bar:
            result[name] = vars(fuzz(name, TARGETS[name], count, args.seed, bar.update))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
