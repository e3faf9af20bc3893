"""The parameters that an adapter consists of, and the optimiser that trains them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from come_nav.core.device.streams import OwnStream
from come_nav.core.errors import MemoryStoreError
from come_nav.memory.episodic.settings import EpisodicSettings


class AdapterOptimiser:
    """Those parameters of a network that require gradients, with AdamW.

    Attributes:
        initial: copies of the values at the start.
    """

    def __init__(self, network: nn.Module, settings: EpisodicSettings) -> None:
        self._settings = settings
        self._parameters = {name: own for name, own in network.named_parameters() if own.requires_grad}
        self._beside = OwnStream(next(iter(self._parameters.values())).device)
        self.initial = self.values()
        self.restart()

    def values(self) -> dict[str, Tensor]:
        """Return copies of the present values."""
        return {name: own.detach().clone() for name, own in self._parameters.items()}

    @torch.no_grad()
    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Set the values; the optimiser's moments stay."""
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
            parameter.grad = None

    def restart(self) -> None:
        """Forget the optimiser's moments."""
        own = self._settings
        self._optimiser = torch.optim.AdamW(
            self._parameters.values(), lr=own.learning_rate, weight_decay=own.weight_decay
        )

    def step(self, loss_of: Callable[[], Tensor]) -> float | None:
        """Train one step; return its loss, or None where loss or gradient was not finite: nothing is changed then.

        On a GPU it runs beside plans, on a stream of its own.
        """
        with self._beside.used():
            return self._step(loss_of)

    def _step(self, loss_of: Callable[[], Tensor]) -> float | None:
        parameters = list(self._parameters.values())
        with torch.enable_grad():
            loss = loss_of()
            loss.backward(inputs=parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self._settings.clip_norm)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            return None
        self._optimiser.step()
        self._optimiser.zero_grad()
        return float(loss.detach())

    def state(self) -> dict[str, Tensor]:
        """Return values and moments for the disk."""
        tensors = {f"parameter.{name}": tensor for name, tensor in self.values().items()}
        for name, parameter in self._parameters.items():
            for key, value in self._optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{key}.{name}"] = value.detach().clone()
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over values and moments of :meth:`state`."""
        self.restore({name: tensors[f"parameter.{name}"] for name in self._parameters})
        self.restart()
        for name, parameter in self._parameters.items():
            found = {key: tensors.get(f"optimiser.{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            kept = {key: value.clone() for key, value in found.items() if value is not None}
            if kept:
                moments = {key: value.to(parameter.device) for key, value in kept.items() if key != "step"}
                self._optimiser.state[parameter] = {"step": kept["step"].cpu(), **moments}

    def check(self, tensors: Mapping[str, Tensor], kinds: tuple[str, ...]) -> None:
        """Raise MemoryStoreError where the tensors of a kind (a prefix of their names) do not fit."""
        for name, parameter in self._parameters.items():
            for kind in kinds:
                own = tensors.get(f"{kind}.{name}")
                if own is None or own.shape != parameter.shape or not torch.isfinite(own).all():
                    raise MemoryStoreError(f"episodic memory: {kind} '{name}' is missing, misshapen or not finite")
