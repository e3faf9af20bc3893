"""What a robot remembers of a whole episode, and the world model that looks at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.errors import ConfigError
from come_nav.core.experts import LONG_TERM, SHORT_TERM, SPATIAL
from come_nav.localisation.image_difference import ImageDifference
from come_nav.memory.episodic.memory import Adapter
from come_nav.memory.frame_memory import FrameMemory
from come_nav.memory.map_frame import MapFrame
from come_nav.memory.short_term import Remembered
from come_nav.navigation.memories.experts_in_use import (
    ExpertsInUse,
    calibrated_experts,
    experts_in_use,
    unsupported_experts,
)
from come_nav.navigation.memories.long_term_memory import LongTermMemory
from come_nav.navigation.memories.remembered_space import RememberedSpace, SpaceViews
from come_nav.navigation.navigation_model import NavigationModel, taking_experts
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
from come_nav.world_model.model import DiffusionWorldModel, guided_by, with_levels

NOT_KEPT = "its memory is not kept; name it in experts.use"


class EpisodeMemories:
    """The spatial and the episodic memory of one robot, and the world model that looks at those that can be used.

    A memory that fails never stops the robot: its expert is left out, and the plan says why.

    Attributes:
        settings: what ``use`` names is made ready at the start; all else counts anew whenever it is asked for.
        calibrated: weights of the experts that count in place of those of ``settings``, by noise level and name.
        frozen: whether the memories take nothing new; what they hold stays in use.
        space: the spatial memory, or None where it is not used.
        long_term: the long-term memory, or None where it is not used.
        frames: the frames of the episode that the short-term expert looks at again, or None where it does not.
        spatial: the cloud of points of ``space``, or None.
        episodic: the training of the adapter, or None where none is trained here.
    """

    def __init__(
        self, model: NavigationModel, settings: NavigationSettings, *, background_training: bool = True
    ) -> None:
        """Make the memories that ``settings.experts.use`` comes to.

        Without ``background_training``, :meth:`train` trains the adapter.

        Raises:
            ConfigError: for frames that are to be retrieved for an expert that is not used.
        """
        self.base_model, self.settings, self.frozen = model, settings, False
        self.calibrated: Mapping[float, Mapping[str, float]] = {}
        self._map_frame = MapFrame()
        self.space: RememberedSpace | None = None
        self.long_term: LongTermMemory | None = None
        self.frames: FrameMemory | None = None
        self._model = taking_experts(model)
        self._unsupported = unsupported_experts(model, settings.experts)
        chosen, experts = self.in_use(), settings.experts
        if SPATIAL in chosen.names and self._model is not None:
            self.space = RememberedSpace(self._model, settings.spatial, experts.estimate_depth, experts.spatial_store)
        if LONG_TERM in chosen.names and self._model is not None:
            self.long_term = LongTermMemory(self._model, settings, background_training)
        if settings.retrieval.use and experts.use:  # without experts, the base alone was asked for
            self.frames = _frames_for(self._model, settings, chosen)
        self.spatial = None if self.space is None else self.space.cloud
        self.episodic = None if self.long_term is None else self.long_term.episodic

    # -- what is known -------------------------------------------------------------------------------------------------

    def in_use(self, experts: ExpertsSettings | None = None) -> ExpertsInUse:
        """Return which memory experts ``experts`` come to with this model; those as they count now by default."""
        chosen = experts or calibrated_experts(self.settings.experts, self.calibrated)
        return experts_in_use(chosen, self._unsupported)

    @property
    def views(self) -> SpaceViews | None:
        """What shows the cloud to the robot's camera; None without a cloud, or before it has taken a frame."""
        return None if self.space is None else self.space.views

    @property
    def adapter(self) -> Adapter | None:
        """The adapter that the long-term expert uses, or None; its metadata tells version, steps and frames."""
        return None if self.long_term is None else self.long_term.adapter

    @property
    def diagnostics(self) -> dict[str, str]:
        """Why experts that are asked for cannot work now, or that ``auto`` could choose from are not used, by name."""
        chosen = self.in_use()
        return {**chosen.left_out, **_unfit(self, chosen.names)}

    @property
    def training_diagnosis(self) -> str | None:
        """Why no newer adapter is to be expected, or None; the one in use, if any, is not affected."""
        return None if self.long_term is None else self.long_term.training_diagnosis

    def model(self, experts: ExpertsSettings | None = None) -> tuple[NavigationModel, list[str]]:
        """Return the world model as it can remember now, and a warning for each expert that is left out.

        ``experts`` says what it looks at, and how much; the settings by default.
        """
        levels = self.calibrated if experts is None else {}
        experts = experts or calibrated_experts(self.settings.experts, self.calibrated)
        chosen = self.in_use(experts)
        unfit = {**chosen.left_out, **_unfit(self, chosen.names)}
        usable = [name for name in chosen.names if name not in unfit]
        warnings = chosen.warnings_of(unfit)
        if self._model is None or not usable:
            return self.base_model, warnings
        spatial = self.views if SPATIAL in usable else None
        long_term = self.long_term.expert if self.long_term is not None and LONG_TERM in usable else None
        guided = spatial is not None and experts.likelihood.use
        model = self._model.with_memory(None if guided else spatial, long_term)
        networks = [name for name in usable if not (guided and name == SPATIAL)]
        model = model.composed(experts.weights(networks), experts.mode)
        model = with_levels(model, levels, experts.calibration.least_exponent) if levels else model
        if guided and spatial is not None:
            model = guided_by(model, spatial, experts.likelihood, experts.spatial)
        return model, warnings

    def difference_to(self, image: Tensor, rough: bool = False) -> ImageDifference | None:
        """Return what compares remembered views with an image (3, S, S), roughly or exactly.

        None without a spatial memory.
        """
        return None if self.space is None else self.space.difference_to(image, self.settings.relocalisation, rough)

    # -- what is taken in ----------------------------------------------------------------------------------------------

    def observe(self, seen: Remembered) -> None:
        """Memorise a frame that the short-term memory kept; nothing while ``frozen``."""
        if self.frozen:
            return
        space, long_term = self.space, self.long_term
        if long_term is not None:
            long_term.poll()
            # Before the spatial memory holds the frame: the adapter learns from what was known of it.
            pose_map_xyyaw = self._map_frame.to_map(seen.pose_odom_xyyaw)
            long_term.observe(seen, pose_map_xyyaw, lambda: None if space is None else space.shown(seen))
        if space is not None:
            space.observe(seen)
        if self.frames is not None:
            self.frames.observe(seen)

    def move(self, corrections_xyyaw: NDArray[np.float64], outside_xyyaw: NDArray[np.float64] | None = None) -> None:
        """Take where odom lies in map (A, 3) as each anchor of the robot has it; nothing while ``frozen``.

        ``outside_xyyaw`` (3,) is where another localiser says that odom lies in its map, if one does.
        """
        if self.frozen:
            return
        self._map_frame.update(corrections_xyyaw, outside_xyyaw)
        for memory in (self.space, self.frames):
            if memory is not None:
                memory.move(corrections_xyyaw, outside_xyyaw)

    def reset(self, T_before_after_xyyaw: NDArray[np.float64] | None = None) -> None:
        """Forget the episode; or keep it, where odometry began anew and (3,) tells where it lies in the one before."""
        if T_before_after_xyyaw is not None:
            self._map_frame.rebase(T_before_after_xyyaw)
            if self.space is not None:  # one of another process too, until that process has done so
                self.space.cloud.map_frame.rebase(T_before_after_xyyaw)
            if self.frames is not None:
                self.frames.map_frame.rebase(T_before_after_xyyaw)
            return
        self._map_frame.clear()
        for memory in (self.space, self.long_term):
            if memory is not None:
                memory.reset()
        if self.frames is not None:
            self.frames.clear()

    def train(self, progress: Callable[[str, int], object] = lambda loss, steps: None) -> int:
        """Train the steps that are due and put the adapter in use; return how many there were.

        ``progress`` is told the newest loss in words and the steps done since it was told last.

        Raises:
            DataError: where training stopped because losses were not finite.
        """
        return 0 if self.long_term is None else self.long_term.train(progress)

    def use_adapter(self, tensors: Mapping[str, Tensor] | None) -> None:
        """Let the long-term expert look at an adapter that was trained before, or (None) at none."""
        if self.long_term is not None:
            self.long_term.use(tensors)

    def start(self) -> None:
        """Go on training after :meth:`close`."""
        if self.long_term is not None:
            self.long_term.start()

    def close(self) -> None:
        """End the training; what was trained stays in use."""
        if self.long_term is not None:
            self.long_term.close()


def _frames_for(model: DiffusionWorldModel | None, settings: NavigationSettings, chosen: ExpertsInUse) -> FrameMemory:
    """Return the memory of frames for the short-term expert, or say why it would be of no use."""
    if model is None or SHORT_TERM not in chosen.names:
        why = chosen.left_out.get(SHORT_TERM, "experts.use does not name it")
        raise ConfigError(
            f"retrieval.use needs the short_term expert, which is not used: {why}; set experts.short_term above 0 and "
            "experts.use to auto or a list with short_term, or retrieval.use to false"
        )
    return FrameMemory(settings.retrieval, model.image_size, model.images.aspect)


def _unfit(memories: EpisodeMemories, names: tuple[str, ...]) -> dict[str, str]:
    """Return why experts among ``names`` cannot work now."""
    found = {
        SPATIAL: NOT_KEPT if memories.space is None else memories.space.diagnosis,
        LONG_TERM: NOT_KEPT if memories.long_term is None else memories.long_term.diagnosis,
    }
    return {name: why for name in names if (why := found.get(name)) is not None}
