"""The one configuration: the rooms' settings side by side, a YAML file over their defaults, single keys over both.

``Config()`` is complete; a file or ``--set planner.samples=60`` overrides single keys. ``describe`` prints every key
with its explanation, taken from the settings' docstrings, so that the two never differ.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from come_nav.core.errors import ConfigError
from come_nav.core.resources import find_resource
from come_nav.core.settings import from_mapping, read_yaml, to_mapping
from come_nav.navigation.settings import NavigationSettings
from come_nav.planning.follower import FollowerSettings


@dataclass(frozen=True)
class Config(NavigationSettings):
    """Everything that a command or a node can be told.

    Attributes:
        follower: how a plan is driven.
    """

    follower: FollowerSettings = field(default_factory=FollowerSettings)


# keys of version 0.1, which still read
RENAMED = {"objective.haste": "objective.path_cost_fraction"}


def _rename(values: dict[str, Any]) -> None:
    """Give keys of version 0.1 their present names, in place."""
    for old, new in RENAMED.items():
        *sections, name = old.split(".")
        found: Any = values
        for section in sections:
            found = found.get(section) if isinstance(found, dict) else None
        if isinstance(found, dict) and name in found:
            _set(values, new, found.pop(name))


def load_config(path: Path | str | None = None, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Return the defaults, overridden by the YAML file ``path``, overridden by ``overrides``.

    Args:
        path: a file, or the name of one in config/; None = defaults alone.
        overrides: ``key=value`` words with dotted keys, e.g. ``planner.samples=60``, or a mapping of dotted keys.

    Raises:
        ConfigError: in one line that names the file or key, the value and the rule.
    """
    values: dict[str, Any] = {}
    file = None
    if path is not None:
        file = find_resource("config", str(path))
        values = read_yaml(file)
        _rename(values)
    pairs = overrides.items() if isinstance(overrides, Mapping) else map(parse_override, overrides)
    for key, value in pairs:
        _set(values, RENAMED.get(key, key), value)
    try:
        return from_mapping(Config, values)
    except ConfigError as error:
        raise error if file is None else ConfigError(f"{file}: {error}") from error


def parse_override(word: str) -> tuple[str, Any]:
    """Split ``planner.samples=60`` into the dotted key and its value, which is read as YAML."""
    import yaml

    key, equals, text = word.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"an override must look like planner.samples=60, got '{word}'")
    try:
        return key.strip(), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"value of override '{word}' is not valid YAML") from error


def describe(config: Config) -> str:
    """Return the configuration as YAML in which every key carries its explanation as a comment."""
    return "\n".join(_described(config, indent=0)) + "\n"


def _set(values: dict[str, Any], dotted_key: str, value: Any) -> None:
    *parents, last = dotted_key.split(".")
    for depth, parent in enumerate(parents):
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise ConfigError(f"cannot set '{dotted_key}': '{'.'.join(parents[: depth + 1])}' is a single value")
    values[last] = value


def _described(settings: Any, indent: int) -> Iterator[str]:
    explanations = field_explanations(type(settings))
    margin = "  " * indent
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        for line in explanations.get(item.name, []):
            yield f"{margin}# {line}"
        if dataclasses.is_dataclass(value):
            yield f"{margin}{item.name}:"
            yield from _described(value, indent + 1)
        else:
            yield f"{margin}{item.name}: {_yaml_scalar(to_mapping(settings)[item.name])}"


def field_explanations(cls: type) -> dict[str, list[str]]:
    """Return field -> lines of its explanation, from the ``Attributes:`` part of the class's docstring."""
    explanations: dict[str, list[str]] = {}
    for base in reversed(cls.__mro__[1:-1]):
        explanations |= field_explanations(base)
    _, _, attributes = (cls.__doc__ or "").partition("Attributes:\n")
    names: list[str] = []
    for line in attributes.splitlines():
        start = re.match(r" {8}(\w[\w, ]*): (.+)", line)
        if start:
            names = [name.strip() for name in start.group(1).split(",")]
            for name in names:
                explanations[name] = [start.group(2).strip()]
        elif line.startswith(" " * 12) and names:
            for name in names:
                explanations[name].append(line.strip())
        elif line.strip():
            break
    return explanations


def _yaml_scalar(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")
