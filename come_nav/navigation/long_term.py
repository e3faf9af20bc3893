"""The long-term memory of an episode: an adapter of the world model that is trained here or by another process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from come_nav.core.errors import DataError
from come_nav.experts.lora import LongTermExpert, adapted, adapter_metadata
from come_nav.memory.episodic.background import BackgroundTrainer
from come_nav.memory.episodic.memory import Adapter, EpisodicMemory
from come_nav.memory.episodic.shared_adapter import SharedAdapter
from come_nav.memory.short_term import Remembered
from come_nav.memory.store.store import MemoryStore
from come_nav.navigation.settings import NavigationSettings
from come_nav.world_model.episode_loss import EpisodeLoss
from come_nav.world_model.images import camera_of_frame
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import RenderedView


class LongTermMemory:
    """An adapter and who trains it.

    Attributes:
        expert: that looks at the adapter, or None where none can be trained.
        episodic: the training, or None where another process trains.
        imagines: whether adapters are made ready for imagining here; False where they are trained for others.
    """

    def __init__(self, model: DiffusionWorldModel, settings: NavigationSettings, background_training: bool) -> None:
        """Begin to share the adapter of ``experts.adapter_store``, or to train one."""
        self._model, self.imagines = model, True
        self.expert: LongTermExpert | None = None
        self.episodic: EpisodicMemory | None = None
        self._trainer: BackgroundTrainer | None = None
        self._loss: EpisodeLoss | None = None
        self._shared: SharedAdapter | None = None
        self._failure: str | None = None
        if settings.experts.adapter_store:
            self._begin_sharing(settings)
        else:
            self._begin_training(settings, background_training)

    @property
    def adapter(self) -> Adapter | None:
        """The adapter that the expert uses, or None; its metadata tells version, steps and frames."""
        if self._shared is not None:
            return self._shared.adapter
        return None if self.episodic is None else self.episodic.newest

    @property
    def diagnosis(self) -> str | None:
        """Why the expert cannot work now, or None."""
        if self._failure is not None:
            return self._failure
        if self.expert is None or self.expert.has_adapter:
            return None
        where = "is trained" if self._shared is None else f"is in {self._shared.store.path}"
        return self.training_diagnosis or f"no adapter {where} yet"

    @property
    def training_diagnosis(self) -> str | None:
        """Why no newer adapter is to be expected, or None; the one in use, if any, is not affected."""
        failure = None if self._trainer is None else self._trainer.failure
        stopped = None if self.episodic is None else self.episodic.stopped
        shared = None if self._shared is None else self._shared.diagnosis
        found = failure or stopped or shared or self._failure
        return None if found is None else str(found)

    def poll(self) -> None:
        """Take over what another process has trained meanwhile, if it does."""
        if self._shared is not None:
            self._shared.poll()

    def observe(self, seen: Remembered, shown: RenderedView | None) -> None:
        """Learn a frame, and what the spatial memory ``shown`` of it before it held it, where there is one."""
        loss = self._loss
        if self.episodic is None or loss is None or seen.features is None:
            return
        image, pose = self._model.images_from_rgb([seen.frame.rgb])[0], torch.from_numpy(seen.pose_odom_xyyaw).float()
        camera = camera_of_frame(seen.frame.intrinsics, self._model.images.aspect)
        loss.camera = loss.camera if camera is None else camera
        try:
            kept = loss.frame(image, shown, seen.frame.T_base_camera)
            self.episodic.observe(seen.features, pose, seen.stamp_s, kept)
            self._failure = None
        except DataError as error:  # frames of another kind than those that are remembered
            self._failure = str(error)

    def train(self, progress: Callable[[str, int], object]) -> int:
        """Train the steps that are due and put the adapter in use; see ``EpisodeMemories.train``."""
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

    def start(self) -> None:
        """Go on training in the background after :meth:`close`."""
        if self._trainer is not None:
            self._trainer.start()

    def close(self) -> None:
        """End the training in the background; what was trained stays in use."""
        if self._trainer is not None:
            self._trainer.stop()

    def reset(self) -> None:
        """Forget what was learnt here; another process's adapter is that one's to forget."""
        if self.episodic is not None:
            self.episodic.reset()

    def _begin_sharing(self, settings: NavigationSettings) -> None:
        expert = self.expert = LongTermExpert(self._model.memory_base, settings.lora)

        def use(adapter: Adapter | None) -> None:
            expert.swap(None if adapter is None else adapter.tensors)

        store = MemoryStore(Path(settings.experts.adapter_store).expanduser())
        self._shared = SharedAdapter(store, adapter_metadata(self._model.memory_base, settings.lora), use)
        self._shared.poll()

    def _begin_training(self, settings: NavigationSettings, in_background: bool) -> None:
        model, lora = self._model, settings.lora
        expert = LongTermExpert(model.memory_base, lora)

        def publish(adapter: Adapter | None) -> None:
            if self.imagines:
                expert.swap(None if adapter is None else adapter.tensors)

        try:
            network = adapted(model.memory_base, lora, torch.Generator().manual_seed(settings.seed))
        except ImportError as error:
            self._failure = f"{error}; install peft"
            return
        self.expert, self._loss = expert, EpisodeLoss(model)
        facts, own = (
            adapter_metadata(model.memory_base, lora),
            replace(settings.episodic, context_frames=model.context_frames),
        )
        self.episodic = EpisodicMemory(network, self._loss, own, on_publish=publish, metadata=facts)
        if in_background:
            self._trainer = BackgroundTrainer(self.episodic, settings.experts.budget)
            self._trainer.start()
