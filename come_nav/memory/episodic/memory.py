"""The episodic memory: an adapter trained on the running episode while the robot plans with the last finished one.

Handed a network and a loss, it knows neither what the network is nor what it predicts: it keeps frames, trains whatever
parameters require gradients on windows of them (test-time training as in CoME, arXiv 2605.18813), and publishes copies.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from come_nav.core.errors import MemoryStoreError
from come_nav.memory.episodic.adapter_optimiser import AdapterOptimiser
from come_nav.memory.episodic.episode import EpisodeBatch, EpisodeFrames
from come_nav.memory.episodic.settings import EpisodicSettings

Loss = Callable[[nn.Module, EpisodeBatch, torch.Generator], Tensor]
FORMAT = "come_nav episodic memory 1"


@dataclass(frozen=True)
class Adapter:
    """A finished adapter. Nobody writes to its tensors.

    Attributes:
        tensors: by the names of the network's parameters.
        metadata: plain JSON values: what the network's maker said of it, and "version", "steps", "frames", "loss".
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


class EpisodicMemory:
    """Frames of an episode and the adapter that they train.

    ``observe`` and ``newest`` may be called while another thread trains; ``train_steps``, ``reset``, ``state`` and
    ``load_state`` wait for a running step.

    Attributes:
        steps: trained since the last reset.
        rejected: steps whose loss or gradient was not finite.
        last_loss: of the newest step.
        stopped: why training has stopped, or None.
    """

    steps: int
    rejected: int
    last_loss: float | None
    stopped: str | None
    _generator: torch.Generator
    _rejected_in_row: int
    _version: int
    _published_steps: int
    _carried: int  # steps that frames were worth which are no longer here

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        settings: EpisodicSettings | None = None,
        *,
        on_publish: Callable[[Adapter | None], None] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Take over the training of a network.

        Args:
            network: its parameters that require gradients are the adapter; their present values are the start.
            loss: of the network on windows; all its randomness comes from the generator that it is given.
            settings: how much is trained, and how.
            on_publish: called with each finished adapter, and with None after a reset, in the thread that trains.
            metadata: plain JSON values that must agree when a state is loaded, e.g. rank and model.
        """
        self.settings = settings or EpisodicSettings()
        self.frames = EpisodeFrames(self.settings.capacity, self.settings.max_gap_s)
        self._network, self._loss, self._on_publish = network, loss, on_publish
        self._facts = dict(metadata or {})
        self._adapter = AdapterOptimiser(network, self.settings)
        self._lock = threading.RLock()  # of the parameters, the optimiser and the counters
        self._newest: Adapter | None = None
        self._start_anew()

    # -- what others see ---------------------------------------------------------------------------------------------

    @property
    def newest(self) -> Adapter | None:
        """The last finished adapter, or None before the first one of an episode."""
        return self._newest

    @property
    def steps_due(self) -> int:
        """Steps that the frames seen so far are worth and that are not done; 0 while training is stopped."""
        if self.stopped is not None or not self.frames.usable(self.settings.context_frames):
            return 0
        return max(int(self.settings.steps_per_frame * self.frames.seen) + self._carried - self.steps, 0)

    def observe(
        self,
        latents: Tensor,
        pose_odom_xyyaw: Tensor,
        stamp_s: float,
        frame: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Keep one frame of the protocol rate.

        Args:
            latents: (C, h, w) of the frame.
            pose_odom_xyyaw: (3,) of base_link in the odom frame.
            stamp_s: of the frame.
            frame: what else the loss needs of a context frame, e.g. its image; the same names every time.
        """
        self.frames.add(latents, pose_odom_xyyaw, stamp_s, frame or {})

    # -- training ----------------------------------------------------------------------------------------------------

    def train_steps(self, count: int, publish: bool = True) -> int:
        """Train up to ``count`` steps, publish after each whole round and at the end; return the steps done.

        A step whose loss or gradient is not finite changes nothing: the last published values come back. After
        ``max_rejected`` such steps in a row training stops, ``stopped`` says why, and the last adapter stays in use.
        """
        done = 0
        for _ in range(count):
            with self._lock:
                if self.stopped is not None or not self.frames.usable(self.settings.context_frames):
                    break
                if not self._step():
                    continue
                done += 1
                if publish and self.steps % self.settings.round_steps == 0:
                    self._publish()
        if publish:
            self.publish()
        return done

    def publish(self) -> None:
        """Make the present values the adapter in use, where they were trained since the last time."""
        with self._lock:
            if self.steps > self._published_steps:
                self._publish()

    def reset(self) -> None:
        """Forget the episode: no frames, no adapter, the network's first values, a new optimiser."""
        with self._lock:
            self.frames.clear()
            self._start_anew()
            self._newest = None
            if self._on_publish is not None:
                self._on_publish(None)

    def _step(self) -> bool:
        """Train one step; False where it was rejected."""
        settings = self.settings
        batch = self.frames.sample(
            settings.context_frames, settings.reach, settings.batch_size, self._generator, settings.recent_frames
        )
        loss = self._adapter.step(lambda: self._loss(self._network, batch, self._generator))
        if loss is None:
            self._reject()
            return False
        self.steps, self._rejected_in_row, self.last_loss = self.steps + 1, 0, loss
        return True

    def _reject(self) -> None:
        """Go back to the last published values, with a new optimiser; stop where this keeps happening."""
        self.rejected += 1
        self._rejected_in_row += 1
        self._adapter.restore(self._adapter.initial if self._newest is None else self._newest.tensors)
        self._adapter.restart()
        if self._rejected_in_row >= self.settings.max_rejected:
            self.stopped = f"{self._rejected_in_row} steps in a row had a loss or gradient that is not finite"

    def _publish(self) -> None:
        tensors = self._adapter.values()
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            self._reject()
            return
        self._published_steps = self.steps
        self._version += 1
        facts = {"version": self._version, "steps": self.steps, "frames": self.frames.seen, "loss": self.last_loss}
        adapter = Adapter(tensors, {**self._facts, **facts})
        self._newest = adapter  # one assignment: a reader has the old adapter or the new one
        if self._on_publish is not None:
            self._on_publish(adapter)

    def _start_anew(self) -> None:
        self._adapter.restore(self._adapter.initial)
        self._adapter.restart()
        self._generator = torch.Generator().manual_seed(self.settings.seed)
        self.steps, self.rejected, self._rejected_in_row = 0, 0, 0
        self._version, self._published_steps, self._carried = 0, 0, 0
        self.last_loss = None
        self.stopped = None

    # -- disk --------------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that is needed to go on later: tensors for one safetensors file, and plain JSON values."""
        with self._lock:
            tensors = self._adapter.state()
            if self._newest is not None:
                tensors |= {f"published.{name}": tensor for name, tensor in self._newest.tensors.items()}
            tensors |= {f"episode.{name}": tensor for name, tensor in self.frames.tensors().items()}
            tensors["generator"] = self._generator.get_state()
            counters = {"steps": self.steps, "seen": self.frames.seen, "rejected": self.rejected}
            published = None if self._newest is None else self._newest.metadata
            more = {"published": published, "version": self._version, "stopped": self.stopped, "carried": self._carried}
            facts = {"format": FORMAT, "network": self._facts, "last_loss": self.last_loss, **counters, **more}
            return {name: tensor.contiguous() for name, tensor in tensors.items()}, facts

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was taken, and publish the adapter that was in use then.

        Raises:
            MemoryStoreError: for a state of another format, network or shape; nothing is changed then.
        """
        self._check_state(tensors, metadata)
        with self._lock:
            self._start_anew()
            self._adapter.load_state(tensors)
            self._generator.set_state(tensors["generator"].cpu())
            self.steps, self.rejected = int(metadata["steps"]), int(metadata["rejected"])
            self._version, self._published_steps = int(metadata["version"]), self.steps
            self._carried = int(metadata.get("carried", 0))
            self.last_loss, self.stopped = metadata["last_loss"], metadata["stopped"]
            episode = {name[8:]: tensor for name, tensor in tensors.items() if name.startswith("episode.")}
            self.frames.load(episode, int(metadata["seen"]))
            published = {name[10:]: own.clone() for name, own in tensors.items() if name.startswith("published.")}
            self._newest = Adapter(published, dict(metadata["published"])) if metadata["published"] else None
            if self._on_publish is not None:
                self._on_publish(self._newest)

    def resume(self, adapter: Adapter) -> None:
        """Go on from a published adapter where no state, or an older one, was saved; frames and optimiser stay.

        The adapter's steps count as done for frames that are not here any more, so that new frames are trained at once.

        Raises:
            MemoryStoreError: for an adapter of another network or shape; nothing is changed then.
        """
        values, facts = {f"published.{name}": own for name, own in adapter.tensors.items()}, adapter.metadata
        self._check_tensors(values, facts, ("published",))
        with self._lock:
            self._adapter.restore(adapter.tensors)
            self.steps, self._version = int(facts["steps"]), int(facts["version"])
            self._published_steps, self.last_loss = self.steps, facts.get("loss")
            self._carried = self.steps - min(self.steps, int(self.settings.steps_per_frame * self.frames.seen))
            self._newest = adapter
            if self._on_publish is not None:
                self._on_publish(adapter)

    def _check_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        if metadata.get("format") != FORMAT:
            raise MemoryStoreError(f"episodic memory: format must be '{FORMAT}', got {metadata.get('format')!r}")
        kinds = ("parameter", "published") if metadata.get("published") else ("parameter",)
        self._check_tensors(tensors, metadata.get("network", {}), kinds)

    def _check_tensors(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], kinds: tuple[str, ...]) -> None:
        """Raise MemoryStoreError where facts about the network or the tensors of a kind do not fit."""
        if (diagnosis := disagreement(self._facts, facts)) is not None:
            raise MemoryStoreError(f"episodic memory: {diagnosis}")
        self._adapter.check(tensors, kinds)


def disagreement(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """Return the first fact about the network that differs from what is expected, in words, or None."""
    for name, value in expected.items():
        if (other := found.get(name)) != value:
            return f"{name} must be {value!r} as the network's, got {other!r}"
    return None
