"""Makes docs/images/sensors.png: one drive through ideal and through realistic sensors, colour and depth.

python docs/make/sensors_image.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from come_nav.core.files import atomic_path
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.settings import PRESETS
from come_nav.sim.worlds import generate_world
from come_nav.viz.frames import compose_panels
from come_nav.viz.images import png_from_rgb

ROOT = Path(__file__).resolve().parents[2]
WORLD, SEED = 7, 3  # of the training worlds
FARTHEST_M = 7.0


def depth_rgb(depth_m: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return depth (H, W) as colours (H, W, 3): near is bright, what is missing is black."""
    scaled = np.uint8(255 * np.clip(1.0 - depth_m / FARTHEST_M, 0.0, 1.0) ** 1.5)
    colours = np.asarray(cv2.applyColorMap(scaled, cv2.COLORMAP_VIRIDIS), np.uint8)[..., ::-1].copy()
    colours[~(depth_m > 0)] = 0
    return colours


def main() -> None:
    """Render the frames that turn fastest and slowest, and one between, and write the image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "sensors.png")
    args = parser.parse_args()
    world = generate_world(WORLD)
    episode = simulate_episode(world, "tour", 60.0, 4.0, SEED)
    raycaster = Raycaster([world], CameraIntrinsics.from_field_of_view(320, 240, np.radians(75.0)))
    order = np.argsort(np.abs(episode.twists[:, 1]))
    panels = {}
    for index in (order[8], order[len(order) // 2], order[-4]):
        words = f"{episode.twists[index, 1]:+.1f} rad/s"
        for name, sensors in PRESETS.items():
            frame = EpisodeRecording(episode, raycaster, sensors=sensors).frame(int(index))
            panels[f"{name} colour, {words}"] = frame.rgb
            panels[f"{name} depth, {words}"] = depth_rgb(frame.depth_m)
    with atomic_path(args.out) as temporary:
        temporary.write_bytes(png_from_rgb(compose_panels(panels, cell_px=240, columns=4)))


if __name__ == "__main__":
    main()
