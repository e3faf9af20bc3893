"""The passes that each composition stands on, read from the same product that predicts, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from come_nav.core.types import ViewSource
from come_nav.evaluation.reports.composition_tables import PassExponent, RowPasses
from come_nav.evaluation.suites.memory.compositions import MEMORY_NET_TITLE, ComposedRow
from come_nav.evaluation.suites.memory.drive_memories import experts_of, supported
from come_nav.evaluation.suites.memory.memory_network import memory_network_alone
from come_nav.experts.lora import LongTermExpert
from come_nav.experts.passes import Pass
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.prediction import product_of

BASE_NETWORK, MEMORY_NETWORK, ADAPTED_NETWORK = "base", "memory network", "adapted network"
SEEN = {
    ViewSource.CONTEXT: "context",
    ViewSource.LONGER: "context, older frames",
    ViewSource.MEMORY: "context, older frames, cloud",
}
NO_CONTEXT = "nothing"
DIGITS = 6  # of exponents that count as equal


def passes_of_rows(
    compositions: Sequence[ComposedRow], model: DiffusionWorldModel, *, memory_network: bool = False
) -> list[RowPasses]:
    """Return the passes of every composition, with marks where one is equal to an earlier row.

    Exponents are those at noise levels where experts count (``composition.interval``).

    Args:
        compositions: rows of the table, in its order.
        model: whose experts are composed.
        memory_network: whether the row of the memory network without memory is in the table, before them.
    """
    remembering, names = _with_memories(model)
    found: list[RowPasses] = []
    known: dict[tuple[frozenset[tuple[Pass, float]], bool], str] = {}
    products = [(MEMORY_NET_TITLE, 1, False, _exponents(memory_network_alone(model)))] if memory_network else []
    for row in compositions:
        experts = experts_of(row, model, 1)
        own = remembering.composed(experts.weights(experts.use), experts.mode)
        products.append((row.name, len(row.weights), row.blend, _exponents(own)))
    for name, experts_named, blend, exponents in products:
        key = (frozenset((own, round(exponent, DIGITS)) for own, exponent in exponents.items()), blend)
        described = tuple(_described(own, exponent, names, model) for own, exponent in exponents.items())
        found.append(RowPasses(name, described, experts_named, known.get(key)))
        known.setdefault(key, name)
    return found


class _NoCloud:
    """A spatial memory that is never looked at: here only the products count."""

    def views(
        self, poses_odom_xyyaw: torch.Tensor, image_size: int, T_base_camera: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        raise NotImplementedError


def _with_memories(model: DiffusionWorldModel) -> tuple[DiffusionWorldModel, Mapping[int, str]]:
    """Return the model with every memory that it can have, and the names of its networks by their identity."""
    long_term = LongTermExpert(model.memory_base)
    long_term.swap({})  # an adapter without tensors: a network of its own
    spatial = _NoCloud() if "spatial" in supported(model) else None
    names = {
        id(long_term.shared_passes()[0].network): ADAPTED_NETWORK,
        id(model.memory_base): MEMORY_NETWORK,
        id(model.base): BASE_NETWORK,  # where the base is the memory network, it is called the base
    }
    return model.with_memory(spatial, long_term), names


def _exponents(model: DiffusionWorldModel) -> dict[Pass, float]:
    low, high = model.composition.interval
    return product_of(model).exponents(round((low + high) / 2 * (len(model.schedule) - 1)))


def _described(own: Pass, exponent: float, names: Mapping[int, str], model: DiffusionWorldModel) -> PassExponent:
    sees = SEEN[own.condition.view] if model.depth is not None else "context"
    return PassExponent(
        names.get(id(own.network), "another network"),
        sees if own.condition.context else NO_CONTEXT,
        round(exponent, DIGITS),
    )
