"""Features, registration and the pose graph: images found again, drift taken out, and what it costs.

Parts:

* ``relocalisation``: a recording's first 60 % are remembered, every image of the rest is looked for. A pose is right
  within 0.25 m and 0.2 rad. Negatives: images of other recordings and of built-in worlds, which were never seen. Rows
  with and without the image's own depth. ``certain`` counts what is above the operating point.
* ``drift``: tours of 50 m through built-in worlds at 320 x 240, odometry drifting by a share of the distance;
  trajectory ATE (first pose fixed, no alignment) of the key frames as odometry and as the graph have them.
* ``graph``: seconds to solve graphs of 100 to 10,000 key frames; ms of candidates among 1,000 and 10,000 places.
* ``calibration``: fits ``WEIGHTS`` of ``come_nav/localisation/verification.py`` to the rows that ``relocalisation``
  wrote of built-in worlds (never of recordings), and prints them.

    python benchmarks/registration.py --part relocalisation --every 4 --out benchmarks/results/registration.json
    python benchmarks/registration.py --part calibration --rows worlds.json

Recordings come from ../shared/data or COME_NAV_DATA; those that are absent are left out with a line that says so.
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

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Frame, Trajectory
from come_nav.data.opening import open_recording
from come_nav.evaluation.metrics.statistics import wilson_interval
from come_nav.evaluation.metrics.trajectory_metrics import ate
from come_nav.localisation.features import Features
from come_nav.localisation.keyframe_map import LocaliserSettings
from come_nav.localisation.localiser import VisualLocaliser
from come_nav.localisation.place_recognition import PlaceIndex
from come_nav.localisation.pose_graph import PoseGraph, solve
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.odometry import OdometrySettings, WheelOdometry
from come_nav.sim.worlds import generate_world

RIGHT_M, RIGHT_RAD = 0.25, 0.2
CAMERA = CameraIntrinsics.from_field_of_view(320, 240, 0.5 * math.pi)
DATA = Path(os.environ.get("COME_NAV_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))


def frames_of(name: str, every: int = 1) -> tuple[list[Frame], NDArray[np.float64]] | None:
    """Return frames and T_odom_base (N, 4, 4) of a recording or of "world<seed>"; None where it is absent."""
    if name.startswith("world"):
        world = generate_world(int(name[5:]))
        episode = simulate_episode(world, "tour", 90.0, 2.0, seed=1)
        drive = EpisodeRecording(episode, Raycaster([world], CAMERA), use_truth=True)
        return [drive.frame(index) for index in range(0, len(drive), every)], drive.T_odom_base[::every]
    if name == "kitti00":
        files = sorted((DATA / "kitti00/sequences/00/image_2").glob("*.jpg"))[::every]
        camera = CameraIntrinsics(416, 128, 240.97, 244.72, 203.54, 63.05)
        images = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]
        frames = [Frame(0.1 * index, image, None, camera) for index, image in enumerate(images)]
        return (frames, np.tile(np.eye(4), (len(frames), 1, 1))) if frames else None
    path = DATA / "bags" / name
    if not path.is_dir():
        return None
    with open_recording(path, rate_hz=None) as drive:
        return [drive.frame(index) for index in range(0, len(drive), every)], drive.T_odom_base[::every]


def looked_for(
    localiser: VisualLocaliser, frame: Frame, T_odom_base: NDArray[np.float64] | None, depth: bool
) -> dict[str, Any]:
    """Return what relocalisation says of an image; without a true pose the image was never seen."""
    started_s = time.process_time()
    extrinsics = None if T_odom_base is None else frame.over_footprint(T_odom_base).T_base_camera
    found = localiser.relocalise(frame.rgb, frame.intrinsics, frame.depth_m if depth else None, extrinsics)
    row: dict[str, Any] = {"depth": depth, "cpu_ms": 1e3 * (time.process_time() - started_s)}
    row |= {"certain": found.certain, "confidence": found.confidence, "seen": T_odom_base is not None, "right": False}
    if found.evidence is not None:
        row["evidence"] = found.evidence.vector().tolist()
    if found.pose_map_xyyaw is not None and T_odom_base is not None:
        away = se2.relative(se3.xyyaw_from_transform(T_odom_base), found.pose_map_xyyaw)
        row["m"], row["rad"] = float(np.hypot(*away[:2])), float(abs(away[2]))
        row["right"] = row["m"] <= RIGHT_M and row["rad"] <= RIGHT_RAD
    return row


def relocalisation(
    names: list[str], negatives: list[str], every: int, settings: LocaliserSettings
) -> list[dict[str, Any]]:
    """Remember the first 60 % of each recording; look for the rest and for what was never seen."""
    rows: list[dict[str, Any]] = []
    unseen = [(name, frames_of(name, every)) for name in negatives if name not in names]
    for name in names:
        loaded = frames_of(name)
        if loaded is None:
            print(f"{name}: left out, {DATA} does not hold it")
            continue
        frames, poses = loaded
        first = int(0.6 * len(frames))
        localiser, started_s = VisualLocaliser(settings), time.process_time()
        for frame, pose in zip(frames[:first], poses[:first], strict=True):
            localiser.observe(frame, pose)
        kept_ms = 1e3 * (time.process_time() - started_s) / max(1, len(localiser))
        print(json.dumps({"memory": name, "keyframes": len(localiser), "ms a key frame": round(kept_ms)}), flush=True)
        images = list(zip(frames[first:], poses[first:], strict=True))
        for depth in (False, True):
            found = [looked_for(localiser, frame, pose, depth) for frame, pose in images]
            rows += [row | {"memory": name, "images": name} for row in found]
            for other, their in unseen:
                for frame in [] if their is None else their[0]:
                    if frame.depth_m is not None or not depth:
                        rows.append(looked_for(localiser, frame, None, depth) | {"memory": name, "images": other})
    return rows


def relocalisation_summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for memory in sorted({row["memory"] for row in rows}):
        for depth in (False, True):
            mine = [row for row in rows if row["memory"] == memory and row["depth"] == depth]
            seen, unseen = [row for row in mine if row["seen"]], [row for row in mine if not row["seen"]]
            certain = [row for row in mine if row["certain"]]
            right = sum(row["right"] for row in seen)
            certain_right = sum(row["right"] for row in certain)
            result[f"{memory}, {'RGB-D' if depth else 'RGB'} images"] = {
                "n": len(seen),
                "right": right,
                "right share, 95 %": wilson_interval(right, len(seen)),
                "certain": sum(row["certain"] for row in seen),
                "certain and right": sum(row["certain"] and row["right"] for row in seen),
                "median m": float(np.median([row["m"] for row in seen if row["right"]] or [math.nan])),
                "never seen": len(unseen),
                "never seen, certain": sum(row["certain"] for row in unseen),
                "precision": certain_right / len(certain) if certain else None,
                "precision, 95 %": wilson_interval(certain_right, len(certain)),
                "recall": certain_right / max(1, len(seen)),
                "recall, 95 %": wilson_interval(certain_right, len(seen)),
                "median cpu_ms, seen": float(np.median([row["cpu_ms"] for row in seen])),
                "median cpu_ms, never seen": float(np.median([row["cpu_ms"] for row in unseen] or [math.nan])),
            }
    for depth in (False, True):
        kind = "RGB-D" if depth else "RGB"
        result[f"precision and recall, {kind} images"] = curve([row for row in rows if row["depth"] == depth])
    return result


def curve(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return precision and recall over thresholds of confidence."""
    seen, points = sum(row["seen"] for row in rows), []
    for threshold in (0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99):
        taken = [row for row in rows if row["confidence"] >= threshold]
        right = sum(row["right"] for row in taken)
        points.append(
            {
                "confidence": threshold,
                "taken": len(taken),
                "precision": right / len(taken) if taken else None,
                "precision, 95 %": wilson_interval(right, len(taken)),
                "recall": right / max(1, seen),
            }
        )
    return points


