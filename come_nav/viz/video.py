"""MP4 files that browsers play, written with OpenCV alone (no ffmpeg program needed)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.errors import ShapeError, StorageError
from come_nav.core.files import atomic_path
from come_nav.viz.images import Image, check_rgb

# OpenCV's wheels carry no H.264 encoder (its licence), VP9 plays in every current browser, and MPEG-4 part 2 is the
# last resort: players open it, browsers do not.
CODECS: tuple[tuple[str, str], ...] = (("avc1", "H.264"), ("vp09", "VP9"), ("mp4v", "MPEG-4 part 2"))
_BROWSER_CODECS = ("avc1", "vp09")


@dataclass(frozen=True)
class Mp4:
    """An encoded video.

    Attributes:
        data: the MP4 file's bytes.
        codec: four-character code that was used.
        frames: how many frames were written and read back.
        note: empty, or one line for people when browsers cannot play the codec.
    """

    data: bytes
    codec: str
    frames: int
    note: str = ""


def encode_mp4(frames: Iterable[Image], fps: float) -> Mp4:
    """Encode uint8 frames (each (H, W, 3) RGB, one size) with the best codec that this machine has.

    Odd sizes lose their last row or column, because video codecs store colour at half resolution. The file is read
    back and its frames counted before it is returned.

    Raises:
        ShapeError: for no frames, or frames of several sizes.
        StorageError: when no codec works.
    """
    check_range("fps", fps, 0.0, 240.0, open_low=True)
    prepared = _prepare(frames)
    for codec, _ in CODECS:
        with tempfile.TemporaryDirectory(prefix="come_nav_video_") as folder:
            path = Path(folder) / "video.mp4"
            if _encode(path, prepared, fps, codec) and count_frames(path) == len(prepared):
                return Mp4(path.read_bytes(), codec, len(prepared), _note(codec))
    tried = ", ".join(name for _, name in CODECS)
    raise StorageError(f"no video could be written: OpenCV here has none of {tried}; install opencv-python")


def write_mp4(path: Path | str, frames: Iterable[Image], fps: float) -> Mp4:
    """Encode ``frames`` (see :func:`encode_mp4`) and write the file atomically; return what was written."""
    video = encode_mp4(frames, fps)
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(video.data)
    return video


def read_frames(path: Path | str) -> NDArray[np.uint8]:
    """Return all frames (N, H, W, 3) RGB of a short video, (0, 0, 0, 3) when it cannot be opened."""
    frames = list(_frames(Path(path)))
    return np.stack(frames) if frames else np.zeros((0, 0, 0, 3), dtype=np.uint8)


def count_frames(path: Path) -> int:
    """Return the number of frames that can be decoded."""
    return sum(1 for _ in _frames(path))


def _frames(path: Path) -> Iterable[NDArray[np.uint8]]:
    import cv2

    capture = cv2.VideoCapture(str(path))
    try:
        while True:
            there, frame = capture.read()
            if not there:
                return
            yield np.ascontiguousarray(frame[..., ::-1])
    finally:
        capture.release()


def _prepare(frames: Iterable[Image]) -> list[Image]:
    prepared: list[Image] = []
    for index, frame in enumerate(frames):
        image = check_rgb(f"frames[{index}]", frame)
        even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        if prepared and even.shape != prepared[0].shape:
            raise ShapeError(f"frames[{index}] must have the size of the first frame, got {image.shape}")
        prepared.append(even)
    if not prepared or min(prepared[0].shape[:2]) < 2:
        raise ShapeError("a video needs at least one frame of at least 2x2 pixels")
    return prepared


def _encode(path: Path, frames: list[Image], fps: float, codec: str) -> bool:
    """Write ``frames``; return False when this OpenCV lacks the codec."""
    import cv2

    height, width = frames[0].shape[:2]
    with _quiet_stderr():
        fourcc: int = cv2.VideoWriter_fourcc(*codec)  # type: ignore[attr-defined]
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, float(fps), (width, height))
    if not writer.isOpened():
        return False
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path.is_file()


def _note(codec: str) -> str:
    return "" if codec in _BROWSER_CODECS else "browsers may not play this codec (MPEG-4 part 2); open it in a player"


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hide what the codec libraries write to file descriptor 2 while they are probed."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
