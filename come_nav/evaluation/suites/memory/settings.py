"""What the memory suites are told, and all that one of their records depends on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from come_nav.core.settings import to_mapping
from come_nav.evaluation.metrics.success import SuccessSettings
from come_nav.evaluation.suites.fingerprints import model_settings
from come_nav.evaluation.suites.inputs import SourceSettings
from come_nav.evaluation.suites.memory.compositions import CompositionWeights
from come_nav.experts.lora_settings import LoraSettings
from come_nav.memory.episodic.settings import EpisodicSettings
from come_nav.memory.retrieval_settings import FrameMemorySettings
from come_nav.memory.spatial.settings import SpatialSettings
from come_nav.navigation.device import choose_device
from come_nav.navigation.settings import NavigationSettings
from come_nav.world_model.calibration.prior import LikelihoodPriorSettings
from come_nav.world_model.model import DiffusionWorldModel

RECALL, MEMORY_PLANNING = "recall", "memory-planning"
IMAGES = "decoded"  # what images of records are: results with the rendered cloud pasted in are others
Contrast = Literal["both", "on", "off"]


@dataclass(frozen=True)
class MemorySuiteSettings:
    """How a memory suite runs.

    Attributes:
        source: what is evaluated.
        weights: of the experts in each row.
        rows: that are wanted; None takes the suite's own choice of those that the model has experts for.
        policies: learned planners whose rows are there as well, of plans alone.
        sequences: memories of sequences whose rows are there as well.
        contrast: compositions with the contrast on, off or both; "both" is "on" for plans that name no rows.
        horizons_s: seconds to the farthest target (the last of them counts), of plans to the goal (one number).
        ages_s: bins (from, up to) of seconds since a target was last seen, of which as many windows each are chosen;
            empty = the suite's own choice, which is long ago.
        memory_frames: of the memory phase in built-in worlds.
        test_frames: after it; enough for some 20 windows in a world where None.
        memory_part: fractions (first, last) of a recording that are remembered.
        drift_percent: of odometry in built-in worlds.
        tilt_told: views are imagined with the camera as it truly leaned at the target, not as it leans at the start;
            of recall alone.
        rgb_only: the robot has no depth camera and its memories look at estimated depth.
        success: when a plan counts as a success.
        fresh: forget earlier results in the folder.
        report: make the HTML page.
    """

    source: SourceSettings
    weights: CompositionWeights
    rows: tuple[str, ...] | None = None
    policies: tuple[str, ...] = ()
    sequences: tuple[str, ...] = ()
    contrast: Contrast = "both"
    horizons_s: tuple[float, ...] | None = None
    ages_s: tuple[tuple[float, float], ...] = ()
    memory_frames: int | None = None
    test_frames: int | None = None
    memory_part: tuple[float, float] = (0.0, 0.6)
    drift_percent: float = 0.0
    tilt_told: bool = False
    rgb_only: bool = False
    success: SuccessSettings = field(default_factory=SuccessSettings)
    fresh: bool = False
    report: bool = True


@dataclass(frozen=True)
class MemorySettings:
    """How memories are made; ``older_frames`` before the context are what the short-term expert sees."""

    spatial: SpatialSettings = field(default_factory=SpatialSettings)
    episodic: EpisodicSettings = field(default_factory=EpisodicSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    older_frames: int = 12
    retrieval: FrameMemorySettings = field(default_factory=FrameMemorySettings)
    likelihood: LikelihoodPriorSettings = field(default_factory=LikelihoodPriorSettings)

    @classmethod
    def of(cls, navigation: NavigationSettings) -> MemorySettings:
        """Return how ``navigation`` wants memories to be made."""
        experts = navigation.experts
        return cls(
            navigation.spatial,
            navigation.episodic,
            navigation.lora,
            experts.older_frames,
            navigation.retrieval,
            experts.likelihood,
        )


def stored_settings(
    source: dict[str, Any],
    protocol: dict[str, Any],
    navigation: NavigationSettings,
    model: DiffusionWorldModel,
    weights: CompositionWeights,
) -> dict[str, Any]:
    """Return all that a record of these suites depends on."""
    return {
        "input": source,
        "protocol": protocol,
        "device": choose_device(navigation.device).partition(":")[0],
        "model": model_settings(navigation.model, model),
        "memory": to_mapping(MemorySettings.of(navigation)),
        "weights": weights.to_mapping(),
    }
