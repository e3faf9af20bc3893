"""Makes docs/images/overview.png anew from what ``come-nav demo`` draws, so that it follows the model.

python docs/make/images.py                     runs the demo in a temporary folder first: minutes
python docs/make/images.py --demo demo_out     takes the drawings of a demo that has run
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from come_nav.core.files import atomic_path
from come_nav.viz.images import enlarge, png_from_rgb

ROOT = Path(__file__).resolve().parents[2]
HEIGHT_PX, GAP_PX = 560, 24
DRAWINGS = ("map.png", "memory.png")  # the drive with plans; views of places seen before, imagined and true


def overview(folder: Path) -> NDArray[np.uint8]:
    """Return the drawings (H, W, 3) of a demo side by side, at the same height."""
    panels = []
    for name in DRAWINGS:
        drawing = cv2.imread(str(folder / name))
        if drawing is None:
            sys.exit(f"{folder / name} is not there; run come-nav demo --out {folder} to its end first")
        panels += [enlarge(np.asarray(drawing[..., ::-1], np.uint8), HEIGHT_PX, smooth=True)]
        panels += [np.full((HEIGHT_PX, GAP_PX, 3), 255, np.uint8)]
    return np.concatenate(panels[:-1], axis=1)


def main() -> None:
    """Run or find the demo, and write the image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="output folder of a demo that has run")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "overview.png")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = args.demo or Path(made)
        if args.demo is None:
            subprocess.run([sys.executable, "-m", "come_nav", "demo", "--out", str(folder)], check=True)
        with atomic_path(args.out) as temporary:
            temporary.write_bytes(png_from_rgb(overview(folder)))


if __name__ == "__main__":
    main()
