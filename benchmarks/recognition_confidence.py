"""How likely is it that an image was taken where a key frame says? Fits and checks the confidence of such matches.

``collect`` registers images to every key frame that looks like them, without stopping at the first that is sure, and
writes what speaks for each registration and whether its pose is right (0.25 m, 0.2 rad): images of built-in validation
worlds, of the kitchen's first 60 % and of the cabinet's first half against memories of each of these, so that most
pairs are of places never seen. ``fit`` fits ``KEYFRAME_WEIGHTS`` of
``come_nav/localisation/multi_view/appearance.py`` to that, and prints them, and precision and recall by image, each
memory judged by a fit to the others.

    python benchmarks/recognition_confidence.py --part collect --out evidence.json
    python benchmarks/recognition_confidence.py --part fit --rows evidence.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.files import atomic_write_text
from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.data.opening import open_recording
from come_nav.evaluation.metrics.statistics import wilson_interval
from come_nav.localisation.keyframe_map import LocaliserSettings
from come_nav.localisation.localiser import VisualLocaliser
from come_nav.localisation.multi_view.appearance import appearance, keyframe_vector
from come_nav.localisation.registration import Registration
from come_nav.localisation.verification import Evidence
from come_nav.localisation.view import View, make_view
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world

RIGHT_M, RIGHT_RAD = 0.25, 0.2
CAMERA = CameraIntrinsics.from_field_of_view(320, 240, 0.5 * math.pi)
DATA = Path(os.environ.get("COME_NAV_DATA", Path(__file__).resolve().parents[1] / "../shared/data")) / "bags"
SHARES = {"kitchen": (0.35, 0.6), "cabinet": (0.3, 0.5)}  # remembered up to, looked for up to; the rest is for tests
Taken = tuple[list[Frame], NDArray[np.float64]]
Row = dict[str, Any]


def taken(name: str) -> tuple[Taken, Taken] | None:
    """Return frames and T_odom_base (N, 4, 4) that are remembered, and those that are looked for."""
    if name.startswith("world"):
        world = generate_world(int(name[5:]))
        episode = simulate_episode(world, "tour", 90.0, 2.0, seed=1)
        drive: Any = EpisodeRecording(episode, Raycaster([world], CAMERA), use_truth=True)
        first, last = round(0.6 * len(drive)), len(drive)
    elif (DATA / name).is_dir():
        drive = open_recording(DATA / name, rate_hz=4.0)
        first, last = (round(share * len(drive)) for share in SHARES[name])
    else:
        return None
    poses = np.asarray(drive.T_odom_base)
    return (
        ([drive.frame(i) for i in range(first)], poses[:first]),
        ([drive.frame(i) for i in range(first, last, 2)], poses[first:last:2]),
    )


def spread(registration: Registration, image: View) -> float:
    """Return the standard deviation of the matches that agree, over the image's width: small for one poster."""
    points = image.features.keypoints_px[registration.inliers[:, 1]] / image.features.width
    return float(np.sqrt(np.linalg.det(np.cov(points.T)).clip(0.0)) ** 0.5) if len(points) > 2 else 0.0


def tried(localiser: VisualLocaliser, frame: Frame, T_odom_base: NDArray[np.float64] | None) -> list[Row]:
    """Return what speaks for each registration of an image without depth; without a true pose none is right."""
    known, rows = localiser.map, []
    image = make_view(frame.rgb, frame.intrinsics, config=known.config.features)
    for rank, row in enumerate(known.places.candidates(image.features, known.config.candidates)[0].tolist()):
        found = known.register(row, image)
        if found is None or not found[0].ok:
            continue
        registration, evidence = found
        own: Row = {"rank": rank, **facts(known.keyframes[row].view, image, registration, evidence), "right": False}
        if T_odom_base is not None:
            extrinsics = frame.over_footprint(T_odom_base).T_base_camera
            relative, _ = registration.planar(known.keyframes[row].T_footprint_camera, extrinsics)
            away = se2.relative(se3.xyyaw_from_transform(T_odom_base), se2.compose(known.pose_map_xyyaw(row), relative))
            own["m"], own["rad"] = float(np.hypot(*away[:2])), float(abs(away[2]))
            own["right"] = own["m"] <= RIGHT_M and own["rad"] <= RIGHT_RAD
        rows.append(own)
    return rows


def facts(keyframe: View, image: View, registration: Registration, evidence: Evidence) -> Row:
    sigma_m = float(np.sqrt(np.linalg.eigvalsh(registration.covariance[:3, :3]).max()))
    return {
        "inliers": evidence.inliers,
        "ratio": evidence.inlier_ratio,
        "support": evidence.support,
        "visible": evidence.visible,
        "geometry": evidence.geometry,
        "features": evidence.confidence,
        "looks": appearance(keyframe, registration.T_a_b, image),
        "rms_px": registration.rms_px * 320.0 / image.features.width,
        "spread": spread(registration, image),
        "sigma_m": sigma_m,
    }


