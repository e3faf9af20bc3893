"""What NWM's protocols are told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from come_nav.core.errors import ConfigError
from come_nav.evaluation.protocols.nwm_protocol import NwmQuirks

METRICS = ("lpips", "dreamsim", "fid", "psnr", "ssim", "latent")
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class NwmSuiteSettings:
    """How one of NWM's protocols runs.

    Attributes:
        protocol: nwm (plans), nwm-time (single jumps) or nwm-rollout.
        dataset: recon, scand, sacson (huron), tartan_drive or go_stanford.
        root: holds <dataset>/ and data_splits/.
        splits: data_splits elsewhere, e.g. in the official code.
        official_quirks: with the habits of the released code.
        cost: of imagined views: lpips, dreamsim, latent or image.
        rollout_path: what rollouts go on from.
        rollout_stride: frames per rollout step of a plan; divides its 8 frames.
        samples: candidates.
        top_k: elites.
        iterations: of the search.
        repeats: imaginations per candidate.
        prior_mean: of the first samples (x, y, turn); the data set's where None.
        prior_std: of the first samples; the data set's where None.
        seconds: of predictions, increasing.
        fps: of rollouts.
        metrics: of predictions.
        micro_batch: candidates at once; from free memory where None.
        windows: how many; the whole index where None.
        fresh: forget earlier results in the folder.
        report: make the HTML page.
    """

    protocol: str
    dataset: str
    root: Path
    splits: Path | None = None
    official_quirks: bool = False
    cost: str = "lpips"
    rollout_path: Literal["latents", "moments", "pixels"] = "latents"
    rollout_stride: int = 1
    samples: int = 120
    top_k: int = 5
    iterations: int = 1
    repeats: int = 3
    prior_mean: Vector | None = None
    prior_std: Vector | None = None
    seconds: tuple[int, ...] = (1, 2, 4, 8, 16)
    fps: int = 4
    metrics: tuple[str, ...] = METRICS
    micro_batch: int | None = None
    windows: int | None = None
    fresh: bool = False
    report: bool = True

    def __post_init__(self) -> None:
        if self.rollout_stride == 1:
            return
        if self.protocol != "nwm":
            raise ConfigError(f"--rollout-stride is for plans, --protocol {self.protocol} takes --fps instead")
        if self.official_quirks:
            raise ConfigError(
                f"--rollout-stride must be 1 with --official-quirks, got {self.rollout_stride}: published tables have "
                "stride 1; leave one of the two out"
            )

    @property
    def quirks(self) -> NwmQuirks:
        """The habits that are switched on."""
        return NwmQuirks.official() if self.official_quirks else NwmQuirks()
