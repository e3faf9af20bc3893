"""The likelihood of a spatial memory where no gains were fitted: how far it is to be trusted."""

from __future__ import annotations

from dataclasses import dataclass

from come_nav.core.checks import check_range


@dataclass(frozen=True)
class LikelihoodPriorSettings:
    """The spatial memory as a likelihood of the clean latents, which needs no training and no network that looks at it.

    Attributes:
        use: whether it takes the place of the network that looks at the spatial memory; any model will do then.
            experts.spatial is the exponent of the likelihood.
        clean_variance: of the scaled latents around what the experts expect of them at pure noise, > 0.
        render_variance: of the scaled latents around what the memory shows of a cell that it knows, > 0.
    """

    use: bool = False
    clean_variance: float = 0.5
    render_variance: float = 0.3

    def __post_init__(self) -> None:
        for name in ("clean_variance", "render_variance"):
            check_range(f"experts.likelihood.{name}", getattr(self, name), 0.0, open_low=True)
