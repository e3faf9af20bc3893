"""Where was this image taken? Error of the pose found in memory, and how far the difference tells right from wrong.

A robot drives through test worlds and remembers: key frames and the spatial memory. Then images are taken: a third
exactly where it drove; a third up to 1.5 m beside (and up to 23 degrees turned); a third up to 1.5 m ahead of where the
robot is taken to stand, in view of it. Rows: the most similar key frame (by cosine of latents), and the pose that
``relocalise`` finds from there and from the robot's own pose. A pose is right within 0.5 m and 0.6 rad. ``true pose
difference`` is what a perfect search would find at most.

    python benchmarks/relocalisation.py --worlds 20000-20005 --images 15 --out benchmarks/results/relocalisation.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from come_nav.config import load_config
from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.core.types import Odometry
from come_nav.evaluation.metrics.statistics import bootstrap_mean
from come_nav.localisation.relocalisation import poses_ahead
from come_nav.memory.keyframes import Keyframes
from come_nav.memory.short_term import FrameStatus
from come_nav.navigation.goals.places import Places
from come_nav.navigation.loading import load_stack
from come_nav.navigation.stack import NavStack
from come_nav.sim.builtin import BuiltInSimulator, ideal_camera
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world

RIGHT_M, RIGHT_RAD = 0.5, 0.6
KINDS = ("on the way", "beside it", "in view")


def explored(seed: int, frames: int) -> tuple[NavStack, Places, EpisodeRecording]:
    """Return a stack and places that remember a tour through a world, and the tour."""
    stack, world = load_stack(load_config(None, ["experts.use=[spatial]"])), generate_world(seed)
    camera = BuiltInSimulator.in_world(world, ideal_camera(), seed=seed).renderer
    episode = simulate_episode(world, "tour", frames / stack.model.rate_hz, stack.model.rate_hz, seed=seed)
    drive = EpisodeRecording(episode, Raycaster([world], camera.intrinsics), use_truth=True)
    places = Places(Keyframes(), lambda images: stack.model.encode(stack.model.images_from_rgb(images)))
    for index in range(len(drive)):
        frame = drive.frame(index)
        odometry = Odometry(frame.stamp_s, drive.T_odom_base[index])
        newest = stack.memory.newest if stack.observe(frame, odometry) is FrameStatus.KEPT else None
        if newest is not None:
            places.observe(frame, odometry, newest.features)
    return stack, places, drive


def images(seed: int, drive: EpisodeRecording, count: int) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Return kinds, where the robot stands and true poses of the images (3,), both in the drive's frame; images."""
    rng, world, found = np.random.default_rng(seed), generate_world(seed), []
    camera = BuiltInSimulator.in_world(world, ideal_camera(), seed=seed)
    T_world_odom = se2.compose(drive.episode.poses_world_xyyaw[0], se2.inverse(drive.poses_xyyaw[0]))
    while len(found) < count:
        kind, pose = KINDS[len(found) % len(KINDS)], drive.poses_xyyaw[rng.integers(len(drive))]
        stands = drive.poses_xyyaw[-1]
        if kind == "beside it":
            turn = rng.uniform(-np.pi, np.pi)
            away = rng.uniform(0.3, 1.5) * np.array([np.cos(turn), np.sin(turn)])
            pose = se2.compose(pose, np.array([*away, rng.uniform(-0.4, 0.4)]))
        elif kind == "in view":
            stands, pose = pose, se2.compose(pose, rng.uniform([0.6, -0.3, -0.4], [1.5, 0.3, 0.4]))
            ends = se2.compose(T_world_odom, np.stack([stands, pose]))[:, :2]
            if not bool(world.free(torch.from_numpy(np.linspace(*ends, 50)).float(), 0.0).all()):
                continue
        try:
            camera.reset(se2.compose(T_world_odom, pose))
        except ConfigError:
            continue
        found.append((kind, stands, pose, camera.observe()[0].rgb))
    return found


def evaluated(
    stack: NavStack, places: Places, kind: str, stands: np.ndarray, truth: np.ndarray, rgb: np.ndarray
) -> dict[str, Any]:
    """Return errors of the most similar key frame and of the pose that was found."""
    search, started_s = stack.settings.relocalisation, time.process_time()
    latents = stack.model.encode(stack.model.images_from_rgb([rgb]))[0].float()
    starts, differences = places.most_similar(latents, search.starts)
    found = stack.relocalise(rgb, np.vstack([poses_ahead(stands), starts]))
    row: dict[str, Any] = {"kind": kind, "cpu_s": time.process_time() - started_s}
    difference = stack.episode.difference_to(stack.model.images_from_rgb([rgb])[0])
    row["true pose difference"] = float(difference(torch.from_numpy(truth)[None])[0])
    for name, pose in (("key frame", starts[0]), ("found", found.pose_odom_xyyaw)):
        away = se2.relative(truth, pose)
        row[f"{name} m"], row[f"{name} rad"] = float(np.hypot(*away[:2])), float(abs(away[2]))
        row[f"{name} right"] = row[f"{name} m"] <= RIGHT_M and row[f"{name} rad"] <= RIGHT_RAD
    return row | {"key frame difference": float(differences[0]), "found difference": found.difference}


def summary(rows: list[dict[str, Any]], threshold: float) -> dict[str, Any]:
    """Return shares that are right, with 95 % intervals over worlds, and errors."""
    result: dict[str, Any] = {}
    for kind in KINDS:
        mine = [row for row in rows if row["kind"] == kind]
        worlds = [row["world"] for row in mine]
        part: dict[str, Any] = {"n": len(mine), "median cpu_s": float(np.median([row["cpu_s"] for row in mine]))}
        for name in ("key frame", "found"):
            share = bootstrap_mean(np.array([float(row[f"{name} right"]) for row in mine]), 0, worlds)
            part[f"{name} right"] = [round(float(value), 3) for value in (share.value, share.low, share.high)]
            part[f"{name} median m"] = float(np.median([row[f"{name} m"] for row in mine]))
        sure = [row["found right"] for row in mine if row["found difference"] <= threshold]
        part["recognised"] = {"n": len(sure), "right": sum(sure)}
        result[kind] = part
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="20000-20005", help="seeds A-B; 20000-20099 are for tests")
    parser.add_argument("--images", type=int, default=15, help="per world")
    parser.add_argument("--frames", type=int, default=480, help="of the tour, at the model's rate")
    parser.add_argument("--threshold", type=float, default=0.4, help="difference below which an image is recognised")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    first, last = (int(seed) for seed in args.worlds.split("-"))
    for seed in range(first, last + 1):
        stack, places, drive = explored(seed, args.frames)
        for image in images(seed, drive, args.images):
            rows.append({"world": seed, **evaluated(stack, places, *image)})
            print(json.dumps(rows[-1]), flush=True)
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    asked = {key: str(value) for key, value in vars(args).items() if key != "out"}
    document = {"machine": machine, "settings": asked, "summary": summary(rows, args.threshold), "rows": rows}
    print(json.dumps(document["summary"], indent=1))
    if args.out is not None:
        args.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
