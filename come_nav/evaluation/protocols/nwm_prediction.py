"""NWM's two prediction protocols: one jump to 1, 2, 4, 8 and 16 s, and a rollout that is looked at at those times.

Images are written as PNG first and compared afterwards, as the released evaluation does; a killed run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError, DataError
from come_nav.core.files import atomic_path
from come_nav.core.geometry import se2
from come_nav.data.nwm.actions import (
    in_metres,
    official_step_actions,
    path_of_actions,
    waypoints,
)
from come_nav.data.nwm.dataset import CONTEXT_FRAMES, RATE_HZ, NwmDataset
from come_nav.evaluation.metrics.image_metrics import psnr, ssim
from come_nav.evaluation.metrics.perceptual import Distance, FrechetDistance
from come_nav.evaluation.metrics.statistics import Interval, bootstrap_mean, enough_clusters
from come_nav.evaluation.protocols.protocol import ProtocolSettings, Window, make_window
from come_nav.viz.figures import rgb_from_unit
from come_nav.viz.images import png_from_rgb

SECONDS = (1, 2, 4, 8, 16)
TRUTH = "truth"
PSNR_CEILING_DB = 60.0
# window, seconds -> images (K, 3, H, W) in [-1, 1] at the model's size
ImageFunction = Callable[[Window, Sequence[int]], torch.Tensor]


@dataclass(frozen=True)
class PredictionScores:
    """Distances of the images of one row at one time.

    Attributes:
        row: who made them.
        second: time after the newest context frame.
        metrics: name -> mean with interval.
        fid: Frechet distance of the two sets; None where it was not asked for.
        n: images.
    """

    row: str
    second: int
    metrics: dict[str, Interval]
    fid: float | None
    n: int


def prediction_windows(
    dataset: NwmDataset,
    kind: str,
    seconds: Sequence[int],
    seed: int,
    count: int | None = None,
    context_frames: int = CONTEXT_FRAMES,
) -> list[Window]:
    """Return the windows of ``time.pkl`` or ``rollout.pkl``, the first ``count`` of them."""
    if not seconds or min(seconds) < 1:
        raise ConfigError(f"--seconds must be whole seconds >= 1, got {list(seconds)}")
    frames = frames_of(max(seconds))
    config = ProtocolSettings(context_frames=context_frames, horizon_steps=frames, rate_hz=RATE_HZ, seed=seed)
    windows = []
    for entry in dataset.index(kind)[:count]:
        recording = dataset.window(entry, frames, kind, context_frames)
        windows.append(make_window(entry.trajectory, recording, entry.start, entry.start + frames, config))
    return windows


def frames_of(second: int) -> int:
    """Return the protocol frames in a time."""
    return round(second * RATE_HZ)


def jump_targets(window: Window, seconds: Sequence[int]) -> NDArray[np.float64]:
    """Return the true poses (K, 3) at ``seconds`` in the start frame, metres: what one jump is told."""
    poses = np.asarray(window.recording.poses_xyyaw, float)
    later = [window.start + frames_of(second) for second in seconds]
    return se2.relative(poses[window.start][None], poses[later])


def rollout_path(
    window: Window, frames_ahead: int, stride: int, spacing_m: float, rollout_offset: bool
) -> NDArray[np.float64]:
    """Return the poses (T, 3) that a rollout with ``stride`` frames per step is told, in the start frame, metres.

    With ``rollout_offset`` every step but the first is told 1.25 spacings too many, as in the released evaluation.
    """
    local = waypoints(np.asarray(window.recording.poses_xyyaw, float), window.start, frames_ahead, spacing_m)
    if not rollout_offset:
        return in_metres(local, spacing_m)
    reached = path_of_actions(in_metres(official_step_actions(local, stride), spacing_m))
    return np.repeat(reached, stride, axis=0)


def write_images(
    folder: Path,
    windows: Sequence[Window],
    seconds: Sequence[int],
    rows: Mapping[str, ImageFunction],
    on_window: Callable[[], Any] = lambda: None,
) -> None:
    """Write ``folder/<row>/<trajectory>_<frame>/<second>.png`` for every row and window that is not there yet."""
    for window in windows:
        for row, make in rows.items():
            paths = [image_path(folder, row, window, second) for second in seconds]
            if not all(path.is_file() for path in paths):
                for path, image in zip(paths, make(window, seconds), strict=True):
                    with atomic_path(path) as temporary:
                        temporary.write_bytes(png_from_rgb(rgb_from_unit(image.float().cpu())))
        on_window()


def image_path(folder: Path, row: str, window: Window, second: int) -> Path:
    """Return where the image of a row at a time of a window lies."""
    return folder / row.replace(" ", "_") / f"{window.recording_id}_{window.start}" / f"{second}.png"


def score_images(
    folder: Path,
    windows: Sequence[Window],
    seconds: Sequence[int],
    rows: Sequence[str],
    distances: Mapping[str, Distance],
    frechet: Callable[[], FrechetDistance] | None,
    seed: int,
) -> list[PredictionScores]:
    """Compare every row's images with the true ones; whole trajectories are resampled if there are enough."""
    scores, clusters = [], enough_clusters([window.recording_id for window in windows])
    for row in rows:
        for second in seconds:
            found: dict[str, list[float]] = {name: [] for name in distances}
            sets = None if frechet is None else frechet()
            for window in windows:
                made = _read(image_path(folder, row, window, second))
                real = _read(image_path(folder, TRUTH, window, second))
                for name, distance in distances.items():
                    found[name].append(float(distance(made, real)[0]))
                if sets is not None:
                    sets.add(made, real=False)
                    sets.add(real, real=True)
            intervals = {name: bootstrap_mean(np.array(values), seed, clusters) for name, values in found.items()}
            fid = None if sets is None else sets.value()
            scores.append(PredictionScores(row, second, intervals, fid, len(windows)))
    return scores


def capped_psnr(images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Return PSNR in dB (B,), capped, for equal images have an infinite one."""
    return psnr(images, references).clamp(max=PSNR_CEILING_DB)


PLAIN_DISTANCES: dict[str, Distance] = {"psnr": capped_psnr, "ssim": ssim}


def _read(path: Path) -> torch.Tensor:
    import cv2

    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise DataError(f"{path}: the image is missing or damaged; delete it and run the same command again")
    rgb = np.ascontiguousarray(bgr[..., ::-1].transpose(2, 0, 1))
    return (torch.from_numpy(rgb).float() / 127.5 - 1.0)[None]
