"""How well future views are imagined: windows with goals at several horizons, rows evaluated in batches as images."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.checks import check_range, check_shape
from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.protocols import Recording
from come_nav.core.types import Context, Frame
from come_nav.evaluation.metrics.image_metrics import gradient_energy, psnr, ssim
from come_nav.evaluation.metrics.perceptual import Distance
from come_nav.evaluation.protocols.depth_warp import can_warp, warp_context
from come_nav.evaluation.protocols.protocol import (
    ProtocolSettings,
    Window,
    choose_windows,
    extrinsics_over_footprint,
)
from come_nav.evaluation.protocols.results import Record, ResultStore
from come_nav.evaluation.protocols.rows import PSNR_CEILING_DB

COPY_LAST = "copy the last frame"
AUTOENCODER = "autoencoder of the truth"
DEPTH_WARP = "nearest context frame warped by depth"
JUMP = "world model, jump"
ROLLOUT = "world model, rollout"
TILTED_JUMP = "world model, jump, camera's tilt told"

WINDOWS_PER_BATCH = 16
KEEPS_TILT = "its camera keeps its tilt, or does not tell its place on the base"
LEAST_TILT_DEG = 0.5  # a camera on a mount of its own leans less from frame to frame
TRUTH = "(truth)"  # row of what the camera saw itself

# camera frames -> (N, 3, H, W) in [-1, 1], at the size at which images are compared
ImagesFunction = Callable[[Sequence[Frame]], torch.Tensor]
# images (N, 3, H, W) in [-1, 1] -> features (N, D)
FeaturesFunction = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class QualityWindow:
    """One start and the frames to imagine from it.

    Attributes:
        window: context and drive up to the last target.
        steps: (K) protocol frames from the start to each target, increasing.
        targets: (K) indices of the frames to imagine, the nearest in time.
        rel_frames: (K,) their own times after the start, in frames of the protocol rate.
        poses_xyyaw: (K, 3) where the robot truly was at each, in the start frame.
    """

    window: Window
    steps: tuple[int, ...]
    targets: tuple[int, ...]
    rel_frames: NDArray[np.float64] = field(repr=False)
    poses_xyyaw: NDArray[np.float64] = field(repr=False)

    @property
    def times_s(self) -> NDArray[np.float64]:
        """Times (K,) of the targets after the start."""
        stamps_s = np.asarray(self.window.recording.stamps_s, float)
        return np.asarray(stamps_s[list(self.targets)] - stamps_s[self.window.start])

    @property
    def path_xyyaw(self) -> NDArray[np.float64]:
        """True poses (T, 3) one protocol frame apart, through the targets' own poses."""
        path = self.window.driven_xyyaw.copy()
        path[np.array(self.steps) - 1] = self.poses_xyyaw
        return path


@dataclass(frozen=True)
class Batch:
    """Windows with their images, read once for all rows.

    Attributes:
        windows: B of them.
        context: frames of each, oldest first.
        images: brings frames to the size of all images here.
        last: (B, 3, H, W) newest context frames.
        truth: (B, K, 3, H, W) what the camera saw at the targets.
    """

    windows: Sequence[QualityWindow]
    context: Sequence[Sequence[Frame]]
    images: ImagesFunction
    last: torch.Tensor
    truth: torch.Tensor

    @property
    def actions_xyyaw(self) -> torch.Tensor:
        """Where each target lies (B K, 3) in its start frame, as the robot believes; float32."""
        return torch.from_numpy(np.concatenate([item.poses_xyyaw for item in self.windows])).float()

    @property
    def rel_frames(self) -> torch.Tensor:
        """When each target comes (B K,), in frames of the model after its start; float32."""
        return torch.from_numpy(np.concatenate([item.rel_frames for item in self.windows])).float()

    def generator(self, device: str | torch.device = "cpu") -> torch.Generator:
        """Return a generator whose seed depends on the evaluation's seed and these windows alone."""
        names = [f"{item.window.recording_id}/{item.window.start}" for item in self.windows]
        words = "/".join([str(self.windows[0].window.seed), *names])
        number = int.from_bytes(hashlib.sha256(words.encode()).digest()[:7], "big")
        return torch.Generator(device=device).manual_seed(number)


