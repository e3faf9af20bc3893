"""A memory that is the state of a network: of constant size for a state-space scan, growing for full attention.

The network is an expert's; here lie its state and the poses that it is told. Every frame counts from the first one, so
that a map frame that moves under the robot does not reach it.
"""

from __future__ import annotations

from typing import Generic

import torch
from torch import Tensor

from come_nav.core.checks import check_shape
from come_nav.core.errors import DataError
from come_nav.core.geometry import se2
from come_nav.core.protocols import SequenceObserver, StateT


class RecurrentMemory(Generic[StateT]):
    """Frames in the order in which they were seen, as a network's state (core.protocols.SequenceObserver).

    It is a :class:`~come_nav.core.protocols.SequenceSource`.
    """

    def __init__(self, network: SequenceObserver[StateT]) -> None:
        self._network = network
        self.reset()

    @property
    def state(self) -> StateT:
        """The network's state."""
        return self._state

    @property
    def frames(self) -> int:
        """How many frames were seen."""
        return self._state.frames

    @property
    def size_bytes(self) -> int:
        """Bytes of the state."""
        return self._state.size_bytes

    @property
    def newest_xyyaw(self) -> Tensor:
        """(3,) float64 pose of the newest frame in that of the first one; zero before there is any."""
        return self._newest

    def reset(self) -> None:
        """Forget everything."""
        self._state = self._network.start()
        self._first: Tensor | None = None
        self._newest = torch.zeros(3, dtype=torch.float64)

    def observe(self, latents: Tensor, pose_odom_xyyaw: Tensor) -> None:
        """Take in one frame.

        Args:
            latents: (C, h, w), scaled.
            pose_odom_xyyaw: (3,) of base_link.

        Raises:
            DataError: for latents or a pose that are not finite; the state stays as it was.
            ShapeError: for others of another shape.
        """
        check_shape("latents", latents, "C h w")
        check_shape("pose_odom_xyyaw", pose_odom_xyyaw, "3")
        pose = torch.as_tensor(pose_odom_xyyaw, dtype=torch.float64).cpu()
        if not bool(torch.isfinite(pose).all() & torch.isfinite(latents).all().cpu()):
            raise DataError(
                f"frame {self.frames} of a recurrent memory must have finite latents and pose, got pose {pose.tolist()}"
            )
        first = pose if self._first is None else self._first
        place = se2.relative(first, pose)
        action = torch.zeros_like(place) if self._first is None else se2.relative(self._newest, place)
        self._state = self._network.observed(self._state, latents, place, action)
        self._first, self._newest = first, place
