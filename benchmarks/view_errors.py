"""Where the errors of imagined views lie: in what the context shows or beside it, and how far from the image's middle.

    python benchmarks/view_errors.py models/small models/medium --recordings kitchen cabinet

Views are imagined with the camera's height, pitch and roll at the target. A pixel is known where the context, moved
there by its depth, shows it; PSNR is that of the mean squared error of all such pixels of all windows, and of all
others (tables of imagined views have the mean PSNR of images). What is known is told by the first model's depth, for
all of them. Beside each model: what its own context shows, with the holes filled smoothly. Brightness is the mean error
(imagined less true) of known pixels, as a share of the range, within a fifth of the image's side around the middle and
beyond half of it: vignetting that the model believes in and the camera has not, or the other way round, shows there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine_facts
from torch import Tensor
from tqdm import tqdm

from come_nav.config import load_config
from come_nav.core.files import atomic_write_text
from come_nav.core.settings import read_yaml
from come_nav.evaluation.metrics.statistics import Interval, bootstrap_ratio
from come_nav.evaluation.protocols.protocol import ProtocolSettings
from come_nav.evaluation.protocols.quality import Batch, quality_windows, read_batch
from come_nav.evaluation.suites.inputs import SourceSettings, frames_of, open_input
from come_nav.evaluation.suites.quality_rows import images_of, target_context
from come_nav.evaluation.suites.replay import Replay, open_loop
from come_nav.navigation.loading import load_configured_model
from come_nav.navigation.stack import NavStack
from come_nav.world_model.reprojection import context_view

HORIZONS_S = (1.0, 2.0, 4.0, 8.0)
SEED, BATCH = 0, 16
MIDDLE, EDGE = 0.2, 0.5  # of the image's side, from its middle


class Views:
    """One model's views of the windows of a recording, and what is true."""

    def __init__(self, model_folder: Path, recording: Path, count: int) -> None:
        config = load_config(None, {"model": str(model_folder), "seed": SEED})
        self.model = load_configured_model(config)
        self.replay = Replay(NavStack(self.model, open_loop(config)))
        steps = frames_of(HORIZONS_S, self.model.rate_hz)
        protocol = ProtocolSettings(self.model.context_frames, steps[-1], self.model.rate_hz, seed=SEED)
        source = open_input(SourceSettings("quality", (str(recording),)), self.model.rate_hz, SEED)
        self.windows = quality_windows(source.recordings, protocol, steps, count)

    def errors(self) -> dict[str, Tensor]:
        """Return errors (N, K, 3, S, S) of both rows as shares of the range, and ``known`` (N, K, 1, S, S)."""
        images, found = images_of(self.model), []
        for start in tqdm(range(0, len(self.windows), BATCH), desc="imagine", unit="batch", disable=None):
            found.append(self._errors(read_batch(self.windows[start : start + BATCH], images)))
        return {name: torch.cat([part[name] for part in found]) for name in found[0]}

    @torch.no_grad()
    def _errors(self, batch: Batch) -> dict[str, Tensor]:
        context, actions = target_context(self.replay, batch, tilt_told=True), batch.actions_xyyaw
        latents = self.model.predict(context, actions, batch.rel_frames, batch.generator())
        view = context_view(context, actions, batch.truth.shape[-1], self.model.reprojection)
        known = view.known.cpu().view(*batch.truth.shape[:2], 1, *batch.truth.shape[-2:])
        rows = {"imagined": self.model.decode(latents), "filled": view.filled}
        return {
            "known": known,
            **{name: (own.cpu().view_as(batch.truth) - batch.truth) / 2 for name, own in rows.items()},
        }


def figures(errors: Tensor, known: Tensor) -> list[dict[str, Any]]:
    """Return for each horizon the PSNR of known and other pixels, and the brightness in the middle and at the edge."""
    side = errors.shape[-1]
    along = (torch.arange(side) + 0.5) / side - 0.5
    from_middle = torch.hypot(along[:, None], along[None])
    rings = {"brightness_middle": from_middle < MIDDLE, "brightness_edge": from_middle > EDGE}
    found = []
    for own, shown in zip(errors.unbind(1), known.expand(-1, -1, 3, -1, -1).unbind(1), strict=True):
        horizon: dict[str, Any] = {"known_share": float(shown.float().mean())}
        for name, mask in (("known_psnr_db", shown), ("other_psnr_db", ~shown)):
            horizon[name] = asdict(of_pixels(own.square(), mask, decibels))
        for name, ring in rings.items():
            horizon[name] = asdict(of_pixels(own, shown & ring))
        found.append(horizon)
    return found


def of_pixels(values: Tensor, mask: Tensor, scale: Callable[[float], float] = float) -> Interval:
    """Return the mean of the values (N, 3, S, S) under a mask over all windows, with the interval over windows."""
    sums, counts = (own.sum((1, 2, 3)).double().numpy() for own in (values * mask, mask))
    ratio = bootstrap_ratio(sums, counts, SEED)
    value, low, high = (scale(own) for own in (ratio.value, ratio.low, ratio.high))
    return replace(ratio, value=value, low=min(low, high), high=max(low, high))


def decibels(mean_square: float) -> float:
    return float(-10.0 * np.log10(mean_square))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="folders")
    parser.add_argument("--recordings", type=Path, nargs="+", required=True, help="with depth")
    parser.add_argument("--windows", type=int, default=60, help="of each")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/view_errors.json"))
    args = parser.parse_args()
    document: dict[str, Any] = {
        "what": __doc__.splitlines()[0],
        "machine": machine_facts(),
        "settings": {"windows": args.windows, "horizons_s": HORIZONS_S},
        "models": {str(model): read_yaml(model / "config.yaml")["weights_sha256"] for model in args.models},
        "recordings": {},
    }
    for recording in args.recordings:
        rows, known = document["recordings"].setdefault(recording.name, {}), None
        for model in args.models:
            views = Views(model, recording, args.windows)
            errors = views.errors()
            own_known = errors.pop("known")
            known = own_known if known is None else known
            rows[str(model)] = {"windows": len(views.windows)} | {
                name: figures(own, known) for name, own in errors.items()
            }
            print(f"{recording.name}, {model}: {json.dumps(rows[str(model)]['imagined'])}", flush=True)
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
