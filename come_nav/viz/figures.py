"""Every figure under one name space; each function takes plain arrays and returns PNG bytes."""

from come_nav.viz.charts import plot_bars_with_intervals, plot_cost_by_iteration, plot_error_over_time, plot_scatter
from come_nav.viz.images import contact_sheet, difference_rgb, imagined_vs_real, png_from_rgb, rgb_from_unit
from come_nav.viz.maps import MapDrawing, plot_candidates, plot_trajectories

__all__ = [
    "MapDrawing",
    "contact_sheet",
    "difference_rgb",
    "imagined_vs_real",
    "plot_bars_with_intervals",
    "plot_candidates",
    "plot_cost_by_iteration",
    "plot_error_over_time",
    "plot_scatter",
    "plot_trajectories",
    "png_from_rgb",
    "rgb_from_unit",
]
