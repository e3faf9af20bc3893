"""Experts that show the base's own network more than its context does: a longer past, or the spatial memory.

The network's extra channels take a view from the target's pose (see :mod:`come_nav.world_model.reprojection`). What the
view was rendered from is the expert's memory; the weights are the base's, so that all sides run as one batch.
"""

from __future__ import annotations

from torch import Tensor

from come_nav.core.errors import ConfigError
from come_nav.core.types import Context
from come_nav.experts.base import BaseExpert
from come_nav.experts.passes import LONG_VIEW, MEMORY_VIEW, Condition, Pass, Query


class ViewExpert:
    """Contrast of one view against another pass of the same network (SharingExpert protocol).

    Args:
        base: shared, not copied; must have extra channels.
        view: name of the memory's view in ``Context.extras``.
        without: the side without the memory.

    Raises:
        ConfigError: for a base that looks at no views.
    """

    def __init__(self, base: BaseExpert, view: str, without: Condition) -> None:
        if not base.model.settings.extra_channels:
            raise ConfigError(
                f"an expert of the '{view}' needs a base with extra channels; train one with a depth_model"
            )
        self.base, self.view, self.without = base, view, without

    @property
    def schedule_digest(self) -> str | None:
        """The base's."""
        return self.base.schedule_digest

    def shared_passes(self) -> tuple[Pass, Pass]:
        """Return the passes with the memory's view and without it."""
        return Pass(self.base, Condition(view=self.view)), Pass(self.base, self.without)

    def scores(
        self, x_t: Tensor, t: Tensor, context: Context, action: Tensor, rel_time: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return noise with and without the memory (see Expert)."""
        both = self.base.noises(
            [own.condition for own in self.shared_passes()], Query(x_t, t, context, action, rel_time)
        )
        return both[0], both[1]


def short_term_expert(base: BaseExpert) -> ViewExpert:
    """Return the expert of a longer context: eps_bar knows no context at all (CoME, short-term memory).

    Its cost does not grow with the square of the context: older frames are points in one view, not tokens.
    """
    return ViewExpert(base, LONG_VIEW, Condition(context=False))


def spatial_expert(base: BaseExpert) -> ViewExpert:
    """Return the expert of the spatial memory: eps_bar sees the same context without it (CoME, SLTM)."""
    return ViewExpert(base, MEMORY_VIEW, Condition())
