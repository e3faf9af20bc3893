"""Which optional inputs each sample of a batch is told: drawn in training, stated in validation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from come_nav.training.data.windows import WindowBatch
from come_nav.training.input_dropout import InputDropout

CONTEXT, LONGER, MEMORY = range(3)  # of the views, in the order of ContextViews


@dataclass(frozen=True)
class ToldInputs:
    """What the samples of a batch of B contexts with G goals each are told.

    Attributes:
        nothing: (B,) bool, neither the context nor anything else of the past.
        no_context: (B,) bool, not the context's tokens; true where ``nothing`` is.
        shown: (B * G, 3) bool, the views of the context, of a longer past and of the memory.
        older: frames before the context that have tokens in this batch.
        older_told: (B,) bool, who is told them.
        camera: (B,) bool.
        absolute_pose: (B,) bool.
    """

    nothing: Tensor
    no_context: Tensor
    shown: Tensor
    older: int
    older_told: Tensor
    camera: Tensor
    absolute_pose: Tensor

    def rows(self, rows: slice, goals: int) -> ToldInputs:
        """Return the share of one process: ``rows`` of the contexts."""
        own = slice(rows.start * goals, rows.stop * goals)
        return ToldInputs(
            self.nothing[rows],
            self.no_context[rows],
            self.shown[own],
            self.older,
            self.older_told[rows],
            self.camera[rows],
            self.absolute_pose[rows],
        )


def drawn_inputs(
    contexts: int, goals: int, most_older: int, dropout: InputDropout, nothing: Tensor, generator: torch.Generator
) -> ToldInputs:
    """Draw what ``contexts`` x ``goals`` samples are told, everything independent but for those told ``nothing`` (B,).

    The number of frames before the context is one for the whole batch: attention is then no longer than it needs to be.
    """
    chances = torch.rand(5, contexts, generator=generator)
    views = torch.rand(contexts, goals, 3, generator=generator)
    bucket = torch.rand(2, generator=generator).tolist()
    older = 0 if bucket[0] < dropout.older_batches else 1 + int(bucket[1] * most_older)
    left_out = torch.tensor([dropout.context_view, dropout.longer_view, dropout.memory_view])
    told = ~nothing
    return ToldInputs(
        nothing,
        nothing | (chances[0] < dropout.context),
        ((views >= left_out) & told[:, None, None]).flatten(0, 1),
        min(older, most_older),
        (chances[1] >= dropout.older) & told,
        chances[2] >= dropout.camera,
        chances[3] >= dropout.absolute_pose,
    )


def stated_inputs(
    batch: WindowBatch, *, views: tuple[bool, bool, bool] = (True, False, False), nothing: bool = False
) -> ToldInputs:
    """Return the same inputs for all samples: ``views`` by source; frames before the context where the second is on."""
    contexts, goals = batch.goal_latents.shape[:2]
    alike = torch.full((contexts,), nothing)
    shown = torch.tensor(views).expand(contexts * goals, -1) & (not nothing)
    older = 0 if batch.older is None or nothing or not views[LONGER] else batch.older.latents.shape[1]
    every = torch.ones(contexts, dtype=torch.bool)
    return ToldInputs(alike, alike, shown, older, every, every, ~every)
