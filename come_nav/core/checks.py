"""Checks of shapes, ranges and finiteness whose errors show both what was expected and what came."""

from __future__ import annotations

import math
from typing import Any

from come_nav.core.errors import ConfigError, ShapeError


def check_shape(name: str, array: Any, spec: str) -> dict[str, int]:
    """Check ``array.shape`` against ``spec`` and return the sizes bound to its letters.

    ``spec`` is a space-separated list: a number must match, a letter binds (and must agree with itself), ``*`` is
    free, a leading ``...`` allows any number of leading axes. Example: ``check_shape("rgb", rgb, "H W 3")``.

    Raises:
        ShapeError: naming the array, the spec and the shape that came.
    """
    shape = tuple(int(size) for size in array.shape)
    tokens = spec.split()
    sizes = shape
    if tokens and tokens[0] == "...":
        tokens = tokens[1:]
        sizes = shape[len(shape) - len(tokens) :] if len(shape) >= len(tokens) else shape
    bound: dict[str, int] = {}
    matches = len(sizes) == len(tokens)
    if matches:
        for token, size in zip(tokens, sizes, strict=True):
            if token == "*":
                continue
            wanted = int(token) if token.isdigit() else bound.setdefault(token, size)
            matches = matches and wanted == size
    if not matches:
        raise ShapeError(f"{name} must have shape ({spec}), got {shape}")
    return bound


def check_range(field: str, value: float, low: float, high: float = math.inf, *, open_low: bool = False) -> float:
    """Return ``value`` if it is finite and in [low, high] (or (low, high] with ``open_low``).

    Raises:
        ConfigError: naming the field, the value and the rule.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not low <= value <= high or (open_low and value == low):
        bracket = "(" if open_low else "["
        rule = f"{bracket}{low:g}, {high:g}]" if math.isfinite(high) else f"{'>' if open_low else '>='} {low:g}"
        raise ConfigError(f"{field} must be {'in ' if math.isfinite(high) else ''}{rule}, got {value!r}")
    return value


def check_choice(field: str, value: str, choices: tuple[str, ...]) -> str:
    """Return ``value`` if it is one of ``choices``; raise :class:`ConfigError` with a suggestion otherwise."""
    if value not in choices:
        from come_nav.core.errors import suggest

        raise ConfigError(f"{field} must be one of {', '.join(choices)}, got '{value}'{suggest(str(value), choices)}")
    return value
