"""Rows of memories of sequences: the state that a network has after the memory phase shows targets, without depth.

It sees what the other memories see: the memory phase at the poses that the robot has of it, then the newest frames
before a window.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2
from come_nav.core.protocols import Recording
from come_nav.core.resources import find_resource
from come_nav.core.types import Imagination
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.protocols.quality import Batch, QualityRow
from come_nav.evaluation.protocols.rows import Row
from come_nav.evaluation.suites.fingerprints import model_fingerprint
from come_nav.evaluation.suites.memory.drive_memories import MemoryCache
from come_nav.evaluation.suites.planning_rows import ReplayOf, searching_row
from come_nav.evaluation.suites.replay import decodable
from come_nav.experts.sequence.network import SequenceState
from come_nav.memory.recurrent import RecurrentMemory
from come_nav.navigation.device import choose_device
from come_nav.navigation.settings import NavigationSettings
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.sequence.model import SequenceModel

KIND_TITLES = {"ssm": "state space", "full": "full attention", "window": "sliding window", "none": "no memory"}
Sequences = list[tuple[str, SequenceModel]]


def load_sequences(names: Sequence[str], navigation: NavigationSettings, model: DiffusionWorldModel) -> Sequences:
    """Return sequence models with the titles of their rows.

    Args:
        names: of models or folders.
        navigation: where they run.
        model: of the robot, whose images they must be able to take.

    Raises:
        ConfigError, CheckpointError: one is not there, takes images of another size, or two have one title.
    """
    found: Sequences = []
    for name in names:
        folder = find_resource("models", name)
        own = SequenceModel.load(folder, choose_device(navigation.device))
        size = own.autoencoder.settings.image_size
        if size != model.image_size:
            raise ConfigError(
                f"--sequence-model {name}: takes images of {size} px, and the robot's model of {model.image_size}; "
                "choose another --model, or train with that autoencoder.image_size"
            )
        title = f"{KIND_TITLES[own.settings.network.memory]}: {folder.name}"
        if title in (other for other, _ in found):  # records are kept by the names of rows
            raise ConfigError(f"--sequence-model {name}: another row is named '{title}' too; rename a folder")
        found.append((title, own))
    return found


def sequence_recall_rows(
    sequences: Sequences, cache: MemoryCache, older_frames: int, model: DiffusionWorldModel
) -> list[QualityRow]:
    """Return a row of recall for each sequence model."""
    return [_recall_row(title, SequenceMemories(own, model, cache, older_frames)) for title, own in sequences]


def sequence_planning_rows(
    sequences: Sequences, cache: MemoryCache, older_frames: int, replay_of: ReplayOf, model: DiffusionWorldModel
) -> list[Row]:
    """Return a row of plans for each sequence model: the robot's search, to which it shows the ends of candidates."""

    def row(title: str, memories: SequenceMemories) -> Row:
        def imaginer(window: Window, decode: bool) -> SequenceImaginer:
            return SequenceImaginer(memories, window, model, decode)

        return searching_row(title, replay_of, model, make=imaginer)

    return [row(title, SequenceMemories(own, model, cache, older_frames)) for title, own in sequences]


def stored_sequences(names: Sequence[str]) -> dict[str, Any]:
    """Return what records of sequence models depend on; nothing without one."""
    return {"sequences": [model_fingerprint(name) for name in names]} if names else {}


class SequenceMemories:
    """What a sequence model remembers of drives, the newest drive kept.

    Args:
        model: whose network's state is the memory.
        robot: the model of the robot, as which images are cut.
        cache: of the robot's memories, which tell the poses of the memory phase.
        older_frames: before the context of a window, that it sees as well.
    """

    def __init__(self, model: SequenceModel, robot: DiffusionWorldModel, cache: MemoryCache, older_frames: int) -> None:
        self.model, self._robot, self._cache, self._older_frames = model, robot, cache, older_frames
        self._phase: tuple[str, RecurrentMemory[SequenceState]] | None = None
        self._newest: tuple[Window, RecurrentMemory[SequenceState]] | None = None

    @torch.no_grad()
    def images(self, window: Window, poses_xyyaw: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the views (S, 3, H, W) in [-1, 1] at poses (S, 3) in the start frame of ``window``.

        Raises:
            DataError: no frame before it can be read.
        """
        memory, actions = self.at(window), poses_xyyaw.double().cpu()
        places = se2.compose(memory.newest_xyyaw.expand(len(actions), 3), actions)
        state = memory.state.expanded(len(actions))
        return self.model.decode(self.model.imagine(state, places.float(), actions.float(), generator))

    def at(self, window: Window) -> RecurrentMemory[SequenceState]:
        """Return the memory at the start of ``window``."""
        if self._newest is not None and self._newest[0] is window:
            return self._newest[1]
        name, recording = window.recording_id, window.recording
        if self._phase is None or self._phase[0] != name:
            self._phase = name, self._after_phase(name)
        memory = copy.copy(self._phase[1])  # observing makes a new state, so that the phase's own stays as it is
        first = max(0, window.context[0] - self._older_frames)
        frames = range(first, window.start + 1)
        self._show(memory, recording, frames, recording.poses_xyyaw[first : frames.stop])
        if not memory.frames:
            raise DataError(f"{name}: no frame before frame {window.start} can be read")
        self._newest = window, memory
        return memory

    def _after_phase(self, name: str) -> RecurrentMemory[SequenceState]:
        memories, memory = self._cache.of(name), RecurrentMemory(self.model.network)
        self._show(memory, memories.drive.recording, memories.drive.memory, memories.poses_xyyaw.numpy())
        return memory

    def _show(
        self,
        memory: RecurrentMemory[SequenceState],
        recording: Recording,
        frames: range,
        poses_xyyaw: NDArray[np.float64],
    ) -> None:
        for index, frame in decodable(recording, frames):
            latents = self.model.encode(self._robot.images_from_rgb([frame.rgb]))[0]
            memory.observe(latents, torch.from_numpy(np.asarray(poses_xyyaw[index - frames.start], float)))


class SequenceImaginer:
    """Imaginer that shows what a sequence's state tells of the end of each candidate."""

    def __init__(self, memories: SequenceMemories, window: Window, model: DiffusionWorldModel, decode: bool) -> None:
        self._memories, self._window, self._model, self._decode = memories, window, model, decode

    def imagine(self, poses_xyyaw: torch.Tensor, generator: torch.Generator) -> Imagination:
        """Imagine the views at the last poses of candidates (S, T, 3), in the latents of the robot's model."""
        images = self._memories.images(self._window, poses_xyyaw[:, -1], generator)
        latents = self._model.encode(images).to(poses_xyyaw)
        return Imagination(poses_xyyaw, latents, images.to(poses_xyyaw) if self._decode else None)


def _recall_row(title: str, memories: SequenceMemories) -> QualityRow:
    def imagine(batch: Batch) -> torch.Tensor:
        generator, actions = batch.generator(), batch.actions_xyyaw
        found = [
            memories.images(item.window, actions[number : number + 1], generator)
            for number, item in enumerate(batch.windows)
        ]
        return torch.cat(found).cpu()[:, None]

    return QualityRow(title, imagine)
