"""Settings of the robot as a whole: which memories it uses, and those of every room that it drives with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from come_nav.core.checks import check_choice, check_range
from come_nav.core.errors import ConfigError
from come_nav.core.experts import EXPERTS, MEMORY_EXPERTS, CompositionMode
from come_nav.experts.lora_settings import LoraSettings
from come_nav.localisation.relocalisation_settings import RelocalisationSettings
from come_nav.memory.episodic.settings import BudgetSettings, EpisodicSettings
from come_nav.memory.keyframes import KeyframesSettings
from come_nav.memory.retrieval_settings import FrameMemorySettings
from come_nav.memory.short_term import ShortTermSettings
from come_nav.memory.spatial.settings import SpatialSettings
from come_nav.navigation.calibrating.settings import CalibrationSettings
from come_nav.navigation.goals.mission import ArrivalSettings
from come_nav.navigation.goals.recovery import RecoverySettings
from come_nav.navigation.goals.settings import GuideSettings, ObstacleSettings
from come_nav.navigation.localising.settings import LocalisationSettings
from come_nav.planning.settings import (
    KinematicsSettings,
    MotionPriorSettings,
    ObjectiveSettings,
    PlannerSettings,
    PoseSearchSettings,
)
from come_nav.world_model.calibration.prior import LikelihoodPriorSettings
from come_nav.world_model.inference_settings import InferenceSettings
from come_nav.world_model.sampling.settings import SamplerSettings

AUTO = "auto"  # of experts.use: what the model and the sensors make use of


@dataclass(frozen=True)
class ExpertsSettings:
    """Which memories the imagination looks at, beside the newest frames, and how much.

    Attributes:
        use: of short_term, long_term and spatial; auto = every one that the model supports, whose weight is above 0
            and that the sensors feed; [] = none, the base alone. One that was named and cannot work (no depth, no
            adapter yet) is left out of the plan, with a warning in its message; auto leaves out in silence.
        mode: normalised (with contrast, exponents sum to 1), literal (CoME equation 4) or average (no contrast).
        base: weight of the base expert, >= 0.
        short_term: weight of the longer past, >= 0.
        long_term: weight of the episode's adapter, >= 0; with auto, none is trained where it is 0.
        spatial: weight of the spatial memory, >= 0.
        older_frames: frames before the context that the short-term expert sees, >= 1.
        estimate_depth: fill the spatial memory with the model's own estimate where a frame has no depth.
        calibration: whether the weights follow what came true.
        likelihood: whether the spatial memory enters as a likelihood, without a network that learned to look at it.
        budget: how much of the machine the training of adapters may take.
        spatial_store: folder of a memory store whose newest cloud the spatial expert looks at, as another process
            fills it; empty = fill one here.
        adapter_store: folder of a memory store whose newest adapter the long-term expert uses, as another process
            trains it; empty = train one here.
    """

    use: tuple[str, ...] = (AUTO,)
    mode: CompositionMode = "normalised"
    base: float = 1.0
    short_term: float = 0.0
    long_term: float = 0.0
    spatial: float = 1.0
    older_frames: int = 12
    estimate_depth: bool = False
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    likelihood: LikelihoodPriorSettings = field(default_factory=LikelihoodPriorSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    spatial_store: str = ""
    adapter_store: str = ""

    def __post_init__(self) -> None:
        for name in self.use:
            check_choice("experts.use", name, (AUTO, *MEMORY_EXPERTS))
        if AUTO in self.use and len(self.use) > 1:
            raise ConfigError(f"experts.use must be auto alone or a list of experts, got {', '.join(self.use)}")
        check_choice("experts.mode", self.mode, get_args(CompositionMode))
        for name in EXPERTS:
            check_range(f"experts.{name}", getattr(self, name), 0.0)
        check_range("experts.older_frames", self.older_frames, 1)

    def weights(self, names: Sequence[str]) -> dict[str, float]:
        """Return the weight of the base and of the memory experts ``names``."""
        return {name: float(getattr(self, name)) for name in ("base", *names)}


@dataclass(frozen=True)
class NavigationSettings:
    """What one robot's memory, imagination and search are told.

    Defaults are those of the published methods or hold for any model; what was tuned to one model is in that model's
    folder (:mod:`come_nav.navigation.model_settings`).

    Attributes:
        model: name of a model in models/, or a path to a model folder.
        device: where the model runs: auto (CUDA where there is a GPU), cpu, cuda or cuda:N.
        seed: of every random number, >= 0.
        imagination: jump (the last view at once) or rollout (frame by frame).
        warm_start: begin each search with what is left of the plan before.
        show_imagined: decode the imagined view at the end of the chosen path into the plan.
        max_sensor_age_s: no plan on a newest frame older than this, s, > 0.
        robot: how its base moves.
        planner: the search.
        pose_search: what the search does differently where the goal is a pose alone.
        objective: what a good path is.
        motion_prior: that the robot goes on as it moves now, in the search for a view.
        memory: the short-term memory.
        experts: the memories that the imagination looks at.
        spatial: the spatial memory.
        retrieval: remembered frames that the short-term expert sees in place of the newest ones.
        localisation: how images are found in memory by their features, and whether drift is taken out.
        relocalisation: how hard to search remembered views where an image has too few features.
        episodic: training of the long-term memory's adapter.
        lora: shape of that adapter.
        sampler: of the world model; null = as the model's own config.yaml says.
        inference: batch sizes and precision of the world model.
    """

    model: str = "tiny"
    device: str = "auto"
    seed: int = 0
    imagination: Literal["jump", "rollout"] = "jump"
    warm_start: bool = True
    show_imagined: bool = False
    max_sensor_age_s: float = 1.0
    robot: KinematicsSettings = field(default_factory=KinematicsSettings)
    planner: PlannerSettings = field(default_factory=PlannerSettings)
    pose_search: PoseSearchSettings = field(default_factory=PoseSearchSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    motion_prior: MotionPriorSettings = field(default_factory=MotionPriorSettings)
    memory: ShortTermSettings = field(default_factory=ShortTermSettings)
    experts: ExpertsSettings = field(default_factory=ExpertsSettings)
    spatial: SpatialSettings = field(default_factory=SpatialSettings)
    retrieval: FrameMemorySettings = field(default_factory=FrameMemorySettings)
    localisation: LocalisationSettings = field(default_factory=LocalisationSettings)
    relocalisation: RelocalisationSettings = field(default_factory=RelocalisationSettings)
    episodic: EpisodicSettings = field(default_factory=EpisodicSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    sampler: SamplerSettings | None = None
    inference: InferenceSettings = field(default_factory=InferenceSettings)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got '{self.device}'")
        check_range("seed", self.seed, 0, 2**63 - 1)
        check_choice("imagination", self.imagination, ("jump", "rollout"))
        check_range("max_sensor_age_s", self.max_sensor_age_s, 0.0, open_low=True)


@dataclass(frozen=True)
class RecognitionSettings:
    """When an image counts as recognised.

    Attributes:
        recognised: where an image has too few features to register it, it was taken where the remembered view differs
            from it by at most this, >= 0.
        trust: how much more similar than the robot's present view a key frame must be for the image to be looked for
            around it, in (0, 1].
        unknown: what the robot does with an image that is not recognised: explore (look for it from the place that
            looks most like it, or by its view) or refuse (the mission fails with NOT_RECOGNISED).
    """

    recognised: float = 0.4
    trust: float = 0.7
    unknown: Literal["explore", "refuse"] = "explore"

    def __post_init__(self) -> None:
        check_range("recognition.recognised", self.recognised, 0.0)
        check_range("recognition.trust", self.trust, 0.0, 1.0, open_low=True)
        check_choice("recognition.unknown", self.unknown, ("explore", "refuse"))


@dataclass(frozen=True)
class NavigatorSettings:
    """How a robot gets from goal to goal. Each of the switches turns one thing off, to see what it is worth.

    Attributes:
        use_places: look for goals in memory, and let it lead; without, every goal is approached as it was given.
        use_recognition: look for where a goal image was taken.
        use_route: follow remembered ways to places that are far away; without, head straight for them.
        use_imagination: score goal images by what the world model imagines; without, only goals whose pose is known
            can be driven to.
        arrival: when a goal is reached or missed.
        guide: when memory leads.
        recognition: when an image counts as recognised.
        keyframes: which frames are places.
        obstacles: what to keep away from.
        recovery: when the robot gets no further, and what it does then.
    """

    use_places: bool = True
    use_recognition: bool = True
    use_route: bool = True
    use_imagination: bool = True
    arrival: ArrivalSettings = field(default_factory=ArrivalSettings)
    guide: GuideSettings = field(default_factory=GuideSettings)
    recognition: RecognitionSettings = field(default_factory=RecognitionSettings)
    keyframes: KeyframesSettings = field(default_factory=KeyframesSettings)
    obstacles: ObstacleSettings = field(default_factory=ObstacleSettings)
    recovery: RecoverySettings = field(default_factory=RecoverySettings)

    @property
    def recognises(self) -> bool:
        """Whether goal images are looked for in memory."""
        return self.use_places and self.use_recognition

    @property
    def guiding(self) -> GuideSettings:
        """What the guide is told: no ways without ``use_route``."""
        return replace(self.guide, use_ways=self.guide.use_ways and self.use_route)
