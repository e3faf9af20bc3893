"""Which experts each row composes, and with which weights: the weights file of the memory suites."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from come_nav.core.errors import ConfigError, suggest
from come_nav.core.files import atomic_write_text
from come_nav.core.resources import find_resource
from come_nav.core.settings import read_yaml

# row -> experts; the names of DiffusionWorldModel.with_memory
EXPERTS: dict[str, tuple[str, ...]] = {
    "base": ("base",),
    "stm": ("short_term",),
    "ltm": ("long_term",),
    "sltm": ("spatial",),
    "base+stm": ("base", "short_term"),
    "base+ltm": ("base", "long_term"),
    "base+sltm": ("base", "spatial"),
    "stm+ltm": ("short_term", "long_term"),
    "all": ("base", "short_term", "long_term", "spatial"),
}
TITLES = {
    "base": "base",
    "stm": "STM",
    "ltm": "LTM",
    "sltm": "SLTM",
    "base+stm": "base+STM",
    "base+ltm": "base+LTM",
    "base+sltm": "base+SLTM",
    "stm+ltm": "STM+LTM",
    "all": "all (CoME)",
}
WITHOUT_CONTRAST, RENDER_BLEND = ", no contrast", ", render blend"
BLENDS = {"sltm-blend": "sltm", "all-blend": "all"}  # the same imagined views, drawn to the rendered cloud afterwards
MEMORY_NET, MEMORY_NET_TITLE = "memory-net", "memory network without memory"
CONTRAST, AVERAGE = "contrast", "average"  # sections of the weights file
BASE_NOTE = (
    "base: sees views of its context, rendered at each target from depth (measured where a frame has it, else "
    "estimated; --depth estimated: everywhere), beside the context frames; it is not of the class of NWM, which sees "
    "the frames alone"
)
BLEND_NOTE = (
    "one sampling step: images of compositions are one-step blends, the mean of what could be there, and no samples"
)
SECTION = "composition_weights"  # of a model folder's config.yaml
COMMENT = (
    "# Weights of the experts in each row of the memory suites, chosen on validation worlds alone. Give the file to\n"
    f"# --weights, or put it under {SECTION}: in the config.yaml of the model's folder.\n"
)


@dataclass(frozen=True)
class ComposedRow:
    """One row that composes experts.

    Attributes:
        key: as ``--rows`` takes it.
        contrast: whether each expert counts by its difference to its unconditional side.
        weights: by expert.
        blend: whether the rendered cloud is pasted into its images, which are not the composed sampler's own then.
    """

    key: str
    contrast: bool
    weights: Mapping[str, float]
    blend: bool = False

    @property
    def name(self) -> str:
        """Name in the table."""
        plain = len(EXPERTS[self.key]) == 1 or self.contrast
        return TITLES[self.key] + ("" if plain else WITHOUT_CONTRAST) + (RENDER_BLEND if self.blend else "")

    @property
    def mode(self) -> Literal["normalised", "average"]:
        """Mode of the composition; one expert of weight 1 alone is its own prediction in either."""
        return "normalised" if self.contrast and len(EXPERTS[self.key]) > 1 else "average"

    @property
    def counting(self) -> dict[str, float]:
        """Experts whose weight is not zero; those of weight zero are neither trained nor asked."""
        return {name: weight for name, weight in self.weights.items() if weight != 0.0}


@dataclass(frozen=True)
class CompositionWeights:
    """Weights by section, row and expert; rows that a file does not name have weight 1 for every expert."""

    sections: Mapping[str, Mapping[str, Mapping[str, float]]]

    def composed_row(self, key: str, contrast: bool) -> ComposedRow:
        """Return the row ``key`` with its weights."""
        given = self.sections.get(CONTRAST if contrast else AVERAGE, {}).get(key, {})
        return ComposedRow(key, contrast, {name: given.get(name, 1.0) for name in EXPERTS[key]})

    def compositions(self, wanted: Collection[str], contrast: str = "both") -> list[ComposedRow]:
        """Return the base and the rows that are ``wanted``, in the order of the table.

        Where there are several experts, with the contrast on, off or both; those of BLENDS follow the rows whose
        images they change.
        """
        blended = {BLENDS[key] for key in wanted if key in BLENDS}
        found = []
        for key in TITLES:
            alone = len(EXPERTS[key]) == 1
            rows = [self.composed_row(key, True)] if alone or contrast != "off" else []
            rows += [] if alone or contrast == "on" else [self.composed_row(key, False)]
            found += rows if key in wanted or key == "base" else []
            found += [replace(row, blend=True) for row in rows] if key in blended else []
        return found

    def to_mapping(self) -> dict[str, Any]:
        """Return all weights, those that are 1 because nothing else is said included."""
        keys = [key for key, experts in EXPERTS.items() if len(experts) > 1]
        return {
            section: {key: dict(self.composed_row(key, section == CONTRAST).weights) for key in keys}
            for section in (CONTRAST, AVERAGE)
        }


def read_weights(path: Path) -> CompositionWeights:
    """Read a weights file.

    Raises:
        ConfigError: for an unknown section, row or expert, or a weight that is no finite number.
    """
    return _checked_weights(path, read_yaml(path))


def model_weights(folder: Path) -> CompositionWeights:
    """Return the weights that a model folder's config.yaml gives; 1 each where it gives none. Raises ConfigError."""
    path = folder / "config.yaml"
    content = read_yaml(path).get(SECTION)
    return CompositionWeights({}) if content is None else _checked_weights(path, _mapping(path, SECTION, content))


