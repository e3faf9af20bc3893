"""Joins camera, depth, calibration and odometry by the stamps in their headers, whatever order they arrive in."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from come_nav.core.types import Odometry
from come_nav.data.timing.odometry_track import CLOCK_JUMP_S, OdometryTrack


@dataclass(frozen=True)
class Matched:
    """Messages of one instant, still undecoded."""

    stamp_s: float
    image: Any
    depth: Any | None
    info: Any | None
    odometry: Odometry
    depth_info: Any | None = None
    mask: Any | None = None


class Companion:
    """Messages that come beside images: which is of an image's time, and whether that is worth waiting for."""

    def __init__(self, mode: str, slop_s: float, capacity: int) -> None:
        """Take whether images need one: "none", "optional" or "required"."""
        self._mode, self._slop_s = mode, slop_s
        self._entries: deque[tuple[float, Any]] = deque(maxlen=capacity)
        self._awaited = True

    @property
    def required(self) -> bool:
        """Whether an image without one is dropped."""
        return self._mode == "required"

    @property
    def waited_for(self) -> bool:
        """Whether an image waits for one: where it is optional, as long as they come."""
        return self.required or (self._mode == "optional" and self._awaited)

    def add(self, stamp_s: float, message: Any) -> None:
        """Take a message."""
        self._awaited = True
        self._entries.append((stamp_s, message))

    def near(self, stamp_s: float) -> Any | None:
        """Return the message nearest in time, None where none is near enough."""
        near = [entry for entry in self._entries if abs(entry[0] - stamp_s) <= self._slop_s]
        return min(near, key=lambda entry: abs(entry[0] - stamp_s))[1] if near else None

    def released(self) -> None:
        """Know that an image was released: without any message here, the next one does not wait."""
        self._awaited = bool(self._entries)

    def clear(self) -> None:
        """Forget what waits."""
        self._entries.clear()


class Synchroniser:
    """Releases an image once odometry (and depth and mask, where they are wanted) of its time is there.

    Images are released in order. One that waits longer than ``patience_s`` of stamps for its depth goes without if
    ``depth`` is "optional" (the next ones do not wait until a depth image has come) and is dropped if it is
    "required"; so it is with ``masks`` of what moves; without odometry it is dropped. Reasons are counted.
    """

    def __init__(
        self,
        depth: str = "none",
        slop_s: float = 0.05,
        patience_s: float = 0.6,
        capacity: int = 32,
        masks: str = "none",
    ) -> None:
        self._patience_s, self._capacity = patience_s, capacity
        self._images: deque[tuple[float, Any]] = deque()
        self._depths, self._masks = Companion(depth, slop_s, capacity), Companion(masks, slop_s, capacity)
        self._info: Any | None = None
        self._depth_info: Any | None = None
        self.track = OdometryTrack()
        self.dropped: Counter[str] = Counter()

    def add_image(self, stamp_s: float, message: Any) -> None:
        """Take a colour image."""
        if self._images and stamp_s < self._images[-1][0] - CLOCK_JUMP_S:
            self._images.clear()
            self._depths.clear()
            self._masks.clear()
        self._images.append((stamp_s, message))
        if len(self._images) > self._capacity:
            self._images.popleft()
            self.dropped["no odometry" if self.track.newest is None else "queue full"] += 1

    def add_depth(self, stamp_s: float, message: Any) -> None:
        """Take a depth image."""
        self._depths.add(stamp_s, message)

    def add_mask(self, stamp_s: float, message: Any) -> None:
        """Take an image of what moves."""
        self._masks.add(stamp_s, message)

    def set_info(self, message: Any) -> None:
        """Take the newest calibration."""
        self._info = message

    def set_depth_info(self, message: Any) -> None:
        """Take the newest calibration of the depth camera."""
        self._depth_info = message

    def add_odometry(self, odometry: Odometry) -> bool:
        """Take odometry; return True when the clock jumped back."""
        return self.track.add(odometry)

    @property
    def due(self) -> bool:
        """Whether an image waits whose odometry has come."""
        newest = self.track.newest
        return bool(self._images) and newest is not None and newest.stamp_s >= self._images[0][0]

    def clear(self) -> None:
        """Forget what waits; the counters and the calibration stay."""
        self._images.clear()
        self._depths.clear()
        self._masks.clear()
        self.track.clear()

    def ready(self) -> Iterator[Matched]:
        """Yield what is complete, oldest first."""
        while self._images:
            stamp_s, image = self._images[0]
            newest = self.track.newest
            if newest is None or (newest.stamp_s < stamp_s and stamp_s - newest.stamp_s < CLOCK_JUMP_S):
                return  # odometry of this time is still to come
            odometry = self.track.at(stamp_s)
            if odometry is None:
                self._images.popleft()
                self.dropped["no odometry"] += 1
                continue
            found = [(kind, own, own.near(stamp_s)) for kind, own in (("depth", self._depths), ("mask", self._masks))]
            waited_s = max(newest.stamp_s, self._images[-1][0]) - stamp_s
            if waited_s < self._patience_s and any(own.waited_for and near is None for _, own, near in found):
                return
            self._depths.released()
            self._masks.released()
            self._images.popleft()
            missing = [kind for kind, own, near in found if own.required and near is None]
            if missing:
                self.dropped[f"no {missing[0]}"] += 1
                continue
            (_, _, depth), (_, _, mask) = found
            yield Matched(stamp_s, image, depth, self._info, odometry, self._depth_info, mask)