def collect(names: list[str], out: Path, others: int) -> None:
    found: list[Row] = []
    drives = {name: drive for name in names if (drive := taken(name)) is not None}
    rng = np.random.default_rng(0)
    for name, (remembered, _) in drives.items():
        for depth in (True, False):
            if name.startswith("world") and not depth:
                continue
            localiser = VisualLocaliser(LocaliserSettings())
            for frame, pose in zip(*remembered, strict=True):
                localiser.observe(frame if depth else replace(frame, depth_m=None), pose)
            for other, (_, (frames, poses)) in drives.items():
                rows = range(len(frames)) if other == name else rng.permutation(len(frames))[:others]
                for index in rows:
                    pose = poses[index] if other == name else None
                    found.append(
                        {
                            "memory": name,
                            "depth": depth,
                            "image": f"{other} {index}",
                            "seen": pose is not None,
                            "tried": tried(localiser, frames[index], pose),
                        }
                    )
            print(name, depth, len(localiser), len(found), flush=True)
            atomic_write_text(out, json.dumps(found))


# -- the regression ------------------------------------------------------------------------------------------------


def inputs(own: Row) -> NDArray[np.float64]:
    """Return what the regression sees of one registration."""
    return keyframe_vector(own["ratio"], own["looks"])


def fitted(rows: list[Row]) -> NDArray[np.float64]:
    """Return the weights (4,) of the logistic regression over all registrations whose colours are known."""
    every = [own for row in rows for own in row["tried"] if np.isfinite(own["looks"])]
    x, y = np.array([inputs(own) for own in every]), np.array([own["right"] for own in every], float)
    weights = np.zeros(4)
    for _ in range(100):  # Newton, with a weak prior
        p = 1.0 / (1.0 + np.exp(-x @ weights))
        prior = np.diag([0.0, 0.1, 0.1, 0.1])
        hessian = (x * (p * (1.0 - p))[:, None]).T @ x + prior
        step = np.linalg.solve(hessian, x.T @ (y - p) - prior @ weights)
        weights = weights + step
        if np.abs(step).max() < 1e-9:
            break
    return weights


def answers(rows: list[Row], weights: NDArray[np.float64]) -> list[Row]:
    """Return for each image the confidence of the likeliest registration, and whether that is right."""
    found = []
    for row in rows:
        scored = [
            (float(1.0 / (1.0 + np.exp(-inputs(own) @ weights))), own["right"])
            for own in row["tried"]
            if np.isfinite(own["looks"])
        ]
        confidence, right = max(scored, default=(0.0, False))
        found.append({"memory": row["memory"], "seen": row["seen"], "confidence": confidence, "right": right})
    return found


def curve(found: list[Row]) -> Row:
    """Return precision and recall over the operating point, with 95 % intervals."""
    seen = sum(row["seen"] for row in found)
    points = []
    for certain in (0.5, 0.7, 0.8, 0.9, 0.93, 0.95, 0.97, 0.975, 0.98, 0.99):
        mine = [row for row in found if row["confidence"] >= certain]
        right = sum(row["right"] for row in mine)
        points.append(
            {
                "certain": certain,
                "right": right,
                "of": len(mine),
                "precision, 95 %": wilson_interval(right, len(mine)),
                "recall": right / max(1, seen),
                "never seen, certain": sum(not row["seen"] for row in mine),
            }
        )
    return {
        "seen": seen,
        "never seen": len(found) - seen,
        "right at best": sum(r["right"] for r in found),
        "curve": points,
    }


def fit(path: Path) -> Row:
    rows = [row for row in json.loads(path.read_text()) if row["depth"]]
    held_out: list[Row] = []
    for memory in sorted({row["memory"] for row in rows}):
        weights = fitted([row for row in rows if row["memory"] != memory])
        held_out += answers([row for row in rows if row["memory"] == memory], weights)
    worlds = [row for row in held_out if row["memory"].startswith("world")]
    real = [row for row in held_out if not row["memory"].startswith("world")]
    return {
        "weights": fitted(rows).round(2).tolist(),
        "registrations": sum(len(row["tried"]) for row in rows),
        "validation worlds": curve(worlds),
        "kitchen's and cabinet's first parts": curve(real),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("collect", "fit"), required=True)
    worlds = [f"world{seed}" for seed in range(10020, 10028)]
    parser.add_argument("--names", nargs="*", default=["kitchen", "cabinet", *worlds])
    parser.add_argument("--others", type=int, default=6, help="images of each other place that are looked for")
    parser.add_argument("--rows", type=Path, help="what --part collect wrote")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    needed = args.out if args.part == "collect" else args.rows
    if needed is None:
        parser.error("--part collect needs --out FILE, --part fit needs --rows FILE")
    if args.part == "collect":
        collect(args.names, args.out, args.others)
        return
    document = fit(args.rows)
    print(json.dumps(document, indent=1))
    if args.out is not None:
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
