"""What a robot remembers of a whole episode, and the world model that looks at it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from come_nav.core.errors import DataError
from come_nav.core.experts import LONG_TERM, SPATIAL
from come_nav.core.types import Frame
from come_nav.experts.lora import LongTermExpert, adapted, adapter_metadata
from come_nav.localisation.image_difference import ImageDifference
from come_nav.memory.episodic.background import BackgroundTrainer
from come_nav.memory.episodic.memory import Adapter, EpisodicMemory
from come_nav.memory.episodic.shared_adapter import SharedAdapter
from come_nav.memory.short_term import Remembered
from come_nav.memory.spatial.cloud import InsertResult, SpatialMemory
from come_nav.memory.spatial.lifting import model_camera
from come_nav.memory.spatial.remembered_views import RememberedViews
from come_nav.memory.store.store import MemoryStore
from come_nav.navigation.experts_in_use import ExpertsInUse, experts_in_use, unsupported_experts
from come_nav.navigation.navigation_model import NavigationModel, taking_experts
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
from come_nav.world_model.episode_loss import EpisodeLoss
from come_nav.world_model.images import camera_of_frame, rgb_from_images
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import RenderedView

NOT_KEPT = "its memory is not kept; name it in experts.use"


class EpisodeMemories:
    """The spatial and the episodic memory of one robot, and the world model that looks at those that can be used.

    A memory that fails never stops the robot: its expert is left out, and the plan says why.

    Attributes:
        settings: what ``use`` names is made ready at the start; all else counts anew whenever it is asked for.
        frozen: whether the memories take nothing new; what they hold stays in use.
        imagines: whether adapters are made ready for imagining here; False where they are trained for others.
        spatial: the cloud of points, or None where it is not used.
        episodic: the training of the adapter, or None where none is trained here.
    """

    def __init__(
        self, model: NavigationModel, settings: NavigationSettings, *, background_training: bool = True
    ) -> None:
        """Make the memories that ``settings.experts.use`` comes to.

        Without ``background_training``, :meth:`train` trains the adapter.
        """
        self.base_model, self.settings = model, settings
        self.frozen, self.imagines = False, True
        self.spatial: SpatialMemory | None = None
        self.episodic: EpisodicMemory | None = None
        self._model = taking_experts(model)
        self._expert: LongTermExpert | None = None
        self._trainer: BackgroundTrainer | None = None
        self._loss: EpisodeLoss | None = None
        self._views: RememberedViews | None = None
        self._shared: SharedAdapter | None = None
        self._unsupported = unsupported_experts(model, settings.experts)
        chosen = self.in_use()
        self._diagnostics: dict[str, str] = dict(chosen.left_out) if chosen.asked else {}
        if SPATIAL in chosen.names:
            self.spatial = SpatialMemory(settings.spatial)
        if LONG_TERM not in chosen.names or self._model is None:
            return
        if settings.experts.adapter_store:
            self._begin_sharing(self._model)
        else:
            self._begin_training(self._model, background_training)

    # -- what is known -------------------------------------------------------------------------------------------------

    def in_use(self, experts: ExpertsSettings | None = None) -> ExpertsInUse:
        """Return which memory experts ``experts`` come to with this model; the settings by default."""
        return experts_in_use(experts or self.settings.experts, self._unsupported)

    @property
    def views(self) -> RememberedViews | None:
        """What shows the cloud to the robot's camera; None without a cloud, or before it has taken a frame."""
        return self._views

    @property
    def adapter(self) -> Adapter | None:
        """The adapter that the long-term expert uses, or None; its metadata tells version, steps and frames."""
        if self._shared is not None:
            return self._shared.adapter
        return None if self.episodic is None else self.episodic.newest

    @property
    def diagnostics(self) -> dict[str, str]:
        """Why experts that are asked for cannot work now, or that ``auto`` could choose from are not used, by name."""
        return {**self.in_use().left_out, **self._present_diagnostics()}

    def _present_diagnostics(self) -> dict[str, str]:
        found = dict(self._diagnostics)
        if self.spatial is not None and not len(self.spatial):
            reasons = ", ".join(f"{name} {count}" for name, count in self.spatial.rejected.most_common(2))
            found["spatial"] = f"nothing is remembered yet{f' (frames refused: {reasons})' if reasons else ''}"
        if self._expert is not None and not self._expert.has_adapter:
            where = "is trained" if self._shared is None else f"is in {self._shared.store.path}"
            found["long_term"] = self.training_diagnosis or f"no adapter {where} yet"
        return found

    @property
    def training_diagnosis(self) -> str | None:
        """Why no newer adapter is to be expected, or None; the one in use, if any, is not affected."""
        failure = None if self._trainer is None else self._trainer.failure
        stopped = None if self.episodic is None else self.episodic.stopped
        shared = None if self._shared is None else self._shared.diagnosis
        found = failure or stopped or shared or self._diagnostics.get("long_term")
        return None if found is None else str(found)

    def model(self, experts: ExpertsSettings | None = None) -> tuple[NavigationModel, list[str]]:
        """Return the world model as it can remember now, and a warning for each expert that is left out.

        ``experts`` says what it looks at, and how much; the settings by default.
        """
        experts = experts or self.settings.experts
        chosen = self.in_use(experts)
        unfit = {**chosen.left_out, **self._unfit(chosen.names)}
        usable = [name for name in chosen.names if name not in unfit]
        warnings = chosen.warnings_of(unfit)
        if self._model is None or not usable:
            return self.base_model, warnings
        spatial = self._views if "spatial" in usable else None
        long_term = self._expert if "long_term" in usable else None
        model = self._model.with_memory(spatial, long_term)
        return model.composed(experts.weights(usable), experts.mode), warnings

    def difference_to(self, image: Tensor, rough: bool = False) -> ImageDifference | None:
        """Return what compares remembered views with an image (3, S, S), roughly or exactly.

        None without a spatial memory.
        """
        if self._views is None or self._model is None or self.spatial is None or not len(self.spatial):
            return None
        search = self.settings.relocalisation
        how = (math.gcd(search.rough_px, self._model.image_size), search.rough_m) if rough else (0, 0.0)
        return ImageDifference(self._views, self._model.encode, image, search.unknown_weight, *how)

    # -- what is taken in ----------------------------------------------------------------------------------------------

    def observe(self, seen: Remembered) -> None:
        """Memorise a frame that the short-term memory kept; nothing while ``frozen``."""
        if self.frozen:
            return
        if self._shared is not None:
            self._shared.poll()
        views = self._views_through(seen.frame)
        shown = self._shown(views, seen)  # before the spatial memory holds the frame
        if self.spatial is not None:
            noted = self.spatial.observe(self._with_depth(seen.frame), seen.pose_odom_xyyaw)
            if noted is InsertResult.KEPT and self._views is None:
                self._views = views
        if self.episodic is not None and self._loss is not None and seen.features is not None:
            self._learn(self.episodic, self._loss, seen, seen.features, shown)

    def reset(self) -> None:
        """Forget the episode."""
        if self.spatial is not None:
            self.spatial.clear()
        if self.episodic is not None:
            self.episodic.reset()

    # -- training ------------------------------------------------------------------------------------------------------

    def train(self, progress: Callable[[str, int], object] = lambda loss, steps: None) -> int:
        """Train the steps that are due and put the adapter in use; return how many there were.

        ``progress`` is told the newest loss in words and the steps done since it was told last.

        Raises:
            DataError: where training stopped because losses were not finite.
        """
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

    def use_adapter(self, tensors: Mapping[str, Tensor] | None) -> None:
        """Let the long-term expert look at an adapter that was trained before, or (None) at none."""
        if self._expert is not None:
            self._expert.swap(tensors)

    def start(self) -> None:
        """Go on training after :meth:`close`."""
        if self._trainer is not None:
            self._trainer.start()

    def close(self) -> None:
        """End the training; what was trained stays in use."""
        if self._trainer is not None:
            self._trainer.stop()

    def _unfit(self, names: tuple[str, ...]) -> dict[str, str]:
        """Return why experts among ``names`` cannot work now."""
        made = {"spatial": self.spatial is not None, "long_term": self._expert is not None}
        missing = {name: NOT_KEPT for name in names if not made.get(name, True)}
        if self.spatial is not None and self._views is None:
            missing["spatial"] = "no frame with a calibration has come yet"
        missing |= self._present_diagnostics()
        return {name: missing[name] for name in names if name in missing}

    def _views_through(self, frame: Frame) -> RememberedViews | None:
        """Return what shows the spatial memory to the camera of ``frame``; None without a memory or a calibration."""
        camera, extrinsics = frame.intrinsics, frame.T_base_camera
        if self.spatial is None or self._model is None or camera is None or extrinsics is None:
            return None
        return RememberedViews(self.spatial, camera, extrinsics, self._model.images.aspect)

    def _shown(self, views: RememberedViews | None, seen: Remembered) -> RenderedView | None:
        """Return what the spatial memory shows of a frame that it does not hold yet, for the adapter to learn from.

        None where none learns; an empty layer where the camera is not known yet.
        """
        if self.spatial is None or self.episodic is None or self._model is None:
            return None
        if views is None:
            blank = torch.zeros(1, self._model.image_size, self._model.image_size)
            return RenderedView(blank.expand(3, -1, -1)[None], blank.bool(), blank)
        poses = torch.from_numpy(seen.pose_odom_xyyaw).float()[None]
        return RenderedView(*views.views(poses, self._model.image_size))

    def _learn(
        self, memory: EpisodicMemory, loss: EpisodeLoss, seen: Remembered, latents: Tensor, shown: RenderedView | None
    ) -> None:
        image = loss.model.images_from_rgb([seen.frame.rgb])[0]
        camera = camera_of_frame(seen.frame.intrinsics, loss.model.images.aspect)
        loss.camera = loss.camera if camera is None else camera
        try:
            pose = torch.from_numpy(seen.pose_odom_xyyaw).float()
            memory.observe(latents, pose, seen.stamp_s, loss.frame(image, shown, seen.frame.T_base_camera))
            self._diagnostics.pop("long_term", None)
        except DataError as error:  # frames of another kind than those that are remembered
            self._diagnostics["long_term"] = str(error)

    def _begin_sharing(self, model: DiffusionWorldModel) -> None:
        """Use what another process trains."""
        expert = self._expert = LongTermExpert(model.memory_base, self.settings.lora)

        def use(adapter: Adapter | None) -> None:
            expert.swap(None if adapter is None else adapter.tensors)

        store = MemoryStore(Path(self.settings.experts.adapter_store).expanduser())
        self._shared = SharedAdapter(store, adapter_metadata(model.memory_base, self.settings.lora), use)
        self._shared.poll()

    def _begin_training(self, model: DiffusionWorldModel, in_background: bool) -> None:
        settings, lora = replace(self.settings.episodic, context_frames=model.context_frames), self.settings.lora
        expert = LongTermExpert(model.memory_base, lora)

        def publish(adapter: Adapter | None) -> None:
            if self.imagines:
                expert.swap(None if adapter is None else adapter.tensors)

        try:
            network = adapted(model.memory_base, lora, torch.Generator().manual_seed(self.settings.seed))
        except ImportError as error:
            self._diagnostics["long_term"] = f"{error}; install peft"
            return
        self._expert, self._loss = expert, EpisodeLoss(model)
        facts = adapter_metadata(model.memory_base, lora)
        self.episodic = EpisodicMemory(network, self._loss, settings, on_publish=publish, metadata=facts)
        if in_background:
            self._trainer = BackgroundTrainer(self.episodic, self.settings.experts.budget)
            self._trainer.start()

    def _with_depth(self, frame: Frame) -> Frame:
        """Return the frame; as the model sees it with its own estimate where there is no depth and that is wanted."""
        model, wanted = self._model, frame.depth_m is None and self.settings.experts.estimate_depth
        if not wanted or model is None or model.depth is None or frame.intrinsics is None:
            return frame
        image = model.images_from_rgb([frame.rgb])
        camera = model_camera(frame.intrinsics, model.image_size, model.images.aspect)
        depth_m = model.estimate_depth_m(image)[0].float().cpu().numpy()
        return Frame(frame.stamp_s, rgb_from_images(image)[0], depth_m, camera, frame.T_base_camera)
