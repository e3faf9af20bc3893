"""How an episode is memorised."""

from __future__ import annotations

from dataclasses import dataclass

from come_nav.core.checks import check_range


@dataclass(frozen=True)
class EpisodicSettings:
    """How an episode is memorised.

    Attributes:
        context_frames: frames of a window's context, those of the model.
        reach: largest distance of a window's target from its newest context frame, frames.
        batch_size: windows in one step.
        learning_rate: of AdamW, constant.
        weight_decay: of AdamW.
        clip_norm: largest norm of a step's gradient.
        steps_per_frame: training steps that a frame is worth; 2 to 3 in the published method.
        round_steps: steps after which the adapter is published.
        recent_frames: train on the newest so many frames, 0 = on the whole episode.
        capacity: most frames kept; the oldest go first.
        max_gap_s: frames further apart than this do not form one window.
        max_rejected: steps in a row that may fail before training stops until the next reset.
        seed: of windows, noise levels and noise.
    """

    context_frames: int = 4
    reach: int = 20
    batch_size: int = 16
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    steps_per_frame: float = 2.5
    round_steps: int = 25
    recent_frames: int = 0
    capacity: int = 4096
    max_gap_s: float = 1.0
    max_rejected: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("context_frames", "reach", "batch_size", "round_steps", "capacity", "max_rejected"):
            check_range(f"episodic.{name}", getattr(self, name), 1)
        for name in ("learning_rate", "clip_norm", "steps_per_frame", "max_gap_s"):
            check_range(f"episodic.{name}", getattr(self, name), 0.0, open_low=True)
        for name in ("weight_decay", "recent_frames", "seed"):
            check_range(f"episodic.{name}", getattr(self, name), 0)


@dataclass(frozen=True)
class BudgetSettings:
    """How much of the machine the training may take.

    Attributes:
        steps_per_s: most training steps per second of real time; unused ones are not saved up.
        idle_s: pause before looking again where nothing is due, s.
        nice: how much the training thread steps back behind others on the processor, 0 to 19 (Linux).
    """

    steps_per_s: float = 10.0
    idle_s: float = 0.05
    nice: int = 5

    def __post_init__(self) -> None:
        check_range("episodic.budget.steps_per_s", self.steps_per_s, 0.0, open_low=True)
        check_range("episodic.budget.idle_s", self.idle_s, 0.0, open_low=True)
        check_range("episodic.budget.nice", self.nice, 0, 19)
