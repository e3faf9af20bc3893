"""Experts that show a network more than the base's context does: a longer past, or the spatial memory.

The network's extra channels take a view from the target's pose (see :mod:`come_nav.world_model.reprojection`). What the
view was rendered from is the expert's memory; where the weights are the base's, all sides run as one batch.
"""

from __future__ import annotations

from come_nav.core.errors import ConfigError
from come_nav.core.types import ViewSource
from come_nav.experts.base import BaseExpert
from come_nav.experts.passes import Condition, Pass, PassExpert


class ViewExpert(PassExpert):
    """Contrast of one view against another pass.

    Args:
        network: looks at the view; shared, not copied. Must have extra channels.
        view: what the memory's view is rendered from.
        without: the side without the memory.

    Raises:
        ConfigError: for a network that looks at no views.
    """

    def __init__(self, network: BaseExpert, view: ViewSource, without: Pass) -> None:
        if not network.model.settings.extra_channels:
            raise ConfigError(f"an expert of {view.value} needs a base with extra channels: train one with depth_model")
        self.network, self.view, self.without = network, view, without

    @property
    def schedule_digest(self) -> str | None:
        """The network's."""
        return self.network.schedule_digest

    def shared_passes(self) -> tuple[Pass, Pass]:
        """Return the passes with the memory's view and without it."""
        return Pass(self.network, Condition(view=self.view)), self.without


def short_term_expert(base: BaseExpert) -> ViewExpert:
    """Return the expert of a longer context: eps_bar knows no context at all (CoME, short-term memory).

    Its cost does not grow with the square of the context: older frames are points in one view, not tokens.
    """
    return ViewExpert(base, ViewSource.LONGER, Pass(base, Condition(context=False)))


def spatial_expert(base: BaseExpert, tuned: BaseExpert) -> ViewExpert:
    """Return the expert of the spatial memory: eps_bar is the base, which knows the same context (CoME, SLTM).

    ``tuned`` is the network that learned to look at memories; it may be the base itself.
    """
    return ViewExpert(tuned, ViewSource.MEMORY, Pass(base, Condition()))
