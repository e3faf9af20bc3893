"""Colours that people with colour-blindness can tell apart, and the same colour for the same row in every figure.

Source: Okabe and Ito, "Color Universal Design" (2008). Their yellow is left out because it vanishes on white paper.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

BLACK = "#000000"
ORANGE = "#E69F00"
SKY_BLUE = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#8A8A8A"

INK = "#1F2328"
FAINT = "#D0D7DE"
OUTLINE = "#98A2AD"

# Rows that come_nav's tables always call by these names.
KNOWN_COLOURS: dict[str, str] = {
    "truth": BLACK,
    "world model": BLUE,
    "plan": BLUE,
    "estimate": BLUE,
    "stand still": GREY,
    "constant velocity": ORANGE,
    "perfect model": GREEN,
    "best candidate in hindsight": PURPLE,
    "odometry": VERMILLION,
    "goal": VERMILLION,
    "world model, jump": BLUE,
    "world model, rollout": SKY_BLUE,
    "copy the last frame": GREY,
    "nearest context frame warped by depth": GREEN,
    "autoencoder of the truth": PURPLE,
}
_FREE_COLOURS = (BLUE, VERMILLION, SKY_BLUE, GREEN, PURPLE, ORANGE, GREY)
# A second cue beside colour, so that lines can be told apart in a grey print as well.
_DASHES = ("-", "--", "-.", ":")


def colours_for(names: Iterable[str]) -> dict[str, str]:
    """Return a hex colour per name: known rows keep theirs, others take a free one chosen by their name.

    A name gets the same colour in every figure unless that colour is taken by another row of the same figure.
    """
    wanted = list(dict.fromkeys(names))
    colours = {name: KNOWN_COLOURS[name.lower()] for name in wanted if name.lower() in KNOWN_COLOURS}
    for name in wanted:
        if name in colours:
            continue
        first = zlib.crc32(name.encode()) % len(_FREE_COLOURS)
        order = _FREE_COLOURS[first:] + _FREE_COLOURS[:first]
        taken = set(colours.values())
        colours[name] = next((colour for colour in order if colour not in taken), order[0])
    return {name: colours[name] for name in wanted}


def dashes_for(names: Iterable[str]) -> dict[str, str]:
    """Return a matplotlib line style per name, in order; the truth is always solid."""
    wanted = list(dict.fromkeys(names))
    others = [name for name in wanted if name.lower() != "truth"]
    styles = {name: _DASHES[index % len(_DASHES)] for index, name in enumerate(others)}
    return {name: styles.get(name, "-") for name in wanted}


def rgb255(colour: str) -> tuple[int, int, int]:
    """Return (red, green, blue) in 0..255 of ``#RRGGBB``."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