def target_extrinsics(windows: Sequence[QualityWindow]) -> torch.Tensor:
    """Return how the camera was mounted over the planar pose at all targets (B K, 4, 4); DataError where unknown."""
    placed = []
    for item in windows:
        extrinsics = extrinsics_over_footprint(item.window.recording, item.targets)
        if extrinsics is None:
            raise DataError(f"{item.window.recording_id}: does not tell where the camera is on the base")
        placed.append(extrinsics)
    return torch.from_numpy(np.concatenate(placed)).float()


def tilted_as_targets(context: Context, windows: Sequence[QualityWindow]) -> Context:
    """Return the contexts of all targets (B K rows), for a camera that is mounted as it was at each of them."""
    return replace(context, T_base_camera=target_extrinsics(windows).to(context.latents.device))


# batch -> (B, K, 3, H, W) in [-1, 1], on the CPU
ImagineFunction = Callable[[Batch], torch.Tensor]


@dataclass(frozen=True)
class QualityRow:
    """One line of the table: a name and how it imagines a batch."""

    name: str
    imagine: ImagineFunction


def quality_windows(
    recordings: Sequence[tuple[str, Recording]], config: ProtocolSettings, steps: Sequence[int], count: int | None
) -> list[QualityWindow]:
    """Choose ``count`` windows, as even over the recordings as the planning protocol does.

    Args:
        recordings: (unique name, recording).
        config: its ``horizon_steps`` must be the last of ``steps``.
        steps: protocol frames from the start to each target, increasing.
        count: of windows; None takes all.
    """
    check_steps(steps)
    if config.horizon_steps != steps[-1]:
        raise ConfigError(f"the protocol's horizon_steps must be {steps[-1]}, got {config.horizon_steps}")
    return [_with_targets(window, config, steps) for window in choose_windows(recordings, config, count)]


def check_steps(steps: Sequence[int]) -> None:
    """Raise ConfigError unless ``steps`` are whole frames >= 1 that increase."""
    for step in steps:
        check_range("horizon steps", step, 1)
    if not steps or any(later <= earlier for earlier, later in itertools.pairwise(steps)):
        raise ConfigError(f"horizons must increase and be at least one, got {', '.join(map(str, steps)) or 'none'}")


def copy_last_row() -> QualityRow:
    """Return the trivial row: nothing moves."""
    return QualityRow(COPY_LAST, lambda batch: batch.last[:, None].expand_as(batch.truth))


def truth_row() -> QualityRow:
    """Return the row of what the camera saw: no competitor, but what sets of images are compared with."""
    return QualityRow(TRUTH, lambda batch: batch.truth)


def depth_warp_row() -> QualityRow:
    """Return the geometric reference, which is told the true depth and the true poses."""

    def imagine(batch: Batch) -> torch.Tensor:
        views = []
        for item, frames in zip(batch.windows, batch.context, strict=True):
            poses = np.asarray(item.window.recording.T_odom_base, float)
            views += warp_context(frames, poses[list(item.window.context)], poses[list(item.targets)])
        like = batch.context[0][-1]
        frames = [Frame(like.stamp_s, view) for view in views]
        return batch.images(frames).view_as(batch.truth)

    return QualityRow(DEPTH_WARP, imagine)


def has_depth(recordings: Sequence[tuple[str, Recording]]) -> bool:
    """Return whether every recording begins with a frame that can be warped by depth."""
    return all(can_warp(recording.frame(0)) for _, recording in recordings)


def camera_tilts(recordings: Sequence[tuple[str, Recording]]) -> bool:
    """Return whether cameras lean this way and that, by more than :data:`LEAST_TILT_DEG` in each recording.

    So does one that is held in a hand or carried by legs. Planar poses do not tell it; poses in space do, where the
    camera's place on the base is known.
    """
    return all(
        recording.T_base_camera is not None and se3.largest_tilt_deg(np.asarray(recording.T_odom_base)) > LEAST_TILT_DEG
        for _, recording in recordings
    )


def read_batch(windows: Sequence[QualityWindow], images: ImagesFunction) -> Batch:
    """Read the frames of some windows."""
    context = [item.window.context_frames() for item in windows]
    targets = [item.window.recording.frame(index) for item in windows for index in item.targets]
    truth = images(targets)
    last = images([frames[-1] for frames in context])
    return Batch(windows, context, images, last, truth.view(len(windows), -1, *truth.shape[1:]))


