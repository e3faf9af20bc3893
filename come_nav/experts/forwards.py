"""How networks run when they predict: as they are, as CUDA graphs, or compiled by torch.

A forward of a small network is hundreds of kernels, and starting them takes longer than what they compute. A CUDA graph
starts all of them at once, for inputs of the same shapes. What cannot be captured or compiled runs as it is.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from come_nav.experts.forward_ways import ForwardWay
from come_nav.experts.optional_inputs import OptionalInputs

Inputs = dict[str, Tensor]
Made = Callable[[Inputs], Tensor]  # answers inputs of the shapes that it was made for

MOST_SHAPES = 16  # of inputs that one network is captured for; further ones run as they are
WARM_UP = 3  # forwards before a capture, in which libraries choose kernels and allocate

_way: ContextVar[ForwardWay] = ContextVar("way", default="eager")
_refused: set[str] = set()  # ways that failed in this process; said once
_logger = logging.getLogger(__name__)


@contextmanager
def forwards(way: ForwardWay) -> Iterator[None]:
    """Let the networks of this thread run in a ``way`` while no gradient is asked for."""
    token = _way.set(way)
    try:
        yield
    finally:
        _way.reset(token)


class Forwards:
    """Forwards of one network; kept with it, so that new weights in a new network begin anew.

    Args:
        makers: how each way makes a forward of a network for inputs; replaced by tests.
    """

    def __init__(self, makers: Mapping[str, Callable[[nn.Module, Inputs], Made]] | None = None) -> None:
        self._makers = {"graph": captured, "compile": compiled} if makers is None else dict(makers)
        self._made: dict[Any, Made] = {}
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Forwards:
        """Return none: a copy's weights lie elsewhere."""
        return Forwards(self._makers)

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep nothing in files and other processes."""
        return Forwards, ()

    def __call__(self, network: nn.Module, arguments: Mapping[str, Any]) -> Tensor:
        """Return ``network(**arguments)``: tensors, None, :class:`OptionalInputs`, a generator."""
        way = self._chosen(arguments)
        if way == "eager":
            output: Tensor = network(**arguments)
            return output
        inputs = flat(arguments)
        with self._lock:  # a graph has one set of inputs
            made = self._for(way, network, inputs)
            if made is not None:
                return made(inputs)
        return _run(network, inputs)

    def _chosen(self, arguments: Mapping[str, Any]) -> ForwardWay:
        way = _way.get()
        drawn = arguments.get("generator") is not None  # a graph would read its numbers where they once were
        elsewhere = way == "graph" and self._makers["graph"] is captured and not arguments["x"].is_cuda
        return "eager" if drawn or elsewhere or way in _refused or torch.is_grad_enabled() else way

    def _for(self, way: ForwardWay, network: nn.Module, inputs: Inputs) -> Made | None:
        shapes = tuple((name, tuple(tensor.shape), tensor.dtype, tensor.device) for name, tensor in inputs.items())
        device = next(iter(inputs.values())).device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        places = tuple(own.data_ptr() for own in network.parameters())  # a graph reads weights where they were
        key = (way, shapes, precision, places)
        if key not in self._made:
            if len(self._made) >= MOST_SHAPES:
                return None
            try:
                self._made[key] = self._makers[way](network, inputs)
            except Exception as error:  # whatever a compiler or a driver raises: the network itself runs
                _refused.add(way)
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                _logger.warning("inference.compile %s: %s; networks run as they are", way, reason)
                return None
        return self._made[key]


def flat(arguments: Mapping[str, Any]) -> Inputs:
    """Return the tensors among arguments by name; those of :class:`OptionalInputs` have its name before theirs."""
    found: Inputs = {}
    for name, value in arguments.items():
        if isinstance(value, OptionalInputs):
            own = {f"{name}.{field.name}": getattr(value, field.name) for field in fields(value)}
            found |= {key: tensor for key, tensor in own.items() if tensor is not None}
        elif isinstance(value, Tensor):
            found[name] = value
    return found


def _run(network: Callable[..., Tensor], inputs: Inputs) -> Tensor:
    """Run a network on inputs of :func:`flat`."""
    optional = {name.split(".")[1]: tensor for name, tensor in inputs.items() if "." in name}
    plain = {name: tensor for name, tensor in inputs.items() if "." not in name}
    return network(**plain, optional=OptionalInputs(**optional))


def captured(network: nn.Module, inputs: Inputs) -> Made:
    """Return a CUDA graph of a forward; raise what CUDA does where it cannot be captured."""
    own = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in inputs.items()}
    device = next(iter(own.values())).device
    precision = torch.get_autocast_dtype("cuda")
    uncached = torch.autocast("cuda", precision, enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False)
    with torch.cuda.device(device), uncached:
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                _run(network, own)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # others may use CUDA meanwhile
            output = _run(network, own)

    def replay(given: Inputs) -> Tensor:
        for name, tensor in own.items():
            tensor.copy_(given[name])
        graph.replay()
        return output.clone()

    return replay


def compiled(network: nn.Module, inputs: Inputs) -> Made:
    """Return what ``torch.compile`` makes of a network; raise what it does, e.g. without a compiler of C++."""
    compile_ = torch.compile(network, dynamic=False)

    def run(given: Inputs) -> Tensor:
        return _run(compile_, given)

    run(inputs)
    return run
