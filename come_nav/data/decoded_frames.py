"""What recordings share whose frames are decoded when asked for: the last few are kept, and errors name the frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError, ShapeError
from come_nav.core.types import Frame
from come_nav.data.timing.stamps import Gap

FRAME_CACHE = 8
SelfT = TypeVar("SelfT", bound="DecodedFrames")


class DecodedFrames(ABC):
    """Frames at ``stamps_s``, the last few of them kept. Close it, or use it as a context manager.

    Attributes:
        name: of the recording, for messages.
        stamps_s: (N,) times of the frames.
        gaps: holes between them.
    """

    name: str
    stamps_s: NDArray[np.float64]
    gaps: Sequence[Gap]

    def __init__(self) -> None:
        self._frames: OrderedDict[int, Frame] = OrderedDict()

    def __len__(self) -> int:
        return len(self.stamps_s)

    @property
    def segments(self) -> list[tuple[int, int]]:
        """Index ranges [first, last) without a gap inside."""
        return list(pairwise([0, *(gap.index + 1 for gap in self.gaps), len(self)]))

    def frame(self, index: int) -> Frame:
        """Read and decode frame ``index`` (0 <= index < len); the last few are cached.

        Raises:
            DataError: naming the recording and the stamp, if the frame cannot be decoded or has a wrong size.
            IndexError: beyond the recording, so that plain iteration ends.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        if index in self._frames:
            self._frames.move_to_end(index)
            return self._frames[index]
        try:
            frame = self._decode(index)
        except (DataError, ShapeError) as error:
            raise DataError(f"{self.name}: frame {index} at {self.stamps_s[index]:.3f} s: {error}") from error
        self._frames[index] = frame
        if len(self._frames) > FRAME_CACHE:
            self._frames.popitem(last=False)
        return frame

    @abstractmethod
    def close(self) -> None:
        """Close what stays open between frames."""

    def __enter__(self: SelfT) -> SelfT:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_frames": OrderedDict()}

    @abstractmethod
    def _decode(self, index: int) -> Frame:
        """Read and decode frame ``index``, which is within the recording."""
