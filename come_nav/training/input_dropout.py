"""How often a network with optional inputs learns without each of them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from come_nav.core.checks import check_range


@dataclass(frozen=True)
class InputDropout:
    """Shares of samples that learn without an optional input of networks with ``view_groups``, drawn independently.

    Beside them ``context_dropout`` is the share that learns without anything of the past (the unconditional branch).

    Attributes:
        context: without the context's tokens, each drawn for a context and its goals.
        context_view: without the context's view; this and the following are drawn for each goal.
        older_batches: share of steps in which frames before the context have no tokens; in the others 1 to
            ``older_frames`` of them are there, so many for the whole batch.
        older: without those tokens, in the other steps; for a context and its goals.
        longer_view: without the view of the frames before the context.
        memory_view: without the memory's view.
        camera: without intrinsics and extrinsics; for a context and its goals.
        absolute_pose: without the absolute pose; where told, it lies in a random frame, so that it says nothing until
            an adapter of one episode makes use of it. For a context and its goals.
    """

    context: float = 0.05
    context_view: float = 0.15
    older_batches: float = 0.4
    older: float = 0.2
    longer_view: float = 0.5
    memory_view: float = 0.5
    camera: float = 0.1
    absolute_pose: float = 0.7

    def __post_init__(self) -> None:
        for item in fields(self):
            check_range(f"input_dropout.{item.name}", getattr(self, item.name), 0.0, 1.0)
