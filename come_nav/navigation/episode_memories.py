"""What a robot remembers of a whole episode, and the world model that looks at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from come_nav.core.experts import LONG_TERM, SPATIAL
from come_nav.localisation.image_difference import ImageDifference
from come_nav.memory.episodic.memory import Adapter, EpisodicMemory
from come_nav.memory.short_term import Remembered
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.remembered_views import RememberedViews
from come_nav.navigation.cloud_memory import CloudMemory
from come_nav.navigation.experts_in_use import ExpertsInUse, experts_in_use, unsupported_experts
from come_nav.navigation.long_term import LongTermMemory
from come_nav.navigation.navigation_model import NavigationModel, taking_experts
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings

NOT_KEPT = "its memory is not kept; name it in experts.use"


class EpisodeMemories:
    """The spatial and the episodic memory of one robot, and the world model that looks at those that can be used.

    A memory that fails never stops the robot: its expert is left out, and the plan says why.

    Attributes:
        settings: what ``use`` names is made ready at the start; all else counts anew whenever it is asked for.
        frozen: whether the memories take nothing new; what they hold stays in use.
        cloud: the spatial memory, or None where it is not used.
        long_term: the adapter's memory, or None where it is not used.
    """

    def __init__(
        self, model: NavigationModel, settings: NavigationSettings, *, background_training: bool = True
    ) -> None:
        """Make the memories that ``settings.experts.use`` comes to.

        Without ``background_training``, :meth:`train` trains the adapter.
        """
        self.base_model, self.settings, self.frozen = model, settings, False
        self._model = taking_experts(model)
        self._unsupported = unsupported_experts(model, settings.experts)
        self.cloud: CloudMemory | None = None
        self.long_term: LongTermMemory | None = None
        chosen = self.in_use()
        if self._model is not None and SPATIAL in chosen.names:
            self.cloud = CloudMemory(self._model, settings.spatial)
        if self._model is not None and LONG_TERM in chosen.names:
            self.long_term = LongTermMemory(self._model, settings, background_training)

    def in_use(self, experts: ExpertsSettings | None = None) -> ExpertsInUse:
        """Return which memory experts ``experts`` come to with this model; the settings by default."""
        return experts_in_use(experts or self.settings.experts, self._unsupported)

    @property
    def spatial(self) -> SpatialMemory | None:
        """The cloud of points, or None where it is not used."""
        return None if self.cloud is None else self.cloud.points

    @property
    def views(self) -> RememberedViews | None:
        """What shows the cloud to the robot's camera; None without a cloud, or before it has taken a frame."""
        return None if self.cloud is None else self.cloud.views

    @property
    def episodic(self) -> EpisodicMemory | None:
        """The training of the adapter, or None where none is trained here."""
        return None if self.long_term is None else self.long_term.episodic

    @property
    def adapter(self) -> Adapter | None:
        """The adapter that the long-term expert uses, or None; its metadata tells version, steps and frames."""
        return None if self.long_term is None else self.long_term.adapter

    @property
    def training_diagnosis(self) -> str | None:
        """Why no newer adapter is to be expected, or None; the one in use, if any, is not affected."""
        return None if self.long_term is None else self.long_term.training_diagnosis

    @property
    def diagnostics(self) -> dict[str, str]:
        """Why experts that are asked for cannot work now, or that ``auto`` could choose from are not used, by name."""
        chosen = self.in_use()
        return {**chosen.left_out, **self._unfit(chosen.names)}

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
        spatial = self.views if SPATIAL in usable else None
        long_term = self.long_term.expert if self.long_term is not None and LONG_TERM in usable else None
        model = self._model.with_memory(spatial, long_term)
        return model.composed(experts.weights(usable), experts.mode), warnings

    def difference_to(self, image: Tensor, rough: bool = False) -> ImageDifference | None:
        """Return what compares remembered views with an image (3, S, S), roughly or exactly.

        None without a spatial memory.
        """
        return None if self.cloud is None else self.cloud.difference_to(image, self.settings.relocalisation, rough)

    def observe(self, seen: Remembered) -> None:
        """Memorise a frame that the short-term memory kept; nothing while ``frozen``."""
        if self.frozen:
            return
        cloud, long_term = self.cloud, self.long_term
        if long_term is not None:
            long_term.poll()
        # What the cloud shows is looked at before it holds the frame: an adapter must not learn from the answer.
        shown = None if cloud is None or self.episodic is None else cloud.shown(seen)
        if cloud is not None:
            cloud.observe(seen, self.settings.experts.estimate_depth)
        if long_term is not None:
            long_term.observe(seen, shown)

    def reset(self) -> None:
        """Forget the episode."""
        if self.cloud is not None:
            self.cloud.points.clear()
        if self.long_term is not None:
            self.long_term.reset()

    def train(self, progress: Callable[[str, int], object] = lambda loss, steps: None) -> int:
        """Train the steps that are due and put the adapter in use; return how many there were.

        ``progress`` is told the newest loss in words and the steps done since it was told last.

        Raises:
            DataError: where training stopped because losses were not finite.
        """
        return 0 if self.long_term is None else self.long_term.train(progress)

    def use_adapter(self, tensors: Mapping[str, Tensor] | None) -> None:
        """Let the long-term expert look at an adapter that was trained before, or (None) at none."""
        if self.long_term is not None and self.long_term.expert is not None:
            self.long_term.expert.swap(tensors)

    def _unfit(self, names: tuple[str, ...]) -> dict[str, str]:
        """Return why experts among ``names`` cannot work now."""
        found = {
            SPATIAL: NOT_KEPT if self.cloud is None else self.cloud.diagnosis,
            LONG_TERM: NOT_KEPT if self.long_term is None else self.long_term.diagnosis,
        }
        return {name: why for name in names if (why := found.get(name)) is not None}
