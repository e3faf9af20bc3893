"""Settings of a policy's training run. Defaults are the authors' where they published them; YAML only overrides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from come_nav.core.checks import check_choice, check_range
from come_nav.core.errors import ConfigError
from come_nav.core.settings import to_mapping
from come_nav.policies.settings import KINDS, PUBLISHED, PolicySettings
from come_nav.sim.world_sets import BUILT_IN, world_set
from come_nav.training.config import OptimiserSettings, RecordingFlags

DRIVERS = ("wander", "tour")
# distances, in frames, between which a goal teaches actions (configs of the authors' training)
ACTION_DISTANCES = {"gnm": (2, 10), "vint": (0, 10), "nomad": (3, 20)}
LEARNING_RATES = {"gnm": 7e-4, "vint": 5e-4, "nomad": 1e-4}
DISTANCE_WEIGHTS = {"gnm": 0.5, "vint": 0.5, "nomad": 1e-4}


@dataclass(frozen=True)
class PolicyDataSettings(RecordingFlags):
    """What a policy learns from: built-in worlds, and recordings where named.

    Attributes:
        first_world, worlds: seeds [first_world, first_world + worlds) of built-in worlds; must be training seeds.
        validation_worlds: number of worlds from seed 10000 on that measure the validation loss.
        sets_of_worlds: how they are drawn (come_nav/sim/world_sets.py), taken in turn.
        episode_s: length of each scripted drive, s.
        drivers: scripted drivers, taken in turn.
        camera_px: side of the square images of built-in worlds, before they are resized to the policy's.
        recordings: bags or folders to learn from as well.
        recording_fraction: share of samples drawn from recordings, when there are any.
        recording_use: part of each recording that is learned from, as fractions of its frames.
        recording_spacing_m: metres between frames that count as 1, for each recording; empty = as measured.
    """

    first_world: int = 0
    worlds: int = 100
    validation_worlds: int = 6
    sets_of_worlds: tuple[str, ...] = (BUILT_IN,)
    episode_s: float = 60.0
    drivers: tuple[str, ...] = DRIVERS
    camera_px: int = 64
    recordings: tuple[str, ...] = ()
    recording_fraction: float = 0.5
    recording_use: tuple[float, float] = (0.0, 1.0)
    recording_spacing_m: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("data.first_world", self.first_world, 0, 9999)
        check_range("data.worlds", self.worlds, 0, 10000 - self.first_world)
        check_range("data.validation_worlds", self.validation_worlds, 1, 100)
        check_range("data.episode_s", self.episode_s, 5.0, 3600.0)
        check_range("data.camera_px", self.camera_px, 16, 1024)
        check_range("data.recording_fraction", self.recording_fraction, 0.0, 1.0)
        if not self.drivers:
            raise ConfigError(f"data.drivers must name at least one of {', '.join(DRIVERS)}")
        for name in self.drivers:
            check_choice("data.drivers", name, DRIVERS)
        for name in self.sets_of_worlds:
            world_set(name)
        low, high = self.recording_use
        if not 0.0 <= low < high <= 1.0:
            raise ConfigError(f"data.recording_use must be fractions 0 <= first < last <= 1, got {low:g}-{high:g}")
        if self.recording_spacing_m and len(self.recording_spacing_m) != len(self.recordings):
            raise ConfigError(
                f"data.recording_spacing_m must have one number for each of {len(self.recordings)} data.recordings, "
                f"got {len(self.recording_spacing_m)}"
            )
        for spacing in self.recording_spacing_m:
            check_range("data.recording_spacing_m", spacing, 0.0, 100.0, open_low=True)
        if not self.worlds and not self.recordings:
            raise ConfigError("nothing to learn from: --data BAG, or built-in worlds with --set data.worlds=N")


@dataclass(frozen=True)
class PolicyTrainSettings:
    """One run of a policy.

    Attributes:
        name: of the exported model folder.
        seed: of everything random in the run.
        spacing_m: metres between frames that count as 1 in built-in worlds; null = the mean step of their drives.
        goal_mask_prob: share of samples without a goal (nomad).
        distance_weight: of the distance head's loss against the actions'; null = as published for the kind.
        goals_per_context: goals drawn for each context; the context's images are encoded once for all of them (nomad).
        noise_draws: of each goal's actions; more of them make the loss less noisy at little cost (nomad).
        regression_weight: of two heads that tell the waypoints and the goal's pose straight from the condition, in
            training alone; 0 = as published (nomad). Noise by itself teaches little about images, and at a high rate
            the encoders learn to answer the same to every image before they learn anything else.
        dropout: whether the networks drop activations in training, as published.
        negatives: whether a goal at distance 0 is replaced by a view from anywhere, at the largest distance.
        precision: Lightning's; "auto" is bf16-mixed on CUDA and on CPUs that multiply it (AMX, AVX512-BF16), else
            32-true.
        data: what is learned from.
        policy: the network; its spacing_m is written at the end.
        optimiser: of the one stage.
    """

    name: str = "nomad"
    seed: int = 0
    spacing_m: float | None = None
    goal_mask_prob: float = 0.5
    distance_weight: float | None = None
    goals_per_context: int = 1
    noise_draws: int = 1
    regression_weight: float = 0.0
    dropout: bool = True
    negatives: bool = True
    precision: str = "auto"
    data: PolicyDataSettings = field(default_factory=PolicyDataSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)

    def __post_init__(self) -> None:
        if self.spacing_m is not None:
            check_range("spacing_m", self.spacing_m, 0.0, 100.0, open_low=True)
        check_range("goal_mask_prob", self.goal_mask_prob, 0.0, 0.999)
        check_range("goals_per_context", self.goals_per_context, 1, 64)
        check_range("regression_weight", self.regression_weight, 0.0, 100.0)
        check_range("noise_draws", self.noise_draws, 1, 64)
        if self.distance_weight is not None:
            check_range("distance_weight", self.distance_weight, 0.0, 1.0)

    @property
    def alpha(self) -> float:
        """Weight of the distance head's loss."""
        return DISTANCE_WEIGHTS[self.policy.kind] if self.distance_weight is None else self.distance_weight


def default_values(kind: str) -> dict[str, Any]:
    """Return the mapping that a kind's configuration starts from: the published shape and learning rate."""
    check_choice("--policy", kind, KINDS)
    rate = LEARNING_RATES[kind]
    optimiser = {"steps": 20000, "batch_size": 64, "learning_rate": rate, "validate_every": 1000, "weight_decay": 0.01}
    return {"name": kind, "policy": to_mapping(PUBLISHED[kind]), "optimiser": optimiser}
