"""The one configuration: the rooms' settings side by side, in four layers.

The classes' defaults, over them what was tuned to the model (the ``navigation`` section in its folder), over that a
YAML file, over that single keys (``--set planner.samples=60``). ``describe`` prints every key with its explanation,
taken from the settings' docstrings, so that the two never differ.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from come_nav.core.errors import ConfigError
from come_nav.core.resources import find_resource
from come_nav.core.settings import (
    field_explanations,
    from_mapping,
    leaf_keys,
    merged,
    nested,
    read_yaml,
    set_key,
    to_mapping,
)
from come_nav.navigation.model_settings import model_section
from come_nav.navigation.settings import NavigationSettings
from come_nav.planning.follower import FollowerSettings

# what a newcomer sets, in the order of ``config show``
BASIC = (
    "model",
    "device",
    "seed",
    "max_sensor_age_s",
    "experts.use",
    "robot.kinematics",
    "planner.horizon_steps",
    "planner.dt_s",
    "planner.time_limit_s",
    "planner.limits.v_min_mps",
    "planner.limits.v_max_mps",
    "planner.limits.w_max_radps",
    "follower.limits.v_max_mps",
    "follower.limits.w_max_radps",
    "objective.view_weight",
    "objective.pose_weight",
    "objective.yaw_weight",
    "objective.smoothness_weight",
    "objective.clearance_weight",
)


@dataclass(frozen=True)
class Config(NavigationSettings):
    """Everything that a command or a node can be told.

    Attributes:
        follower: how a plan is driven.
    """

    follower: FollowerSettings = field(default_factory=FollowerSettings)


# keys of version 0.1, which still read
RENAMED = {"objective.haste": "objective.path_cost_fraction"}


@dataclass(frozen=True)
class Layers:
    """A configuration and where its values come from.

    Attributes:
        config: the result.
        from_model: dotted keys whose values are the model's own, and which nothing overrides.
        given: dotted keys that the file or the overrides name.
    """

    config: Config
    from_model: frozenset[str]
    given: frozenset[str]


def load_config(
    path: Path | str | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    of_the_robot: Sequence[str] = (),
) -> Config:
    """Return the model's defaults, overridden by the YAML file ``path``, overridden by ``overrides``.

    Args:
        path: a file, or the name of one in config/; None = defaults alone. Keys may be nested or dotted.
        overrides: ``key=value`` words with dotted keys, e.g. ``planner.samples=60``, or a mapping of dotted keys.
        of_the_robot: such words that stand where the file says nothing of their key.

    Raises:
        ConfigError: in one line that names the file or key, the value and the rule.
    """
    return load_layers(path, overrides, of_the_robot).config


def load_layers(
    path: Path | str | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    of_the_robot: Sequence[str] = (),
) -> Layers:
    """Return what :func:`load_config` does, and which values are the model's."""
    values: dict[str, Any] = {}
    file = None
    if path is not None:
        file = find_resource("config", str(path))
        try:
            values = nested(read_yaml(file))
        except ConfigError as error:
            raise error if str(error).startswith(str(file)) else ConfigError(f"{file}: {error}") from error
        _rename(values)
    told = leaf_keys(values)
    for key, value in map(parse_override, of_the_robot):
        if key not in told:
            set_key(values, key, value)
    pairs = overrides.items() if isinstance(overrides, Mapping) else map(parse_override, overrides)
    for key, value in pairs:
        set_key(values, RENAMED.get(key, key), value)
    model = values.get("model", Config.model)
    section = model_section(model) if isinstance(model, str) else {}
    try:
        config = from_mapping(Config, merged(section, values))
    except ConfigError as error:
        raise error if file is None else ConfigError(f"{file}: {error}") from error
    given = leaf_keys(values)
    return Layers(config, frozenset(leaf_keys(section) - given), frozenset(given))


def override_words(flags: Mapping[str, Any]) -> list[str]:
    """Return the words that :func:`parse_override` reads as exactly these plain values; None is left out."""
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in flags.items() if value is not None]


def parse_override(word: str) -> tuple[str, Any]:
    """Split ``planner.samples=60`` into the dotted key and its value, which is read as YAML."""
    import yaml

    key, equals, text = word.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"an override must look like planner.samples=60, got '{word}'")
    try:
        return key.strip(), yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a date that is none is a ValueError
        raise ConfigError(f"value of override '{word}' is not valid YAML") from error


def describe(config: Config, from_model: Collection[str] = (), *, basic_alone: bool = False) -> str:
    """Return the configuration as YAML in which every key carries its explanation as a comment.

    Args:
        config: what to print; the text reads back as the same.
        from_model: dotted keys that are marked as the model's own values.
        basic_alone: print what a newcomer sets, without the rest.
    """
    mark = f"  # from the model {config.model}"
    lines = ["# basic settings"]
    for key in BASIC:
        value, explanation = _one(config, key)
        lines += [f"# {line}" for line in explanation]
        lines.append(f"{key}: {_yaml_scalar(value)}{mark if key in from_model else ''}")
    if not basic_alone:
        lines += ["", "# expert settings"]
        lines += _described(config, "", dict.fromkeys(from_model, mark))
    return "\n".join(lines) + "\n"


def _rename(values: dict[str, Any]) -> None:
    """Give keys of version 0.1 their present names, in place."""
    for old, new in RENAMED.items():
        *sections, name = old.split(".")
        found: Any = values
        for section in sections:
            found = found.get(section) if isinstance(found, dict) else None
        if isinstance(found, dict) and name in found:
            set_key(values, new, found.pop(name))


def _one(config: Config, dotted_key: str) -> tuple[Any, list[str]]:
    """Return value and explanation of one key."""
    *parents, name = dotted_key.split(".")
    settings: Any = config
    for parent in parents:
        settings = getattr(settings, parent)
    return to_mapping(settings)[name], field_explanations(type(settings)).get(name, [])


def _described(settings: Any, prefix: str, marks: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of all keys that are not basic ones."""
    explanations = field_explanations(type(settings))
    margin = "  " * prefix.count(".")
    for item in dataclasses.fields(settings):
        key, value = f"{prefix}{item.name}", getattr(settings, item.name)
        lines = [f"{margin}# {line}" for line in explanations.get(item.name, [])]
        if dataclasses.is_dataclass(value):
            inner = list(_described(value, f"{key}.", marks))
            if inner:
                yield from [*lines, f"{margin}{item.name}:", *inner]
        elif key not in BASIC:
            yield from lines
            yield f"{margin}{item.name}: {_yaml_scalar(to_mapping(settings)[item.name])}{marks.get(key, '')}"


def _yaml_scalar(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")
