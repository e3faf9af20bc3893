"""Batches made one ahead in a thread, so that sampling, rendering and copies overlap with the training step."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import torch

END = object()
POLL_S = 0.5


class Prefetched(torch.utils.data.IterableDataset[Any]):
    """The batches of ``stream`` in its order, up to ``ahead`` of them made before they are asked for.

    Torch lets go of Python's lock while it computes, so a thread is enough and nothing is copied between processes.
    The thread works on the CUDA device and stream of the caller: what it starts is ordered with the training step.
    Batches with a ``to`` method are moved to ``device``, if given. An error of the stream is raised to the caller.
    """

    def __init__(self, stream: Iterable[Any], ahead: int = 2, device: str | None = None) -> None:
        super().__init__()
        self.stream, self.ahead, self.device = stream, ahead, device

    def __iter__(self) -> Iterator[Any]:
        ready: queue.Queue[Any] = queue.Queue(self.ahead)
        stop = threading.Event()
        on_cuda = self.device is not None and self.device.startswith("cuda")
        index = torch.cuda.current_device() if on_cuda else 0
        worker = threading.Thread(target=self._work, args=(ready, stop, index if on_cuda else None), daemon=True)
        worker.start()
        try:
            while (item := ready.get()) is not END:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            worker.join()

    def _work(self, ready: queue.Queue[Any], stop: threading.Event, cuda_index: int | None) -> None:
        batches = iter(self.stream)
        try:
            with torch.cuda.device(cuda_index) if cuda_index is not None else nullcontext():
                for batch in batches:
                    if not _put(ready, batch if self.device is None else batch.to(self.device), stop):
                        return
            _put(ready, END, stop)
        except BaseException as error:  # raised again where the batch is asked for
            _put(ready, error, stop)
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()


def _put(ready: queue.Queue[Any], item: Any, stop: threading.Event) -> bool:
    """Wait until there is room; return False when nobody wants it any more."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=POLL_S)
            return True
        except queue.Full:
            continue
    return False
