"""Where were these images taken? The robot's own recognition on recordings, by features or by remembered views alone.

The first 60 % of a recording are remembered by a NavStack (key frames with features, and the spatial memory); images of
the rest are looked for, as are images of another recording, which were never seen. A pose is right within 0.25 m and
0.2 rad. ``both`` is what the navigator does: features first, remembered views where there are too few; ``views``
compares remembered views alone. ``RGB-only`` rows are of a robot without depth.

    python benchmarks/goal_recognition.py --every 4 --out goal_recognition.json
    python benchmarks/goal_recognition.py --worlds 20000 20003 --drift 0 2 --images 20 --out FILE

``--set`` changes settings, e.g. to other features:

    python benchmarks/goal_recognition.py --recordings kitchen cabinet --kinds both --set \\
        localisation.visual.features.kind=aliked localisation.visual.features.file=aliked-n16.pth

``--worlds`` explores built-in worlds instead, with odometry that drifts, and looks for images taken within 0.3 m and
0.4 rad of the way; a pose counts in the map, where the first pose is the origin, and images of the next world are those
never seen.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.config import load_config
from come_nav.core.files import atomic_write_text
from come_nav.core.geometry import se2
from come_nav.core.protocols import Recording
from come_nav.core.types import CameraIntrinsics, Odometry
from come_nav.data.opening import open_recording
from come_nav.evaluation.metrics.statistics import wilson_interval
from come_nav.memory.keyframes import Keyframes
from come_nav.memory.short_term import FrameStatus
from come_nav.navigation.goals.places import Places
from come_nav.navigation.goals.recognition import Recognition, encoded
from come_nav.navigation.loading import load_configured_model
from come_nav.navigation.settings import RecognitionSettings
from come_nav.navigation.stack import NavStack
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.chain import to_uint8
from come_nav.sim.sensors.odometry import OdometrySettings
from come_nav.sim.worlds import generate_world

RIGHT_M, RIGHT_RAD = 0.25, 0.2
CAMERA = CameraIntrinsics.from_field_of_view(320, 240, 0.5 * np.pi)
DATA = Path(os.environ.get("COME_NAV_DATA", Path(__file__).resolve().parents[1] / "../shared/data")) / "bags"
Row = dict[str, Any]


def explored(drive: Recording, frames: int, keys: list[str], depth: bool) -> tuple[NavStack, Recognition]:
    """Return a robot that remembers the first frames of a drive, and what recognises for it; it saw nothing since."""
    config = load_config(None, ["memory.tolerance=0.5", "experts.use=[spatial]", *keys])
    stack = NavStack(load_configured_model(config), config, background_training=False)
    places = Places(Keyframes(), lambda images: encoded(stack, images))
    for index in range(frames):
        frame = drive.frame(index) if depth else replace(drive.frame(index), depth_m=None)
        odometry = Odometry(float(drive.stamps_s[index]), drive.T_odom_base[index])
        if stack.observe(frame, odometry) is FrameStatus.KEPT and stack.memory.newest is not None:
            places.observe(frame, odometry, stack.memory.newest.features)
    stack.forget_recent()
    return stack, Recognition(stack, places, RecognitionSettings(), lambda text: None)


def looked_for(
    recognition: Recognition,
    rgb: NDArray[np.uint8],
    truth: NDArray[np.float64] | None,
    T_map_odom_xyyaw: NDArray[np.float64] | None = None,
) -> Row:
    """Return what is said of an image with its true pose (3,) in map; without one it was never seen."""
    started_s = time.process_time()
    found = recognition.find(rgb, recognition.latents(rgb), lambda: False)
    row: Row = {"cpu_ms": 1e3 * (time.process_time() - started_s), "seen": truth is not None, "by": found.found_by}
    row |= {"certain": found.pose_odom_xyyaw is not None, "score": found.score, "right": False}
    if truth is not None and found.guess_odom_xyyaw is not None:
        guess = found.guess_odom_xyyaw
        away = se2.relative(truth, guess if T_map_odom_xyyaw is None else se2.compose(T_map_odom_xyyaw, guess))
        row["m"], row["rad"] = float(np.hypot(*away[:2])), float(abs(away[2]))
        row["right"] = row["m"] <= RIGHT_M and row["rad"] <= RIGHT_RAD
    return row


def summary(rows: list[Row]) -> Row:
    seen, unseen = [row for row in rows if row["seen"]], [row for row in rows if not row["seen"]]
    certain = [row for row in rows if row["certain"]]
    right, sure = sum(row["right"] for row in seen), sum(row["right"] for row in certain)
    return {
        "n": len(seen),
        "right": right,
        "right, 95 %": wilson_interval(right, len(seen)),
        "precision": sure / len(certain) if certain else None,
        "precision, 95 %": wilson_interval(sure, len(certain)),
        "recall": sure / max(1, len(seen)),
        "recall, 95 %": wilson_interval(sure, len(seen)),
        "never seen": len(unseen),
        "never seen, recognised": sum(row["certain"] for row in unseen),
        "median m of right ones": float(np.median([row["m"] for row in seen if row["right"]] or [np.nan])),
        "median cpu_ms": float(np.median([row["cpu_ms"] for row in rows])),
    }


KINDS: dict[str, tuple[list[str], bool]] = {
    "both": ([], True),
    "views": (["localisation.use=false"], True),
    "RGB-only, both": ([], False),
}


def in_recordings(names: list[str], every: int, kinds: list[str], changes: list[str]) -> Row:
    """Return a summary for each recording that is there and each kind, with settings changed."""
    drives = {name: open_recording(DATA / name, rate_hz=4.0) for name in names if (DATA / name).is_dir()}
    document: Row = {}
    for name, drive in drives.items():
        first = round(0.6 * len(drive))
        for kind in kinds:
            keys, depth = KINDS[kind]
            _, recognition = explored(drive, first, [*keys, *changes], depth)
            rows = [
                looked_for(recognition, drive.frame(index).rgb, np.asarray(drive.poses_xyyaw[index]))
                for index in range(first, len(drive), every)
            ]
            for other, images in drives.items():
                if other != name:
                    rows += [looked_for(recognition, images.frame(i).rgb, None) for i in range(0, len(images), every)]
            document[f"{name}, {kind}"] = summary(rows)
            print(json.dumps({f"{name}, {kind}": document[f"{name}, {kind}"]}), flush=True)
    return document


class Tour:
    """A drive through a built-in world, and images beside its way.

    Args:
        seed: of the world.
        percent: drift of odometry.
        frames: of the drive, at 4 Hz.
    """

    def __init__(self, seed: int, percent: float, frames: int) -> None:
        self.world = generate_world(seed)
        self.raycaster = Raycaster([self.world], CAMERA)
        noise = OdometrySettings.from_percent(percent) if percent else None
        self.episode = simulate_episode(self.world, "tour", (frames - 1) / 4.0, 4.0, 1, noise)
        self.recording = EpisodeRecording(self.episode, self.raycaster, use_truth=not percent)

    def beside(self, count: int) -> list[tuple[NDArray[np.uint8], NDArray[np.float64]]]:
        """Return images (H, W, 3) and the poses (3,) that they were taken at, in map."""
        rng, found = np.random.default_rng(self.world.seed), []
        poses = self.episode.poses_world_xyyaw
        while len(found) < count:
            near = poses[rng.integers(len(poses))]
            pose = se2.compose(near, rng.uniform([-0.3, -0.3, -0.4], [0.3, 0.3, 0.4]))
            if self.world.free(torch.from_numpy(pose[None, :2]).float(), 0.3).all():
                images, _ = self.raycaster.render(torch.from_numpy(pose[None]))
                found.append((to_uint8(images)[0], se2.relative(poses[0], pose)))
        return found


def in_worlds(
    seeds: list[int], percents: list[float], images: int, kinds: list[str], changes: list[str], frames: int = 240
) -> Row:
    """Return a summary for each drift and kind over all worlds, with settings changed."""
    document: Row = {}
    for percent in percents:
        tours = [Tour(seed, percent, frames) for seed in seeds]
        shown = [tour.beside(images) for tour in tours]
        for kind in kinds:
            keys, depth = KINDS[kind]
            rows: list[Row] = []
            for number, tour in enumerate(tours):
                stack, recognition = explored(tour.recording, frames, [*keys, *changes], depth)
                T_map_odom = stack.localisation.T_map_odom_xyyaw
                rows += [looked_for(recognition, rgb, truth, T_map_odom) for rgb, truth in shown[number]]
                others = shown[(number + 1) % len(tours)] if len(tours) > 1 else []
                rows += [looked_for(recognition, rgb, None) for rgb, _ in others]
            found = document[f"worlds {seeds}, drift {percent:g} %, {kind}"] = summary(rows)
            print(json.dumps({f"drift {percent:g} %, {kind}": found}), flush=True)
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", nargs="*", default=["kitchen", "cabinet"])
    parser.add_argument("--every", type=int, default=1, help="of the images that are looked for")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--worlds", nargs="*", type=int, default=[], help="built-in worlds instead of recordings")
    parser.add_argument("--drift", nargs="*", type=float, default=[0.0, 2.0], help="of odometry there, percent")
    parser.add_argument("--images", type=int, default=20, help="that are looked for in each world")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings other than the default")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.worlds:
        document = in_worlds(args.worlds, args.drift, args.images, args.kinds, args.set)
    else:
        document = in_recordings(args.recordings, args.every, args.kinds, args.set)
    if args.out is not None:
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