def logistic(x: NDArray[np.float64], y: NDArray[np.float64], used: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the weights (6,) of a logistic regression over the columns ``used``, with a small L2."""
    spread = np.where(used == 0, 1.0, x.std(axis=0) + 1e-9)
    ridge = np.where(used == 0, 1e-6, 0.1)
    z, weights = x / spread, np.zeros(len(used))
    for _ in range(100):
        p = 1.0 / (1.0 + np.exp(-z @ weights))
        hessian = (z.T * (p * (1 - p))) @ z + np.diag(ridge)
        weights -= np.linalg.solve(hessian, z.T @ (p - y) + ridge * weights)
    full = np.zeros(6)
    full[used] = weights / spread
    return full


def calibration(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Fit the logistic regression of confidence, with geometry and without; return weights and how well they hold."""
    result: dict[str, Any] = {}
    for depth in (False, True):
        mine = [row for row in rows if row["depth"] == depth and "evidence" in row]
        x = np.array([row["evidence"] for row in mine])
        y = np.array([float(row["right"]) for row in mine])
        used = np.array([0, 1, 2, 3, 4, 5] if depth else [0, 1, 2, 3, 4])
        while True:
            full = logistic(x[:, used], y, used)
            # more that agrees never speaks against a pose: what comes out so only stands in for something else
            against = [index for index in used if index in (1, 2, 3, 5) and full[index] < 0]
            if not against:
                break
            used = used[~np.isin(used, against)]
        p = 1.0 / (1.0 + np.exp(-x @ full))
        result["RGB-D" if depth else "RGB"] = {
            "weights": full.round(2).tolist(),
            "n": len(mine),
            "right": int(y.sum()),
            "Brier score": float(((p - y) ** 2).mean()),
            "confidence of right, of wrong": [float(p[y > 0].mean()), float(p[y == 0].mean())],
            "wrong above 0.9": int(((p > 0.9) & (y == 0)).sum()),
            "right above 0.9": int(((p > 0.9) & (y > 0)).sum()),
        }
    return result


def drifted(poses_xyyaw: NDArray[np.float64], percent: float, seed: int) -> NDArray[np.float64]:
    """Return what odometry believes that drifts by ``percent`` of the distance."""
    noise = OdometrySettings(distance_percent=percent, rotation_percent=percent, heading_percent=percent)
    odometry = WheelOdometry(noise, torch.Generator().manual_seed(seed))
    return np.concatenate([np.zeros((1, 3)), odometry.advance(poses_xyyaw)])


def drift(
    names: list[str], percents: list[float], seeds: list[int], settings: LocaliserSettings
) -> list[dict[str, Any]]:
    """Drive tours with drifting odometry; compare the key frames' trajectory with and without the graph."""
    rows: list[dict[str, Any]] = []
    for name in names:
        world = generate_world(int(name[5:]))
        for seed in seeds:
            episode = simulate_episode(world, "tour", 160.0, 10.0, seed=seed)
            steps = np.hypot(*np.diff(episode.poses_world_xyyaw[:, :2], axis=0).T).cumsum()
            last = int(np.searchsorted(steps, 50.0)) + 1
            truth = se2.relative(episode.poses_world_xyyaw[:1], episode.poses_world_xyyaw[: last + 1])
            recording = EpisodeRecording(episode, Raycaster([world], CAMERA), use_truth=True)
            rendered: dict[int, Frame] = {}
            for percent in percents:
                rows.append(_drift_row(recording, rendered, truth, percent, seed, settings) | {"world": name})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def _drift_row(
    recording: EpisodeRecording,
    rendered: dict[int, Frame],
    truth: NDArray[np.float64],
    percent: float,
    seed: int,
    settings: LocaliserSettings,
) -> dict[str, Any]:
    believed = drifted(truth, percent, seed) if percent else se2.relative(truth[:1], truth)
    localiser, kept, seconds = VisualLocaliser(settings), list[int](), 0.0
    last = None
    for index, pose in enumerate(believed):
        if last is not None:
            moved = se2.relative(believed[last], pose)
            if np.hypot(*moved[:2]) < settings.spacing_m and abs(moved[2]) < settings.spacing_rad:
                continue
        last = index
        if index not in rendered:
            rendered[index] = recording.frame(index)
        started_s = time.process_time()
        localiser.add_keyframe(rendered[index], se3.transform_from_xyyaw(pose))
        seconds += time.process_time() - started_s
        kept.append(index)
    started_s = time.process_time()
    solution = localiser.optimise()
    stamps = np.arange(len(kept), dtype=float)
    reference = Trajectory.from_xyyaw(stamps, truth[kept])
    before = ate(reference, Trajectory.from_xyyaw(stamps, believed[kept])).translation_m.rmse
    after = ate(reference, Trajectory.from_xyyaw(stamps, localiser.poses_map_xyyaw)).translation_m.rmse
    edges = localiser.map.graph.edges
    there = se2.relative(truth[kept][edges.nodes[:, 0]], truth[kept][edges.nodes[:, 1]])
    off = np.hypot(*(there - edges.poses_xyyaw)[:, :2].T)
    span = edges.nodes[:, 1] - edges.nodes[:, 0]
    return {
        "drift %": percent,
        "seed": seed,
        "keyframes": len(kept),
        "ATE odometry m": before,
        "ATE graph m": after,
        "closures": int((edges.robust & (span > settings.predecessors)).sum()),
        "closures wrong": int((edges.robust & (span > settings.predecessors) & (off > RIGHT_M)).sum()),
        "neighbour edges": int((edges.robust & (span <= settings.predecessors)).sum()),
        "neighbour edges wrong": int((edges.robust & (span <= settings.predecessors) & (off > RIGHT_M)).sum()),
        "rejected": int(solution.rejected.sum()),
        "ms a key frame": 1e3 * seconds / len(kept),
        "graph s": time.process_time() - started_s,
    }


def graph_of(count: int, rng: np.random.Generator) -> tuple[PoseGraph, NDArray[np.float64]]:
    """Return a graph of a long tour: odometry, three predecessors, closures of which 5 % are wrong; and the truth."""
    around = np.arange(count) * 0.4 / 20.0
    radius = 20.0 * (1.0 + 0.3 * np.sin(around * 0.37))
    places = np.stack([radius * np.cos(around), radius * np.sin(around)], axis=1)
    yaw = np.arctan2(*np.diff(places, axis=0, append=2 * places[-1:] - places[-2:-1]).T[::-1])
    truth, graph = np.concatenate([places, yaw[:, None]], axis=1), PoseGraph()
    sigmas = np.diag([0.01, 0.01, 0.01]) ** 2
    pose = truth[0]
    graph.add_node(pose)
    for index in range(1, count):
        moved = se2.relative(truth[index - 1], truth[index]) + rng.normal(size=3) * [0.01, 0.005, 0.004]
        pose = se2.compose(pose, moved)
        graph.add_node(pose)
        graph.add_edge(index - 1, index, moved, np.diag([0.02, 0.02, 0.01]) ** 2, robust=False)
        ends = [index - back for back in (1, 2, 3) if index >= back]
        if index % 3 == 0 and index > 400:
            near = np.hypot(*(truth[: index - 100, :2] - truth[index, :2]).T)
            ends += [int(near.argmin())] if near.min() < 1.0 else []
        for end in ends:
            relative = se2.relative(truth[end], truth[index]) + rng.normal(size=3) * 0.01
            if index - end > 3 and rng.random() < 0.05:
                relative += rng.normal(size=3) * [3.0, 3.0, 1.0]
            graph.add_edge(end, index, relative, sigmas)
    return graph, truth


def graph_cost() -> list[dict[str, Any]]:
    """Time the graph and the index of places."""
    rows: list[dict[str, Any]] = []
    for count in (100, 1000, 10000):
        rng = np.random.default_rng(0)
        graph, truth = graph_of(count, rng)
        before = graph.poses_xyyaw
        started_s = time.process_time()
        solution = solve(before, graph.edges)
        seconds = time.process_time() - started_s
        graph.optimise()
        graph.add_edge(0, count - 1, se2.relative(truth[0], truth[-1]), np.diag([0.01, 0.01, 0.01]) ** 2)
        started_s = time.process_time()
        again = graph.optimise()
        again_s = time.process_time() - started_s
        index = PlaceIndex()
        features = [_random_features(rng) for _ in range(12)]
        index.train(features)
        described = [index.describe(one) for one in features]
        index._table = np.stack([described[k % 12] for k in range(count)])
        index._count = count
        started_s = time.process_time()
        for one in features:
            index.candidates(one, 8)
        rows.append(
            {
                "keyframes": count,
                "edges": len(graph.edges),
                "graph s": seconds,
                "steps": solution.steps,
                "with one more closure s": again_s,
                "with one more closure steps": again.steps,
                "rms before m": float(np.sqrt(((before - truth)[:, :2] ** 2).sum(1).mean())),
                "rms after m": float(np.sqrt(((solution.poses_xyyaw - truth)[:, :2] ** 2).sum(1).mean())),
                "candidates ms": 1e3 * (time.process_time() - started_s) / 12,
                "index MB": index.nbytes / 1e6,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def _random_features(rng: np.random.Generator) -> Features:
    descriptors = rng.integers(0, 128, (600, 128)).astype(np.uint8)
    return Features(np.zeros((600, 2), np.float32), descriptors, np.ones(600, np.float32), 320, 240)


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with four digits of each number."""
    four = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
    if "evidence" in row:
        four["evidence"] = [float(f"{value:.4g}") for value in row["evidence"]]
    return four


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("relocalisation", "drift", "graph", "calibration"), required=True)
    parser.add_argument("--memory", nargs="*", default=["kitchen", "cabinet"], help="recordings, or world<seed>")
    parser.add_argument(
        "--negatives",
        nargs="*",
        default=["kitchen", "cabinet", "kitti00", "world10010", "world10011", "world10012", "world10013"],
    )
    parser.add_argument("--every", type=int, default=2, help="take every n-th image of what was never seen")
    parser.add_argument("--worlds", nargs="*", default=["world10000", "world10001"])
    parser.add_argument("--percents", nargs="*", type=float, default=[0.0, 1.0, 2.0, 5.0])
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--rows", type=Path, help="what --part relocalisation wrote, for --part calibration")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    settings, summary = LocaliserSettings(), dict[str, Any]()
    if args.part == "relocalisation":
        rows = relocalisation(args.memory, args.negatives, args.every, settings)
        summary = relocalisation_summary(rows)
    elif args.part == "drift":
        rows = drift(args.worlds, args.percents, args.seeds, settings)
        for percent in args.percents:
            mine = [row for row in rows if row["drift %"] == percent]
            pairs = np.array([[row["ATE odometry m"], row["ATE graph m"]] for row in mine])
            summary[f"{percent:g} %"] = {
                "n": len(mine),
                "ATE odometry m": pairs[:, 0].mean(),
                "graph m": pairs[:, 1].mean(),
            }
    elif args.part == "calibration":
        if args.rows is None:
            parser.error("--part calibration needs --rows FILE, what --part relocalisation --out FILE wrote")
        rows = []
        summary = calibration(json.loads(args.rows.read_text())["rows"])
    else:
        rows = graph_cost()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "opencv": cv2.__version__}
    asked = {key: str(value) for key, value in vars(args).items() if key != "out"}
    print(json.dumps(summary, indent=1))
    if args.out is not None:
        document = {"machine": machine, "settings": asked, "summary": summary}
        lines = ",\n".join(json.dumps(rounded(row)) for row in rows)
        args.out.write_text(json.dumps(document, indent=1)[:-2] + f',\n "rows": [\n{lines}\n]\n}}\n')


if __name__ == "__main__":
    main()
