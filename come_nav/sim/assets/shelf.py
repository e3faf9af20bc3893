"""What each model of furniture is, by its title and size: the shelf that rooms are furnished from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from come_nav.core.errors import ConfigError
from come_nav.sim.assets.pack import AssetPack, Model

Size = tuple[float, float, float]
INDOORS = ("Living room", "Kitchen", "Bedroom", "Office", "Bathroom", "Miscellaneous", "Lights")
SMALL = "small"  # things that stand on tables


@dataclass(frozen=True)
class Rule:
    """What belongs to a kind: words of a title, words that rule it out, least and greatest width, depth, height, m."""

    words: str
    least: Size
    most: Size
    but: str = ""

    def takes(self, model: Model) -> bool:
        """Whether a model is of this kind."""
        title = model.title.lower()
        fits = all(low <= size <= high for low, size, high in zip(self.least, model.size_m, self.most, strict=True))
        named = re.search(rf"\b({self.words})", title) and not (self.but and re.search(rf"\b({self.but})", title))
        return fits and bool(named)


RULES: Mapping[str, Rule] = {
    "table": Rule("table|.*desk", (0.6, 0.5, 0.6), (2.1, 1.3, 0.95), "table tennis|table fan|bedside|coffee|.*lamp"),
    "round table": Rule("table|coffee|round|children table", (0.4, 0.35, 0.3), (1.3, 1.25, 0.8), "table fan"),
    "chair": Rule("chair|.*chair|armchair|class seat", (0.25, 0.25, 0.5), (0.85, 0.9, 1.3), "wheelchair|baby"),
    "stool": Rule(
        ".*stool|puff|.*bench|bedside|.*armchair|bar chair|trunck",
        (0.3, 0.3, 0.3),
        (1.25, 1.0, 1.1),
    ),
    "bookcase": Rule("bookcase|shelves|full bookcase|contemporary", (0.4, 0.25, 0.9), (2.6, 0.65, 2.4)),
    "cupboard": Rule(
        "wardrobe|cupboard|high cabinet|television cabinet|workbench|box|screen|dressing|desk|vanity",
        (0.5, 0.3, 1.2),
        (2.3, 0.9, 2.4),
    ),
    "chest": Rule(
        "dresser|chest|tv stand|vanity|upright piano|fireplace|radiator|drawers|safe|filing|shelves|aquarium|changing"
        "|lower cabinet",
        (0.35, 0.2, 0.4),
        (1.9, 0.85, 1.45),
    ),
    "sofa": Rule(".*sofa|.*couch|day bed", (1.3, 0.6, 0.6), (2.6, 1.65, 1.1), "opened"),
    "bed": Rule(".*bed|futon", (0.85, 1.75, 0.15), (2.1, 2.4, 2.0)),
    "plant": Rule(
        ".*plant|ficus|yucca|spathi|flowers|.*lily|bonsai|christmas tree|bamboo|orchids|tulips",
        (0.2, 0.2, 0.4),
        (1.35, 1.35, 2.1),
    ),
    "crates": Rule(
        ".*box|crate|barrel|suitcase|trunck|.*trash can|dustbin|.*basket|.*pallet|.*step ladder|extinguisher|"
        "rocking horse|gift|backpack|electric guitar|.*locker|clothes|speaker|cone|wood logs|doll house|electric water|"
        "punching|indoor bike|umbrella|safe|hanging clothes|recycling bin",
        (0.2, 0.15, 0.28),
        (1.25, 1.25, 1.7),
    ),
    "fridge": Rule(
        ".*fridge|refrigerator|.*freezer|water cooler|.*washing machine|dryer|double oven|high cabinet|large stove",
        (0.25, 0.3, 0.6),
        (1.1, 1.0, 2.2),
    ),
    "counter": Rule(
        "lower cabinet|small lower|lower corner|drawers cabinet|sink|island|large stove|.*washing|dryer|double oven",
        (0.4, 0.4, 0.7),
        (1.4, 1.3, 1.3),
    ),
    "lamp": Rule(".*lamp", (0.15, 0.15, 0.6), (0.7, 0.7, 2.0), "wall|outdoor|street|pendant|camping|track|chandelier"),
    SMALL: Rule(
        "tv|laptop|apple i|vase|bowl|flowers|tulips|.*lily|orchids|.*plant|radio|.*printer|microwave|teapot|.*lamp"
        "|toaster|mixer|speaker|teddy|clock|.*jar|.*stereo|coffee|blender|.*bottle|apples|phone|bonsai|bamboo|cactus|basketball",
        (0.08, 0.05, 0.1),
        (0.62, 0.5, 0.7),
        "floor|street|wall|outdoor",
    ),
}


def shelf_of(pack: AssetPack, half: str) -> dict[str, Sequence[Model]]:
    """Return the models of each kind in one half of a pack, in the pack's order; a kind may have none.

    Raises:
        ConfigError: where no model of that half is of any kind.
    """
    indoors = [model for model in pack.models if model.half == half and model.category in INDOORS]
    standing = [model for model in indoors if model.elevation_m <= 0.0]
    shelf: dict[str, Sequence[Model]] = {
        kind: [model for model in standing if rule.takes(model)] for kind, rule in RULES.items()
    }
    if not any(shelf.values()):
        raise ConfigError(
            f"{pack.folder}: holds no furniture of the {half} half; apt-get install sweethome3d-furniture, then "
            "come-nav assets collect"
        )
    return shelf
