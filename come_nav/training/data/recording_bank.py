"""Latents of bags and NWM folders, so that a model learns one's own robot and rooms."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from come_nav.core.errors import DataError
from come_nav.core.geometry import se2
from come_nav.core.protocols import Recording
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.training.data.bank import LatentBank
from come_nav.training.data.windows import Encode
from come_nav.world_model.images import bytes_from_images, camera_of_frame, crop_window

Prepare = Callable[[list[NDArray[np.uint8]]], torch.Tensor]  # RGB images -> (T, 3, S, S) in [-1, 1]
FRAMES_PER_PART = 32

_log = logging.getLogger(__name__)


@dataclass
class RecordingEncoder:
    """Encodes the part ``use`` (fractions) of a recording, 32 frames at a time.

    A frame that cannot be decoded is skipped and counted; its row stays, black, and belongs to no stretch, so that no
    window holds it or reaches over it. The same goes for gaps that the recording itself tells of (``segments``).
    A recording shows only what was driven: it has no branches.

    Attributes:
        recording: bag, NWM folder or simulated drive.
        use: from where to where, as fractions of its frames.
        prepare, encode: images to the model's images, and those to latents.
        rate_hz: of the model, whose frames times count in; a recording may be slower.
        aspect: of the crop that ``prepare`` makes.
        keep_images, keep_depth: what the bank keeps beside latents.
        progress: show a bar.
        damaged: frames that were skipped; filled by :meth:`parts`.
    """

    recording: Recording
    use: tuple[float, float]
    prepare: Prepare
    encode: Encode
    rate_hz: float
    aspect: float = 1.0
    keep_images: bool = False
    keep_depth: bool = False
    progress: bool = True
    damaged: list[int] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.start, self.stop = (round(fraction * len(self.recording)) for fraction in self.use)
        if len(self) < 2:
            raise DataError(
                f"{self.recording.name}: only {len(self)} frames in the part {self.use} of it; at least 2 are needed"
            )
        poses = np.asarray(self.recording.poses_xyyaw, np.float64)
        self._poses = se2.relative(poses[:1], poses)  # float32 has no centimetres far from a map's origin
        stamps = np.asarray(self.recording.stamps_s, np.float64)
        self._times = (stamps - stamps[0]) * self.rate_hz

    def __len__(self) -> int:
        return self.stop - self.start

    def parts(self) -> Iterator[LatentBank]:
        """Yield the frames in order, a few at a time; ``first`` and ``last`` come from :meth:`segments`.

        Raises:
            DataError: no frame at all could be decoded.
        """
        self.damaged.clear()
        first_reason = ""
        steps = range(self.start, self.stop, FRAMES_PER_PART)
        for low in tqdm(steps, desc=f"encode {self.recording.name}", unit="batch", disable=not self.progress):
            frames: list[Frame | None] = []
            for index in range(low, min(low + FRAMES_PER_PART, self.stop)):
                try:
                    frames.append(self.recording.frame(index))
                except DataError as error:
                    frames.append(None)
                    self.damaged.append(index - self.start)
                    first_reason = first_reason or str(error)
            yield self._part(frames, low)
        if len(self.damaged) == len(self):
            raise DataError(f"{self.recording.name}: none of {len(self)} frames can be decoded; first: {first_reason}")
        if self.damaged:
            _log.warning(
                "%s: skipped %d of %d frames that cannot be decoded; first: %s",
                self.recording.name,
                len(self.damaged),
                len(self),
                first_reason,
            )

    def segments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return first and last frame (F,) of the stretch of each frame, after :meth:`parts` has run."""
        return stretch_ends(getattr(self.recording, "segments", ()), self.start, len(self), self.damaged)

    def _part(self, frames: list[Frame | None], low: int) -> LatentBank:
        good = [frame for frame in frames if frame is not None]
        rows = torch.tensor([index for index, frame in enumerate(frames) if frame is not None], dtype=torch.int64)
        black = np.zeros((8, 8, 3), np.uint8)
        prepared = self.prepare([frame.rgb for frame in good] or [black])
        latents = self.encode(prepared).half().cpu()
        count, size = len(frames), prepared.shape[-1]

        def spread(values: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
            whole = torch.full((count, *values.shape[1:]), fill, dtype=values.dtype)
            whole[rows] = values[: len(good)]
            return whole

        depths = measured = None
        if self.keep_depth:
            unknown = torch.full((1, size, size), torch.nan, dtype=torch.float16)
            known = [model_depth(frame, size, self.aspect) for frame in good]
            depths = spread(torch.stack(known) if known else unknown, torch.nan)
            measured = torch.isfinite(depths).to(torch.uint8)
        extrinsics = torch.stack([model_extrinsics(frame) for frame in good] or [model_extrinsics(None)])
        latents = spread(latents)
        pose = torch.as_tensor(self._poses[low : low + count], dtype=torch.float32)
        return LatentBank(
            latents=latents,
            poses_xyyaw=pose,
            first=torch.zeros(count, dtype=torch.int64),
            last=torch.full((count,), count - 1),
            branch_latents=latents[:, None][:, :0],
            branch_actions_xyyaw=torch.zeros(count, 0, 3),
            branch_rel_frames=torch.zeros(count, 0, dtype=torch.int64),
            images=spread(bytes_from_images(prepared)) if self.keep_images else None,
            depth_m=depths,
            cameras=model_camera(self.recording.intrinsics, self.aspect),
            camera_index=torch.zeros(count, dtype=torch.int64),
            T_base_camera=spread(extrinsics, torch.nan),
            measured=measured,
            times=torch.as_tensor(self._times[low : low + count], dtype=torch.float32),
        )


def stretch_ends(
    segments: Iterable[tuple[int, int]], start: int, count: int, damaged: Iterable[int] = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return first and last frame (F,) of the stretch of each of ``count`` frames from ``start`` on.

    Stretches end where the recording's ``segments`` [low, high) do, and at frames that are ``damaged`` (from 0 on).
    """
    cuts = {0, count}
    for low, high in segments:
        cuts |= {min(max(edge - start, 0), count) for edge in (low, high)}
    for index in damaged:
        cuts |= {index, index + 1}
    edges = torch.tensor(sorted(cuts))
    lengths = edges.diff()
    return edges[:-1].repeat_interleave(lengths), (edges[1:] - 1).repeat_interleave(lengths)


def recording_bank(
    recording: Recording,
    use: tuple[float, float],
    prepare: Prepare,
    encode: Encode,
    rate_hz: float,
    *,
    aspect: float = 1.0,
    keep_images: bool = False,
    keep_depth: bool = False,
) -> LatentBank:
    """Return a recording as one bank in memory; the arguments are :class:`RecordingEncoder`'s."""
    encoder = RecordingEncoder(recording, use, prepare, encode, rate_hz, aspect, keep_images, keep_depth)
    bank = LatentBank.concatenate(list(encoder.parts()))
    bank.first, bank.last = encoder.segments()
    return bank


def model_camera(intrinsics: CameraIntrinsics | None, aspect: float) -> torch.Tensor:
    """Return fx, fy, cx, cy (1, 4) of the model's crop as fractions of its width and height; NaN where unknown."""
    camera = camera_of_frame(intrinsics, aspect)
    return torch.full((1, 4), torch.nan) if camera is None else camera


def model_extrinsics(frame: Frame | None) -> torch.Tensor:
    """Return T_base_camera (4, 4) of a frame, NaN where the recording does not tell."""
    if frame is None or frame.T_base_camera is None:
        return torch.full((4, 4), torch.nan)
    return torch.from_numpy(np.asarray(frame.T_base_camera, np.float32))


def model_depth(frame: Frame, image_size: int, aspect: float) -> torch.Tensor:
    """Return z-depth (S, S) float16 of the model's crop, by the nearest pixel; NaN where missing or 0."""
    if frame.depth_m is None:
        return torch.full((image_size, image_size), torch.nan, dtype=torch.float16)
    height, width = frame.depth_m.shape
    top, left, rows, columns = crop_window(height, width, aspect)
    row = top + ((np.arange(image_size) + 0.5) * rows / image_size).astype(int)
    column = left + ((np.arange(image_size) + 0.5) * columns / image_size).astype(int)
    depth = torch.from_numpy(frame.depth_m[np.ix_(row, column)].astype(np.float32))
    return torch.where(depth > 0, depth, torch.nan).half()
