"""Dataclass settings: defaults live in the class, YAML only overrides, and every mistake names its key."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from come_nav.core.errors import ConfigError, suggest

SettingsT = TypeVar("SettingsT")


def from_mapping(cls: type[SettingsT], values: Mapping[str, Any], where: str = "") -> SettingsT:
    """Build the dataclass ``cls`` from ``values``; nested dataclasses take nested mappings.

    Args:
        cls: dataclass type; its ``__post_init__`` may raise :class:`ConfigError` for values out of range.
        values: plain mapping, as YAML gives it.
        where: prefix of the keys in messages, e.g. ``"planner."``.

    Raises:
        ConfigError: for an unknown key (with the nearest known one) or a value of the wrong kind.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where.rstrip('.') or 'configuration'} must be a mapping of keys, got {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(f"unknown key '{where}{key}'{suggest(str(key), fields)}")
        arguments[key] = _convert(hints[key], value, f"{where}{key}")
    return cls(**arguments)


def to_mapping(settings: Any) -> dict[str, Any]:
    """Return the dataclass as plain YAML-ready values (tuples become lists, paths become strings)."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    result: dict[str, Any] = plain(dataclasses.asdict(settings))
    return result


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader; a missing, unreadable or non-mapping file raises ConfigError."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or a date that is none
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{path}: not valid YAML ({first_line})") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold a mapping of keys, holds a {type(content).__name__}")
    return content


def set_key(values: dict[str, Any], dotted_key: str, value: Any) -> None:
    """Set ``planner.limits.v_max_mps`` in nested mappings, in place; raise ConfigError where a part is no mapping."""
    *parents, last = dotted_key.split(".")
    for depth, parent in enumerate(parents):
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise ConfigError(f"cannot set '{dotted_key}': '{'.'.join(parents[: depth + 1])}' is a single value")
    values[last] = value


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` with dotted keys (``planner.samples: 60``) as nested mappings, later keys over earlier ones."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        step: dict[str, Any] = {}
        set_key(step, str(key), nested(value) if isinstance(value, Mapping) else value)
        result = merged(result, step)
    return result


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested mappings of ``below`` with those of ``above`` over them; neither is changed."""
    result = {key: merged({}, value) if isinstance(value, Mapping) else value for key, value in below.items()}
    for key, value in above.items():
        present = result.get(key)
        both = merged(present if isinstance(present, Mapping) else {}, value) if isinstance(value, Mapping) else value
        result[key] = both
    return result


def leaf_keys(values: Mapping[str, Any], prefix: str = "") -> set[str]:
    """Return the dotted keys of all single values in nested mappings."""
    found: set[str] = set()
    for key, value in values.items():
        found |= leaf_keys(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}"}
    return found


def field_explanations(cls: type) -> dict[str, list[str]]:
    """Return field -> lines of its explanation, from the ``Attributes:`` part of the class's docstring and its bases'.

    Docstrings are read without their common indentation, which Python 3.13 removes and older ones keep.
    """
    explanations: dict[str, list[str]] = {}
    for base in reversed(cls.__mro__[1:-1]):
        explanations |= field_explanations(base)
    _, _, attributes = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    names: list[str] = []
    for line in attributes.splitlines():
        start = re.match(r" {4}(\w[\w, ]*): (.+)", line)
        if start:
            names = [name.strip() for name in start.group(1).split(",")]
            for name in names:
                explanations[name] = [start.group(2).strip()]
        elif line.startswith(" " * 8) and names:
            for name in names:
                explanations[name].append(line.strip())
        elif line.strip():
            break
    return explanations


def _convert(hint: Any, value: Any, key: str) -> Any:
    """Convert one YAML value to the field's type, or raise ConfigError naming the key."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        if value is None and len(options) < len(typing.get_args(hint)):
            return None
        return _convert(options[0], value, key)
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast(type, hint), value, f"{key}.")
    if origin is tuple:
        if isinstance(value, str) and typing.get_args(hint) == (str, ...):
            value = [value]  # one word stands for a list of it
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{key} must be a list, got {value!r}")
        kinds = typing.get_args(hint)
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            return tuple(_convert(kinds[0], item, key) for item in value)
        if len(kinds) != len(value):
            raise ConfigError(f"{key} must have {len(kinds)} values, got {len(value)}")
        return tuple(_convert(kind, item, key) for kind, item in zip(kinds, value, strict=True))
    if origin is typing.Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise ConfigError(f"{key} must be one of {', '.join(map(str, choices))}, got {value!r}")
        return value
    if origin in (dict, list):
        return value
    return _convert_scalar(hint, value, key)


def _convert_scalar(hint: Any, value: Any, key: str) -> Any:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads "1e-4" as a string
        try:
            return float(value)
        except ValueError:
            pass
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    if hint in (int, float, str, bool, Path):
        raise ConfigError(f"{key} must be {hint.__name__}, got {value!r}")
    return value
