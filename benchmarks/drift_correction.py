"""What drift correction is worth, measured through the robot's own NavStack.

    python benchmarks/drift_correction.py --part trajectory --worlds 20000 20001 --out FILE
    python benchmarks/drift_correction.py --part bag --bag ../shared/data/bags/kitchen --out FILE
    python benchmarks/drift_correction.py --part moving --out FILE
    python benchmarks/drift_correction.py --part cost --counts 100 1000 10000 --out FILE

``trajectory`` drives tours of 50 m with drifting odometry at 320 x 240 and 4 Hz. "afterwards" compares all key frames
at the end of the tour with the truth (unaligned, the first pose fixed), "at once" the pose of every key frame as the
robot knew it when it was there. ``bag`` does the same with drift added to a recording's odometry. ``moving`` moves a
cloud; ``cost`` grows the anchors and key frames of a robot that drives on and on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.config import load_config
from come_nav.core.files import atomic_write_text
from come_nav.core.geometry import se2, se3
from come_nav.core.protocols import Recording
from come_nav.core.types import CameraIntrinsics, Frame, Odometry
from come_nav.data.opening import open_recording
from come_nav.localisation.features import Features
from come_nav.localisation.keyframe_map import VisualKeyframe
from come_nav.localisation.view import View
from come_nav.memory.keyframes import Keyframes
from come_nav.memory.short_term import Remembered
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.settings import SpatialSettings
from come_nav.memory.spatial.splat_cache import EXTRA
from come_nav.navigation.loading import load_configured_model
from come_nav.navigation.localising.robot_localisation import RobotLocalisation
from come_nav.navigation.localising.settings import LocalisationSettings
from come_nav.navigation.stack import NavStack
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.mounting import camera_in_base
from come_nav.sim.sensors.odometry import OdometrySettings, WheelOdometry
from come_nav.sim.worlds import generate_world

CAMERA = CameraIntrinsics.from_field_of_view(320, 240, 0.5 * math.pi)
Row = dict[str, Any]


def drifted(poses_xyyaw: NDArray[np.float64], percent: float, seed: int) -> NDArray[np.float64]:
    """Return what wheel odometry believes that drifts by ``percent`` of the way, scale errors included; from 0."""
    noise = OdometrySettings.from_percent(percent) if percent else None
    odometry = WheelOdometry(noise, torch.Generator().manual_seed(seed))
    return np.concatenate([np.zeros((1, 3)), odometry.advance(poses_xyyaw)])


def localised(recording: Recording, T_odom_base: NDArray[np.float64], truth: NDArray[np.float64]) -> Row:
    """Show a drive to a stack; return errors of its key frames, and what it cost."""
    config = load_config(None, {"experts.use": ["spatial"], "memory.tolerance": 0.5, "memory.max_gap_s": 5.0})
    stack = NavStack(load_configured_model(config), config, background_training=False)
    anchors, at_once, seconds = list[int](), list[NDArray[np.float64]](), 0.0
    for index in range(len(T_odom_base)):
        frame, before = recording.frame(index), len(stack.localisation.corrections_xyyaw)
        started_s = time.process_time()
        stack.observe(frame, Odometry(frame.stamp_s, T_odom_base[index]))
        seconds += time.process_time() - started_s
        if len(stack.localisation.corrections_xyyaw) > before:
            anchors.append(index)
            pose = se3.xyyaw_from_transform(T_odom_base[index])
            at_once.append(se2.compose(stack.localisation.T_map_odom_xyyaw, pose))
    odom = se3.xyyaw_from_transform(T_odom_base)[anchors]
    afterwards = se2.compose(stack.localisation.corrections_xyyaw, odom)

    def ate(poses: NDArray[np.float64]) -> float:
        return float(np.sqrt(((poses - truth[anchors])[:, :2] ** 2).sum(axis=1).mean()))

    way_m = float(np.hypot(*np.diff(truth[:, :2], axis=0).T).sum())
    cloud = stack.episode.spatial
    return {
        "way m": way_m,
        "key frames": len(anchors),
        "odometry m": ate(odom),
        "corrected afterwards m": ate(afterwards),
        "corrected at once m": ate(np.array(at_once)),
        "held to drift": stack.localisation.drifts,
        "misfit": stack.localisation.misfit,
        "closures": len(stack.localisation.localiser.closures),
        "points": 0 if cloud is None else len(cloud),
        "CPU ms a frame": 1e3 * seconds / len(T_odom_base),
        "MB of key frames": stack.localisation.localiser.map.nbytes / 1e6,
    }


def trajectory(worlds: list[int], percents: list[float], way_m: float) -> list[Row]:
    """Return a row for each world and drift."""
    rows = []
    for seed in worlds:
        world = generate_world(seed)
        episode = simulate_episode(world, "tour", 3.0 * way_m, 4.0, seed=1)
        steps = np.hypot(*np.diff(episode.poses_world_xyyaw[:, :2], axis=0).T).cumsum()
        last = int(np.searchsorted(steps, way_m)) + 1
        truth = se2.relative(episode.poses_world_xyyaw[:1], episode.poses_world_xyyaw[: last + 1])
        recording = EpisodeRecording(episode, Raycaster([world], CAMERA), use_truth=True)
        for percent in percents:
            believed = drifted(truth, percent, seed) if percent else truth
            row = localised(recording, se3.transform_from_xyyaw(believed), truth)
            rows.append({"world": seed, "drift %": percent} | row)
            print(json.dumps(rows[-1]), flush=True)
    return rows


def bag(path: Path, percents: list[float]) -> list[Row]:
    """Return a row for each drift added to what a recording takes for odometry."""
    rows = []
    with open_recording(path, rate_hz=4.0) as recording:
        T = np.asarray(recording.T_odom_base, np.float64)
        truth = se3.xyyaw_from_transform(T)
        for percent in percents:
            moved = se2.compose(truth[:1], drifted(truth, percent, 1)) if percent else truth
            shift = se2.compose(moved, se2.inverse(truth))
            row = localised(recording, se3.transform_from_xyyaw(shift) @ T, truth)
            rows.append({"recording": path.name, "drift %": percent} | row)
            print(json.dumps(rows[-1]), flush=True)
    return rows


def moving(counts: list[int]) -> list[Row]:
    """Return what it costs to move a cloud of so many points, all of them or those of a tenth of the key frames."""
    rows = []
    for count in counts:
        rng = np.random.default_rng(0)
        memory = SpatialMemory(SpatialSettings(max_voxels=count))
        memory.move(np.zeros((100, 3)))
        side = 0.05 * math.sqrt(count / 4.0)
        while len(memory) < count * 0.94:
            for anchor in range(100):
                points = rng.uniform([0, 0, 0], [side, side, 0.2], (count // 100, 3))
                values = rng.normal(size=(len(points), 3 + EXTRA)).astype(np.float32)
                memory.voxels.add(points, values, np.ones(len(points)), 0.0, np.zeros(3), anchor)
        for share in (0.1, 1.0):
            corrections = memory.map_frame._told.copy()
            corrections[-int(100 * share) :] += rng.normal(size=3) * 0.02
            before, started_s = len(memory), time.process_time()
            moved = memory.move(corrections)
            ms = 1e3 * (time.process_time() - started_s)
            rows.append({"points": before, "moved": moved, "CPU ms": ms, "points after": len(memory)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def cost(counts: list[int]) -> list[Row]:
    """Return CPU ms of a new key frame, and memory, after so many: a robot that goes round and round.

    Features are drawn at random, so that registrations fail early: what grows is the graph, the index and the anchors.
    """
    rng, rows = np.random.default_rng(0), []
    for count in counts:
        localisation, places = RobotLocalisation(LocalisationSettings()), Keyframes()
        localisation.on_correction += [places.move]
        angle = np.arange(count + 10) * 0.3 / 20.0
        poses = np.stack([20.0 * np.cos(angle), 20.0 * np.sin(angle), se2.wrap_angle(angle + math.pi / 2)], axis=1)
        for pose in poses[:count]:
            _known(localisation, pose, rng)
        image = rng.integers(0, 255, (240, 320, 3), np.uint8)
        spent = []
        for number, pose in enumerate(poses[count:]):
            frame = Frame(1e3 + number, image, np.full((240, 320), 3.0, np.float32), CAMERA, camera_in_base(0.5))
            started_s = time.process_time()
            localisation.observe(Remembered(frame.stamp_s, pose, frame, None))
            spent.append(1e3 * (time.process_time() - started_s))
        megabytes = localisation.localiser.map.nbytes / 1e6
        rows.append({"key frames": count, "CPU ms": float(np.median(spent)), "most ms": max(spent), "MB": megabytes})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def _known(localisation: RobotLocalisation, pose: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Give a localisation a key frame as if it had been registered to the three before it."""
    known = localisation.localiser.map
    count = 300
    pixels = rng.uniform([5, 5], [315, 235], (count, 2)).astype(np.float32)
    descriptors = rng.integers(0, 120, (count, 128)).astype(np.uint8)
    features = Features(pixels, descriptors, np.full(count, 8.0, np.float32), 320, 240, "sift")
    points = rng.uniform([-2, -1, 1], [2, 1, 4], (count, 3)).astype(np.float32)
    view = View(features, CAMERA, points, np.full((30, 40), 3.0, np.float16))
    index = known.add(VisualKeyframe(0.0, view, se3.transform_from_xyyaw(pose), camera_in_base(0.5)))
    known.index_newest()
    for before in range(max(0, index - 3), index):
        relative = se2.relative(known.pose_map_xyyaw(before), known.pose_map_xyyaw(index))
        known.graph.add_edge(before, index, relative + rng.normal(size=3) * 0.003, np.diag([1e-4, 1e-4, 2.5e-5]))
    anchor = localisation._anchors.add(pose)
    localisation._anchors.link(anchor, index)


def rounded(row: Row) -> Row:
    """Return a row with four digits."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in row.items()}


def main() -> None:
    """Measure one part, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("trajectory", "bag", "moving", "cost"), required=True)
    parser.add_argument("--worlds", nargs="*", type=int, default=[10000])
    parser.add_argument("--percents", nargs="*", type=float, default=[0.0, 1.0, 2.0, 5.0])
    parser.add_argument("--way", type=float, default=50.0, help="m")
    parser.add_argument("--bag", type=Path, default=Path("../shared/data/bags/kitchen"))
    parser.add_argument("--counts", nargs="*", type=int, default=[100, 1000])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.part == "trajectory":
        rows = trajectory(args.worlds, args.percents, args.way)
    elif args.part == "bag":
        rows = bag(args.bag, args.percents)
    else:
        rows = moving(args.counts) if args.part == "moving" else cost(args.counts)
    if args.out is not None:
        facts = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        told = {name: str(value) for name, value in vars(args).items() if name != "out"}
        document = {"machine": facts, "settings": told, "rows": [rounded(row) for row in rows]}
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
