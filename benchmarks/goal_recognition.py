"""Where were these images taken? The robot's own recognition on recordings, by features or by remembered views alone.

The first 60 % of a recording are remembered by a NavStack (key frames with features, and the spatial memory); images of
the rest are looked for, as are images of another recording, which were never seen. A pose is right within 0.25 m and
0.2 rad. ``both`` is what the navigator does: features first, remembered views where there are too few; ``views``
compares remembered views alone. ``RGB-only`` rows are of a robot without depth.

    python benchmarks/goal_recognition.py --every 4 --out goal_recognition.json
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
from numpy.typing import NDArray

from come_nav.config import load_config
from come_nav.core.files import atomic_write_text
from come_nav.core.geometry import se2
from come_nav.core.protocols import Recording
from come_nav.core.types import Odometry
from come_nav.data.opening import open_recording
from come_nav.evaluation.metrics.statistics import wilson_interval
from come_nav.memory.keyframes import Keyframes
from come_nav.memory.short_term import FrameStatus
from come_nav.navigation.goals.places import Places
from come_nav.navigation.goals.recognition import Recognition, encoded
from come_nav.navigation.loading import load_configured_model
from come_nav.navigation.settings import RecognitionSettings
from come_nav.navigation.stack import NavStack

RIGHT_M, RIGHT_RAD = 0.25, 0.2
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


def looked_for(recognition: Recognition, rgb: NDArray[np.uint8], truth: NDArray[np.float64] | None) -> Row:
    """Return what is said of an image; without a true pose it was never seen."""
    started_s = time.process_time()
    found = recognition.find(rgb, recognition.latents(rgb), lambda: False)
    row: Row = {"cpu_ms": 1e3 * (time.process_time() - started_s), "seen": truth is not None, "by": found.found_by}
    row |= {"certain": found.pose_odom_xyyaw is not None, "score": found.score, "right": False}
    if truth is not None and found.guess_odom_xyyaw is not None:
        away = se2.relative(truth, found.guess_odom_xyyaw)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", nargs="*", default=["kitchen", "cabinet"])
    parser.add_argument("--every", type=int, default=1, help="of the images that are looked for")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    drives = {name: open_recording(DATA / name, rate_hz=4.0) for name in args.recordings if (DATA / name).is_dir()}
    document: dict[str, Any] = {}
    for name, drive in drives.items():
        first = round(0.6 * len(drive))
        for kind in args.kinds:
            keys, depth = KINDS[kind]
            _, recognition = explored(drive, first, keys, depth)
            rows = [
                looked_for(recognition, drive.frame(index).rgb, np.asarray(drive.poses_xyyaw[index]))
                for index in range(first, len(drive), args.every)
            ]
            for other, images in drives.items():
                if other != name:
                    rows += [
                        looked_for(recognition, images.frame(i).rgb, None) for i in range(0, len(images), args.every)
                    ]
            document[f"{name}, {kind}"] = summary(rows)
            print(json.dumps({f"{name}, {kind}": document[f"{name}, {kind}"]}), flush=True)
    if args.out is not None:
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
