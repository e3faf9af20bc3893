"""Sets of worlds by name: the same buildings, drawn with other settings, and mazes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from come_nav.core.checks import check_choice
from come_nav.sim.worlds import WorldSettings

BUILT_IN, MAZE = "built-in", "maze"
_LIVELY = WorldSettings(visit=1, moved=0.6, light_change=0.3, door_leaves=True, people=3)
WORLD_SETS: Mapping[str, WorldSettings] = {
    BUILT_IN: WorldSettings(),
    "photographed": WorldSettings(photographed=True),
    "lively": _LIVELY,
    "photographed-lively": replace(_LIVELY, photographed=True),
    "furnished": WorldSettings(photographed=True, furnished=True),
    "furnished-lively": replace(_LIVELY, photographed=True, furnished=True),
    MAZE: WorldSettings(kind="maze"),
}


def world_set(name: str | None) -> WorldSettings:
    """Return the settings of a set of worlds, the built-in one where None; raise ConfigError for an unknown name."""
    return WORLD_SETS[check_choice("set of worlds", name or BUILT_IN, tuple(WORLD_SETS))]
