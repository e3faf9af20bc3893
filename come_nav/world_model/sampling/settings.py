"""How latents are drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from come_nav.core.checks import check_range

if TYPE_CHECKING:
    from come_nav.world_model.sampling.schedule import NoiseSchedule

SamplerName = Literal["ddpm", "ddim", "dpm++"]


@dataclass(frozen=True)
class CorrectorSettings:
    """Unadjusted Langevin (ULA) steps before each sampling step.

    Attributes:
        steps: per noise level; each costs as much as a sampling step. 0 = off.
        scale: size of a step, delta = scale * beta_t with beta_t of the visited steps. As beta_t <= 1 - abar_t, it
            stays below scale over the largest curvature of a noised density. 2 is the published choice; larger ones
            mix faster and leave more bias.
    """

    steps: int = 0
    scale: float = 2.0

    def __post_init__(self) -> None:
        check_range("sampler.corrector.steps", self.steps, 0)
        check_range("sampler.corrector.scale", self.scale, 0.0, 10.0, open_low=True)


@dataclass(frozen=True)
class ResamplingSettings:
    """Particles of a Feynman-Kac corrected product.

    Attributes:
        particles: for each answer that is asked for; multiplies the cost. 1 = off.
        threshold: particles are drawn anew when their effective number falls below this share, in [0, 1].
        clip: largest change of a log weight in one step, relative to the mean of its particles, > 0; in many
            dimensions unclipped weights leave a single particle. 15 is the published choice.
    """

    particles: int = 1
    threshold: float = 0.5
    clip: float = 15.0

    def __post_init__(self) -> None:
        check_range("sampler.resampling.particles", self.particles, 1)
        check_range("sampler.resampling.threshold", self.threshold, 0.0, 1.0)
        check_range("sampler.resampling.clip", self.clip, 0.0, open_low=True)


@dataclass(frozen=True)
class SamplerSettings:
    """Which sampler and how many steps.

    Attributes:
        name: "ddpm" (ancestral, NWM's), "ddim", or "dpm++" (DPM-Solver++ 2M, deterministic).
        steps: denoiser evaluations; 1 predicts the clean latents from pure noise at once.
        eta: noise of DDIM: 0 deterministic, 1 as much as DDPM.
        spacing: which steps of the schedule are visited: "trailing" always starts at the noisiest one (best for few
            steps), "even" is NWM's 'N', "ddim" its 'ddimN' (a whole stride from 0, never the noisiest step).
        clip_x0: predicted clean latents are limited to plus and minus this value; 0 switches it off.
        corrector: Langevin steps at every visited noise level.
        resampling: particles of a Feynman-Kac corrected product; needs many steps (50 or more) to be exact.
    """

    name: SamplerName = "ddim"
    steps: int = 4
    eta: float = 0.0
    spacing: Literal["trailing", "even", "ddim"] = "trailing"
    clip_x0: float = 0.0
    corrector: CorrectorSettings = field(default_factory=CorrectorSettings)
    resampling: ResamplingSettings = field(default_factory=ResamplingSettings)

    def __post_init__(self) -> None:
        check_range("sampler.steps", self.steps, 1)
        check_range("sampler.eta", self.eta, 0.0, 1.0)
        check_range("sampler.clip_x0", self.clip_x0, 0.0)

    def visited(self, schedule: NoiseSchedule) -> NoiseSchedule:
        """Return the part of the full ``schedule`` that is visited; a single step is always the noisiest one."""
        if self.steps == 1:
            return schedule.keep([len(schedule) - 1])
        prefix = "" if self.spacing == "even" else self.spacing
        return schedule.respaced(f"{prefix}{self.steps}")
