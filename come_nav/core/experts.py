"""Names of the experts, one for each memory, and of the ways in which they are composed."""

from __future__ import annotations

from typing import Literal

BASE = "base"
SHORT_TERM = "short_term"
LONG_TERM = "long_term"
SPATIAL = "spatial"
MEMORY_EXPERTS = (SHORT_TERM, LONG_TERM, SPATIAL)
EXPERTS = (BASE, *MEMORY_EXPERTS)

CompositionMode = Literal["literal", "normalised", "average"]
