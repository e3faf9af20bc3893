"""Makes docs/images/imagined.png: what the shipped models imagine of test worlds and of a recording, beside the truth.

python docs/make/imagined_image.py cabinet        a recording that may be shown

Each line is the middle one of the windows that tables of imagined views have, whatever it shows; * is drawn in 20 steps
with a corrector. The image in docs/ has the cabinet of TUM RGB-D (fr3/cabinet, Sturm et al. 2012, CC BY 4.0).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.config import load_config
from come_nav.core.files import atomic_path
from come_nav.evaluation.protocols.protocol import ProtocolSettings
from come_nav.evaluation.protocols.quality import quality_windows, read_batch
from come_nav.evaluation.suites.inputs import SourceSettings, frames_of, open_input
from come_nav.evaluation.suites.quality_rows import images_of, jump_row
from come_nav.navigation.loading import load_configured_model
from come_nav.sim.sensors.chain import to_uint8
from come_nav.sim.sensors.settings import sensor_settings
from come_nav.viz.frames import compose_panels
from come_nav.viz.images import png_from_rgb

ROOT = Path(__file__).resolve().parents[2]
HORIZONS_S, SHOWN = (1.0, 2.0, 4.0, 8.0), (0, 2)  # s ahead, as in the tables; which of them are shown
WORLDS = range(20000, 20010)
MANY = ("sampler.steps=20", "sampler.corrector.steps=1", "sampler.corrector.scale=0.5")
MODELS = (("tiny", ()), ("small", ()), ("medium", ()), ("medium", MANY))
WINDOWS, RATE_HZ, CONTEXT_FRAMES = 60, 4.0, 4  # those of all shipped models


def views_of(source: SourceSettings, tilt_told: bool) -> dict[str, list[NDArray[np.uint8]]]:
    """Return column -> views (H, W, 3), one for each time that is shown, of the middle window."""
    steps = frames_of(HORIZONS_S, RATE_HZ)
    protocol = ProtocolSettings(CONTEXT_FRAMES, steps[-1], RATE_HZ)
    windows = quality_windows(open_input(source, RATE_HZ).recordings, protocol, steps, WINDOWS)
    columns: dict[str, list[NDArray[np.uint8]]] = {}
    for name, words in MODELS:
        config = load_config(None, [f"model={ROOT / 'models' / name}", *words])
        model = load_configured_model(config)
        batch = read_batch([windows[len(windows) // 2]], images_of(model))
        columns["last seen"] = [pixels(batch.last[0])] * len(SHOWN)
        columns["seen then"] = [pixels(batch.truth[0, number]) for number in SHOWN]
        imagined = jump_row(model, config, tilt_told).imagine(batch)[0]
        columns[name + ("*" if words else "")] = [pixels(imagined[number]) for number in SHOWN]
    return columns


def pixels(image: torch.Tensor) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) of one (3, H, W) in [-1, 1]."""
    return np.asarray(to_uint8(image[None])[0])


def main() -> None:
    """Imagine, and write the image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path, help="that may be shown; its camera's tilt is told")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "imagined.png")
    args = parser.parse_args()
    worlds = SourceSettings("quality", worlds=WORLDS, sensors=sensor_settings("realistic"))
    inputs = {"world": (worlds, False), args.recording.name: (SourceSettings("quality", (str(args.recording),)), True)}
    panels = {}
    for title, (source, tilt_told) in inputs.items():
        columns = views_of(source, tilt_told)
        for line, number in enumerate(SHOWN):
            for column, views in columns.items():
                panels[f"{title}, {HORIZONS_S[number]:g} s: {column}"] = views[line]
    with atomic_path(args.out) as temporary:
        temporary.write_bytes(png_from_rgb(compose_panels(panels, cell_px=176, columns=2 + len(MODELS))))


if __name__ == "__main__":
    main()
