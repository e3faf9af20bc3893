"""Images of a video topic in any order, through PyAV: a decoder goes on from the last one, or begins before it."""

from __future__ import annotations

import importlib
import importlib.util
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError, MissingDependencyError
from come_nav.data.bags.bag import Bag, BagMessage
from come_nav.data.video.packets import VideoPacket, begins_anew, packet_of, parameter_sets

KEPT = 16  # pictures; decoders hold a few back where they were coded in another order

Rgb = NDArray[np.uint8]


@dataclass
class VideoIndex:
    """Where the pieces of one topic are.

    Attributes:
        topic: name.
        codec: FFmpeg's name of it.
        frame_id: optical frame of the camera.
        stamps: (header, log) of every piece, in the order of recording, from the first that a decoder may begin at.
        starts: indices of those that a decoder may begin at.
        parameters: units that the decoder needs before the first picture.
        before: pieces left out before the first start.
    """

    topic: str
    codec: str = ""
    frame_id: str = ""
    stamps: list[tuple[int, int]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    parameters: bytes = b""
    before: int = 0

    def add(self, message: BagMessage, packet: VideoPacket) -> bool:
        """Take the next piece; return False where it comes before any that a decoder may begin at.

        Raises:
            DataError: the codec changed.
        """
        if begins_anew(packet):
            self.starts.append(len(self.stamps))
            self.parameters = self.parameters or parameter_sets(packet)
        if not self.starts:
            self.before += 1
            return False
        self.codec, self.frame_id = self.codec or packet.codec, self.frame_id or packet.frame_id
        if packet.codec != self.codec:
            raise DataError(f"{self.topic}: video changes from {self.codec} to {packet.codec}")
        self.stamps.append((message.header_ns, message.log_ns))
        return True


class VideoStream:
    """Decodes pictures of one topic."""

    def __init__(self, bag: Bag, index: VideoIndex) -> None:
        """Read from ``bag``, which stays open; :func:`require_av` before."""
        self._bag, self._index = bag, index
        self._number = {stamps: number for number, stamps in enumerate(index.stamps)}
        self._restart()

    def image(self, header_ns: int, log_ns: int) -> Rgb:
        """Return the picture (H, W, 3) of the piece with these stamps.

        Raises:
            DataError: the video is damaged there.
        """
        number = self._number[header_ns, log_ns]
        start = bisect_right(self._index.starts, number) - 1
        for begin in self._index.starts[max(0, start - 1) : start + 1][::-1]:  # pictures may look back over a start
            if number not in self._pictures:
                self._decode_until(number, begin)
        picture = self._pictures.get(number)
        if picture is None or picture.is_corrupt:
            raise DataError(f"{self._index.topic}: the video is damaged there, or pieces before it are missing")
        return np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        return {"_bag": self._bag, "_index": self._index, "_number": self._number}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._restart()

    def _restart(self) -> None:
        self._decoder: Any = None
        self._pieces: Iterator[BagMessage] = iter(())
        self._next = 0  # number of the next piece
        self._pictures: OrderedDict[int, Any] = OrderedDict()

    def _decode_until(self, number: int, start: int) -> None:
        """Decode what lies between a start and a piece, but for what was decoded already."""
        if self._decoder is None or not start <= self._next <= number:
            self._begin(start)
        while number not in self._pictures:
            piece = self._piece()
            if piece is None or self._next - number > KEPT:
                self._take(None)  # what the decoder still holds back
                self._decoder = None
                return
            self._take(piece)

    def _begin(self, start: int) -> None:
        """Make a decoder and go to the piece ``start``."""
        self._restart()
        self._decoder = importlib.import_module("av").CodecContext.create(self._index.codec, "r")
        self._decoder.thread_count = 1  # more hold pictures back
        self._next = start
        first_ns = self._index.stamps[start][1]
        self._pieces = self._bag.messages([self._index.topic], first_ns)
        for stamps in reversed(self._index.stamps[:start]):  # logged at the same time, before it
            if stamps[1] != first_ns:
                break
            next(self._pieces)

    def _piece(self) -> Any | None:
        """Return the next piece for the decoder, None at the end."""
        if self._next >= len(self._index.stamps):
            return None
        message = next(self._pieces, None)
        while message is not None and (message.header_ns, message.log_ns) != self._index.stamps[self._next]:
            message = next(self._pieces, None)  # one that was left out of the index
        packet = None if message is None else packet_of(message.decode(), message.type)
        if packet is None:
            return None
        data = packet.data
        if self._next in self._index.starts and not parameter_sets(packet):
            data = self._index.parameters + data
        piece = importlib.import_module("av").Packet(data)
        piece.pts = piece.dts = self._next
        self._next += 1
        return piece

    def _take(self, piece: Any | None) -> None:
        """Decode a piece, or what is left; damaged ones leave a picture out."""
        av = importlib.import_module("av")
        try:
            pictures = self._decoder.decode(piece)
        except av.error.FFmpegError:
            return
        for picture in pictures:
            self._pictures[picture.pts] = picture
            if len(self._pictures) > KEPT:
                self._pictures.popitem(last=False)


def has_av() -> bool:
    """Tell whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def require_av(purpose: str) -> None:
    """Raise MissingDependencyError where PyAV is not installed, naming the extra and what can be done without it."""
    if not has_av():
        raise MissingDependencyError(
            "av", "video", purpose, otherwise="or record images:  ros2 run image_transport republish ffmpeg compressed"
        )
