"""The total cost of candidates: a weighted sum of named terms, cheap ones first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from come_nav.core.errors import PlanningError, suggest
from come_nav.core.protocols import Imaginer, Objective, RoughImaginer
from come_nav.core.types import Imagination
from come_nav.planning.objectives import Doubt, with_spread


@dataclass(frozen=True)
class Costs:
    """Costs of S candidates.

    Attributes:
        total: (S,); +inf = rejected, or not imagined; NaN = a term was not a number.
        by_objective: name -> (S,) weighted; NaN where the term was not evaluated because the path was rejected before,
            or because its rough view left it no hope.
    """

    total: torch.Tensor
    by_objective: dict[str, torch.Tensor]


class WeightedSum:
    """Adds the terms with their weights; of a term of weight zero only what it rejects counts (+inf)."""

    def __init__(self, objectives: Sequence[Objective], weights: Mapping[str, float] | None = None) -> None:
        """Take the terms and weights by name; a term without a weight counts once.

        Raises:
            PlanningError: without terms, for two terms of one name, or a weight that is negative or names no term.
        """
        names = [objective.name for objective in objectives]
        if not names:
            raise PlanningError("the planner needs at least one objective")
        if len(set(names)) < len(names):
            raise PlanningError(f"objectives must have different names, got {', '.join(names)}")
        self._terms: list[tuple[float, Objective]] = []
        for name, weight in (weights or {}).items():
            if name not in names:
                raise PlanningError(f"unknown objective '{name}' in the weights{suggest(name, names)}")
            if not 0.0 <= weight < float("inf"):
                raise PlanningError(f"weight of {name} must be >= 0 and finite, got {weight}")
        for objective in objectives:
            weight = 1.0 if weights is None else float(weights.get(objective.name, 1.0))
            if weight > 0 or not objective.needs_view:
                self._terms.append((weight, objective))

    @property
    def needs_view(self) -> bool:
        """Whether any term looks at imagined images."""
        return any(objective.needs_view for _, objective in self._terms)

    def evaluate(
        self,
        poses_xyyaw: torch.Tensor,
        imaginer: Imaginer,
        generator: torch.Generator,
        repeats: int = 1,
        share: float = 1.0,
    ) -> Costs:
        """Cost candidates (S, T, 3).

        Terms that need no view come first, and a path that they reject is not imagined. The others are imagined
        ``repeats`` times (at least twice where they are doubted) and their view costs averaged: one call of the
        imaginer for each repeat, so that all candidates of a repeat may share their noise. Where ``share`` is below 1
        and the imaginer can tell roughly what candidates lead to, only that share of them is imagined: the cheapest by
        the rough views.
        """
        total = poses_xyyaw.new_zeros(len(poses_xyyaw))
        by_objective: dict[str, torch.Tensor] = {}
        for weight, objective in self._terms:
            if not objective.needs_view:
                told = _checked(objective, Imagination(poses_xyyaw))
                if weight == 0:
                    total = torch.where(torch.isinf(told), told, total)
                    continue
                by_objective[objective.name] = cost = weight * told
                total = total + cost
        if not self.needs_view:
            return Costs(total, by_objective)
        alive = torch.nonzero(torch.isfinite(total))[:, 0]
        if share < 1.0 and len(alive) > 1:
            hopeful = self._hopeful(poses_xyyaw[alive], total[alive], imaginer, share)
            left_out = torch.ones_like(alive, dtype=torch.bool)
            left_out[hopeful] = False
            total[alive[left_out]] = torch.inf
            alive = alive[hopeful]
        views = self._view_costs(poses_xyyaw[alive], imaginer, generator, repeats) if len(alive) > 0 else {}
        for _, objective in self._terms:
            if objective.needs_view:
                spread = torch.full_like(total, torch.nan)
                if objective.name in views:
                    spread[alive] = views[objective.name].to(total)
                    total[alive] += views[objective.name].to(total)
                by_objective[objective.name] = spread
        return Costs(total, by_objective)

    def _hopeful(self, poses_xyyaw: torch.Tensor, told: torch.Tensor, imaginer: Imaginer, share: float) -> torch.Tensor:
        """Return the indices, in order, of the ``share`` of candidates that the rough views leave the most hope."""
        everybody = torch.arange(len(told), device=told.device)
        seen = imaginer.rough(poses_xyyaw) if isinstance(imaginer, RoughImaginer) else None
        if seen is None:
            return everybody
        for weight, objective in self._terms:
            if objective.needs_view:
                told = told + weight * _checked(objective, seen).to(told)
        count = max(1, math.ceil(share * len(told)))
        return torch.argsort(torch.nan_to_num(told, nan=0.0), stable=True)[:count].sort().values

    def _view_costs(
        self, poses_xyyaw: torch.Tensor, imaginer: Imaginer, generator: torch.Generator, repeats: int
    ) -> dict[str, torch.Tensor]:
        costs: dict[str, torch.Tensor] = {}
        doubting = any(isinstance(objective, Doubt) for _, objective in self._terms)
        repeats = max(repeats, Doubt.draws) if doubting else repeats
        drawn: Iterable[Imagination] = (imaginer.imagine(poses_xyyaw, generator) for _ in range(repeats))
        for imagination in with_spread(list(drawn)) if doubting else drawn:
            for weight, objective in self._terms:
                if objective.needs_view:
                    cost = weight / repeats * _checked(objective, imagination)
                    costs[objective.name] = costs.get(objective.name, torch.zeros_like(cost)) + cost
        return costs


def _checked(objective: Objective, imagination: Imagination) -> torch.Tensor:
    cost = objective(imagination)
    count = len(imagination.poses_xyyaw)
    if tuple(cost.shape) != (count,):
        raise PlanningError(f"objective {objective.name} must return costs ({count},), got {tuple(cost.shape)}")
    return cost