def evaluate_quality(
    windows: Sequence[QualityWindow],
    rows: Sequence[QualityRow],
    images: ImagesFunction,
    store: ResultStore,
    on_record: Callable[[Record], None] = lambda record: None,
    batch_size: int = WINDOWS_PER_BATCH,
    distance: Distance | None = None,
    features: FeaturesFunction | None = None,
) -> None:
    """Evaluate every row on every window that ``store`` does not have yet, ``batch_size`` windows at a time.

    A batch with any record missing is imagined as a whole, so that a resumed run draws the same noise.
    ``on_record`` is called with every record, those found in the store included, for a progress bar. ``distance`` is
    measured too where it is given (column "lpips"), and ``features`` of images are kept.
    """
    for part in _parts(windows, batch_size):
        missing = [row for row in rows if any(store.get(item.window, row.name) is None for item in part)]
        batch = read_batch(part, images) if missing else None
        for row in rows:
            if batch is not None and row in missing:
                for item, record in zip(part, evaluate_batch(row, batch, distance, features), strict=True):
                    if store.get(item.window, row.name) is None:
                        store.add(record)
            for item in part:
                found = store.get(item.window, row.name)
                assert found is not None
                on_record(found)


def evaluate_batch(
    row: QualityRow, batch: Batch, distance: Distance | None = None, features: FeaturesFunction | None = None
) -> list[Record]:
    """Return one record per window: PSNR, SSIM, gradient energies and perhaps a distance at each target, and features.

    Sets of features are compared: those of a row's images with those of :func:`truth_row`.
    """
    started_s = time.perf_counter()
    images = row.imagine(batch)
    seconds = (time.perf_counter() - started_s) / len(batch.windows)
    check_shape(f"images of '{row.name}'", images, " ".join(map(str, batch.truth.shape)))
    columns = measure(images.flatten(0, 1), batch.truth.flatten(0, 1))
    if distance is not None:
        columns["lpips"] = distance(images.flatten(0, 1).clamp(-1.0, 1.0), batch.truth.flatten(0, 1)).cpu()
    if features is not None:
        columns["features"] = features(images.flatten(0, 1).float().clamp(-1.0, 1.0)).cpu()
    count = batch.truth.shape[1]
    records = []
    for index, item in enumerate(batch.windows):
        part = slice(index * count, (index + 1) * count)
        records.append(
            {
                "recording": item.window.recording_id,
                "start": item.window.start,
                "row": row.name,
                "targets": list(item.targets),
                **{name: rounded(column[part]) for name, column in columns.items()},
                "seconds": seconds,
            }
        )
    return records


def rounded(values: torch.Tensor) -> list[Any]:
    """Return values (N,) as they are, and features (N, D) to six digits: they fill the files of results."""
    if values.dim() == 1:
        return [float(value) for value in values]
    return [[float(f"{value:.6g}") for value in row] for row in values.tolist()]


def measure(images: torch.Tensor, truth: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return metric -> (N,) of images (N, 3, H, W) against the truth; infinite PSNR becomes the ceiling."""
    images, truth = images.float().clamp(-1.0, 1.0), truth.float()
    return {
        "psnr_db": psnr(images, truth).clamp_max(PSNR_CEILING_DB),
        "ssim": ssim(images, truth),
        "energy": gradient_energy(images),
        "truth_energy": gradient_energy(truth),
    }


def _parts(windows: Sequence[QualityWindow], size: int) -> Iterator[Sequence[QualityWindow]]:
    for start in range(0, len(windows), size):
        yield windows[start : start + size]


def _with_targets(window: Window, config: ProtocolSettings, steps: Sequence[int]) -> QualityWindow:
    stamps_s = np.asarray(window.recording.stamps_s, float)
    poses = np.asarray(window.recording.poses_xyyaw, float)
    ahead_s = stamps_s[window.start : window.goal + 1] - stamps_s[window.start]
    targets = [window.start + int(np.argmin(np.abs(ahead_s - step / config.rate_hz))) for step in steps]
    targets[-1] = window.goal
    return QualityWindow(
        window=window,
        steps=tuple(int(step) for step in steps),
        targets=tuple(targets),
        rel_frames=(stamps_s[targets] - stamps_s[window.start]) * config.rate_hz,
        poses_xyyaw=se2.relative(poses[window.start][None], poses[targets]),
    )
