"""One look for all figures, through matplotlib's object API: no pyplot, no global state, no display."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

from come_nav.viz.palette import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
Place = Literal["upper right", "upper left"]


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty white figure that lays itself out; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes, x_label: str = "", y_label: str = "", title: str = "") -> None:
    """Label the axes (with units) and quieten frame, ticks and grid."""
    axes.set_xlabel(x_label, color=INK, fontsize=9)
    axes.set_ylabel(y_label, color=INK, fontsize=9)
    if title:
        axes.set_title(title, color=INK, fontsize=10, loc="left")
    axes.tick_params(colors=INK, labelsize=8, length=3)
    axes.grid(True, color=FAINT, linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def add_legend(axes: Axes, columns: int = 1, outside: bool = False, place: Place = "upper right") -> None:
    """Add a quiet legend at ``place`` when something is labelled; ``outside`` puts it below the axes."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    if outside:
        figure = axes.get_figure()
        assert figure is not None
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
        return
    axes.legend(handles, labels, loc=place, fontsize=8, ncols=columns, frameon=True, framealpha=0.85, edgecolor=FAINT)


def png_bytes(figure: Figure) -> bytes:
    """Render ``figure``; the same figure gives the same bytes (no date or version inside)."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