def find_weights(weights: str | None, model: str) -> CompositionWeights:
    """Return the weights of the file ``weights``, or where none is named those of the model (a name or a folder).

    Raises:
        ConfigError: naming the file and the rule.
    """
    if weights is None:
        return model_weights(find_resource("models", model))
    if Path(weights).stem == "memory_weights" and not Path(weights).expanduser().is_file():
        raise ConfigError(
            f"--weights {weights}: the weights of a model are in its own config.yaml now; leave --weights out"
        )
    return read_weights(find_resource("config", weights))


def _checked_weights(path: Path, content: Mapping[str, Any]) -> CompositionWeights:
    for section, rows in content.items():
        _known(path, "section", section, (CONTRAST, AVERAGE))
        for key, weights in _mapping(path, section, rows).items():
            _known(path, f"row of {section}", key, tuple(key for key, own in EXPERTS.items() if len(own) > 1))
            for name, weight in _mapping(path, f"{section}.{key}", weights).items():
                _known(path, f"expert of {key}", name, EXPERTS[key])
                number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
                if not number or not np.isfinite(weight):
                    raise ConfigError(f"{path}: {section}.{key}.{name} must be a finite number, got {weight!r}")
            if section == AVERAGE and sum(weights.get(name, 1.0) for name in EXPERTS[key]) <= 0.0:
                raise ConfigError(f"{path}: {section}.{key}: the weights of an average must have a sum above 0")
    return CompositionWeights(content)


def write_weights(path: Path, weights: CompositionWeights, comment: str) -> None:
    """Write a weights file with ``comment`` lines on top."""
    import yaml

    lines = "".join(f"# {line}\n" for line in comment.splitlines())
    atomic_write_text(path, COMMENT + lines + yaml.safe_dump(weights.to_mapping(), sort_keys=False))


def main_row(compositions: Sequence[ComposedRow]) -> str:
    """Return the row that a report shows: the full composition, or the last one there is."""
    own = [row for row in compositions if not row.blend]
    return next((row.name for row in own if row.key == "all" and row.contrast), own[-1].name)


def base_row(compositions: Sequence[ComposedRow]) -> str:
    """Return the row of the base alone, which all others are compared with."""
    return next(composed_row.name for composed_row in compositions if composed_row.key == "base")


def sampling_notes(steps: int) -> list[str]:
    """Return what must be said of images that are drawn in so many ``steps``."""
    return [BLEND_NOTE] if steps == 1 else []


def base_notes(views: bool) -> list[str]:
    """Return what must be said of the row "base" where it looks at ``views``."""
    return [BASE_NOTE] if views else []


def weight_lines(compositions: list[ComposedRow]) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells of the weights in use."""
    names = EXPERTS["all"]
    lines = [
        [composed_row.name, *(f"{composed_row.weights[n]:g}" if n in composed_row.weights else "" for n in names)]
        for composed_row in compositions
    ]
    return ["weights", *names], lines


def _known(path: Path, what: str, name: Any, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ConfigError(f"{path}: unknown {what} '{name}'{suggest(str(name), known)}")


def _mapping(path: Path, where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: {where} must be a mapping, got {value!r}")
    return value
