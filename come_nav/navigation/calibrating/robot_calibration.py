"""What a robot's experts are tested on: its memories, as they stood when a test was set."""

from __future__ import annotations

from collections.abc import Sequence

from come_nav.core.experts import MEMORY_EXPERTS
from come_nav.memory.short_term import Remembered, ShortTermBuffer
from come_nav.memory.spatial.cloud import snapshot_of
from come_nav.navigation.calibrating.online import Moment, OnlineCalibration, Tested
from come_nav.navigation.memories.episode_memories import EpisodeMemories
from come_nav.navigation.navigation_model import taking_experts
from come_nav.navigation.planning.imagining import context_of
from come_nav.navigation.settings import NavigationSettings
from come_nav.world_model.model import DiffusionWorldModel


class RobotCalibration:
    """Tests the experts of an episode's memories, and tells those memories the weights.

    Args:
        episode: gets the weights.
        memory: the newest frames.
        settings: of the robot at its start.
    """

    def __init__(self, episode: EpisodeMemories, memory: ShortTermBuffer, settings: NavigationSettings) -> None:
        self._episode, self._memory, self._experts = episode, memory, settings.experts
        self._model = taking_experts(episode.base_model)
        self._online: OnlineCalibration | None = None
        if settings.experts.calibration.use and self._model is not None:
            weights = settings.experts.weights(MEMORY_EXPERTS)
            self._online = OnlineCalibration(settings.experts.calibration, weights, settings.seed)

    @property
    def tests(self) -> Sequence[Tested]:
        """The newest tests, oldest first."""
        return () if self._online is None else tuple(self._online.tests)

    def observe(self, seen: Remembered) -> None:
        """Let a kept frame, which the memories hold already, tell which expert foresaw it; never while frozen."""
        if self._online is None or self._episode.frozen:
            return
        if self._online.observe(seen, self._moment) is not None:
            self._episode.calibrated = self._online.weights

    def clear(self) -> None:
        """Forget all tests: the weights are those that are set."""
        if self._online is not None:
            self._online.clear()
            self._episode.calibrated = {}

    def report(self) -> dict[str, str]:
        """Return what the newest tests came to, in words; nothing before the first."""
        return {} if self._online is None else self._online.report()

    def _moment(self) -> Moment | None:
        """Return what is known now; None while there are too few frames."""
        assert self._model is not None
        newest = self._memory.newest
        older_frames, frames = self._experts.older_frames, self._episode.frames
        context = context_of(self._model, self._memory, MEMORY_EXPERTS, older_frames, frames)
        if newest is None or context is None:
            return None
        return Moment(newest.stamp_s, newest.pose_odom_xyyaw, context, self._remembering(self._model))

    def _remembering(self, model: DiffusionWorldModel) -> DiffusionWorldModel:
        """Return the model with every expert that can look at something now; its memories change no more."""
        views, long_term = self._episode.views, self._episode.long_term
        if views is not None:
            kept = snapshot_of(views.memory)
            views = views.showing(kept) if len(kept) else None
        return model.with_memory(views, None if long_term is None else long_term.expert)
