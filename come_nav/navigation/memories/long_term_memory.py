"""The long-term memory of one robot: an adapter trained on the episode, here or in another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.errors import DataError
from come_nav.experts.lora import LongTermExpert, adapted, adapter_metadata
from come_nav.memory.episodic.background import BackgroundTrainer
from come_nav.memory.episodic.memory import Adapter, EpisodicMemory
from come_nav.memory.episodic.shared_adapter import SharedAdapter
from come_nav.memory.short_term import Remembered
from come_nav.memory.store.store import MemoryStore
from come_nav.navigation.settings import NavigationSettings
from come_nav.world_model.contexts import measured_in
from come_nav.world_model.episode_loss import EpisodeLoss
from come_nav.world_model.images import camera_of_frame
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import RenderedView


class LongTermMemory:
    """The long-term expert and what trains its adapter, or the store that adapters come from.

    Attributes:
        expert: looks at the adapter in use.
        episodic: the training; None where another process trains, or training is not possible.
        imagines: whether adapters are made ready for imagining here; False where they are trained for others.
    """

    def __init__(self, model: DiffusionWorldModel, settings: NavigationSettings, background_training: bool) -> None:
        """Follow the store of ``experts.adapter_store``, or begin to train; in the background if wanted."""
        self.expert = LongTermExpert(model.memory_base, settings.lora)
        self.episodic: EpisodicMemory | None = None
        self.imagines = True
        self._model, self._loss = model, EpisodeLoss(model)
        self._trainer: BackgroundTrainer | None = None
        self._shared: SharedAdapter | None = None
        self._failure: str | None = None
        if settings.experts.adapter_store:
            store = MemoryStore(Path(settings.experts.adapter_store).expanduser())
            self._shared = SharedAdapter(store, adapter_metadata(model.memory_base, settings.lora), self._use)
            self._shared.poll()
        else:
            self._begin_training(model, settings, background_training)

    @property
    def adapter(self) -> Adapter | None:
        """The adapter in use, or None; its metadata tells version, steps and frames."""
        if self._shared is not None:
            return self._shared.adapter
        return None if self.episodic is None else self.episodic.newest

    @property
    def training_diagnosis(self) -> str | None:
        """Why no newer adapter is to be expected, or None; the one in use, if any, is not affected."""
        failure = None if self._trainer is None else self._trainer.failure
        stopped = None if self.episodic is None else self.episodic.stopped
        shared = None if self._shared is None else self._shared.diagnosis
        found = failure or stopped or shared or self._failure
        return None if found is None else str(found)

    @property
    def diagnosis(self) -> str | None:
        """Why the expert cannot be asked now, or None."""
        if self._failure is not None:
            return self._failure
        if self.expert.has_adapter:
            return None
        where = "is trained" if self._shared is None else f"is in {self._shared.store.path}"
        return self.training_diagnosis or f"no adapter {where} yet"

    def poll(self) -> None:
        """Take over a newer adapter of another process, if there is one."""
        if self._shared is not None:
            self._shared.poll()

    def observe(
        self, seen: Remembered, pose_map_xyyaw: NDArray[np.float64], shown: Callable[[], RenderedView | None]
    ) -> None:
        """Learn a frame at its pose (3,) in map. ``shown`` tells what the spatial memory shows before it holds it."""
        memory, loss = self.episodic, self._loss
        if memory is None or seen.features is None:
            return
        image = self._model.images_from_rgb([seen.frame.rgb])[0]
        camera = camera_of_frame(seen.frame.intrinsics, self._model.images.aspect)
        loss.camera = loss.camera if camera is None else camera
        depth_m = measured_in(self._model, [seen.frame])
        try:
            pose = torch.from_numpy(pose_map_xyyaw)
            kept = loss.frame(image, shown(), seen.frame.T_base_camera, None if depth_m is None else depth_m[0])
            memory.observe(seen.features, pose, seen.stamp_s, kept)
            self._failure = None
        except DataError as error:  # frames of another kind than those that are remembered
            self._failure = str(error)

    def train(self, progress: Callable[[str, int], object]) -> int:
        """Train the steps that are due and put the adapter in use; see EpisodeMemories.train."""
        memory, done = self.episodic, 0
        if memory is None:
            return 0
        while memory.steps_due and (steps := memory.train_steps(1, publish=False)):
            done += steps
            progress(f"loss {memory.last_loss:.3f}", steps)
        memory.publish()
        if memory.stopped is not None:
            raise DataError(f"no adapter could be trained to the end: {memory.stopped}")
        return done

    def use(self, tensors: Mapping[str, Tensor] | None) -> None:
        """Let the expert look at an adapter that was trained before, or (None) at none."""
        self.expert.swap(tensors)

    def reset(self) -> None:
        """Forget the episode."""
        if self.episodic is not None:
            self.episodic.reset()

    def start(self) -> None:
        """Go on training after :meth:`close`."""
        if self._trainer is not None:
            self._trainer.start()

    def close(self) -> None:
        """End the training; what was trained stays in use."""
        if self._trainer is not None:
            self._trainer.stop()

    def _use(self, adapter: Adapter | None) -> None:
        if self.imagines:
            self.use(None if adapter is None else adapter.tensors)

    def _begin_training(self, model: DiffusionWorldModel, settings: NavigationSettings, in_background: bool) -> None:
        own, lora = replace(settings.episodic, context_frames=model.context_frames), settings.lora
        try:
            network = adapted(model.memory_base, lora, torch.Generator().manual_seed(settings.seed))
        except ImportError as error:
            self._failure = f"{error}; install peft"
            return
        facts = adapter_metadata(model.memory_base, lora)
        self.episodic = EpisodicMemory(network, self._loss, own, on_publish=self._use, metadata=facts)
        if in_background:
            self._trainer = BackgroundTrainer(self.episodic, settings.experts.budget)
            self._trainer.start()
