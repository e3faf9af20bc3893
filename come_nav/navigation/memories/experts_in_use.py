"""Which memory experts a robot uses: those that its settings name, or all that its model and sensors make use of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from come_nav.core.experts import LONG_TERM, MEMORY_EXPERTS, SPATIAL
from come_nav.navigation.navigation_model import NavigationModel, taking_experts
from come_nav.navigation.settings import AUTO, ExpertsSettings


@dataclass(frozen=True)
class ExpertsInUse:
    """What ``experts.use`` comes to for one model.

    Attributes:
        names: experts whose memories are kept and looked at.
        left_out: expert -> why it is not used. Of experts that were asked for, only those that cannot work.
        asked: whether the settings name experts: plans then say what is missing; ``auto`` leaves out in silence.
        idle: experts of ``names`` that change nothing, because their weight is 0.
    """

    names: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    asked: bool = True
    idle: tuple[str, ...] = ()

    def warnings_of(self, diagnosis: Mapping[str, str]) -> list[str]:
        """Return what a plan says of experts that were asked for: why some are missing, and which change nothing.

        Args:
            diagnosis: expert -> why it cannot work now.
        """
        if not self.asked:
            return []
        missing = [f"without the {name} expert: {why}" for name, why in diagnosis.items()]
        idle = [name for name in self.idle if name not in diagnosis]
        return missing + [f"the {name} expert changes nothing: its weight, experts.{name}, is 0" for name in idle]


def calibrated_experts(experts: ExpertsSettings, calibrated: Mapping[float, Mapping[str, float]]) -> ExpertsSettings:
    """Return the experts with the largest weight that each has at any noise level, where weights are calibrated."""
    weights: dict[str, Any] = {}
    for own in calibrated.values():
        for name, weight in own.items():
            weights[name] = max(weight, weights.get(name, 0.0))
    return replace(experts, **weights) if weights else experts


def experts_in_use(
    settings: ExpertsSettings, unsupported: Mapping[str, str], has_depth: bool | None = None
) -> ExpertsInUse:
    """Return which memory experts to use.

    Args:
        settings: ``use`` names experts, or is ``auto``: every one that the model supports, whose weight is above 0
            and that the sensors feed.
        unsupported: expert -> why the model cannot use it, see :func:`unsupported_experts`.
        has_depth: whether the camera measures depth; None = not known yet, it is then hoped for.
    """
    weights = settings.weights(MEMORY_EXPERTS)
    if AUTO not in settings.use:
        cannot = {name: unsupported[name] for name in settings.use if name in unsupported}
        names = tuple(name for name in settings.use if name not in cannot)
        return ExpertsInUse(names, cannot, True, tuple(name for name in names if weights[name] == 0.0))
    left_out = {name: f"its weight, experts.{name}, is 0" for name in MEMORY_EXPERTS if weights[name] == 0.0}
    if has_depth is False and not settings.estimate_depth:
        left_out[SPATIAL] = "the camera measures no depth, and experts.estimate_depth is off"
    left_out |= {name: why for name, why in unsupported.items() if name in MEMORY_EXPERTS}
    return ExpertsInUse(tuple(name for name in MEMORY_EXPERTS if name not in left_out), left_out, False)


def unsupported_experts(model: NavigationModel, settings: ExpertsSettings) -> dict[str, str]:
    """Return the memory experts that ``model``, or this installation, cannot use, each with the reason."""
    taking = taking_experts(model)
    if taking is None:
        return dict.fromkeys(MEMORY_EXPERTS, "this world model takes no experts")
    found = {name: "this model looks at no views" for name in MEMORY_EXPERTS if name not in taking.supported_experts}
    if settings.likelihood.use:  # it needs no network that looks at the memory
        found.pop(SPATIAL, None)
    if not settings.adapter_store and find_spec("peft") is None:  # an adapter of another process needs no training here
        found[LONG_TERM] = "training an adapter needs peft; install peft"
    return found
