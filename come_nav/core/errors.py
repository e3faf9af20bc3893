"""Errors that a user can cause, each one line that says what is wrong and how to mend it.

Everything a user can get wrong raises a :class:`ComeNavError`; the command line prints its message and exits with
status 1. Any other exception is a defect of come_nav and keeps its traceback.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

CONTROL = re.compile(r"\s*[\x00-\x1f\x7f\x85\u2028\u2029]+\s*")


class ComeNavError(Exception):
    """Root of all expected errors. The message names the file or field, the value, the rule and the way out.

    It is one line, whatever a file or another library put into it: control characters become a blank.
    """

    def __str__(self) -> str:
        return CONTROL.sub(" ", super().__str__()).strip()


class DataError(ComeNavError):
    """A recording, trajectory or image cannot be read, or breaks a rule of its format."""


class AssociationError(DataError):
    """Two streams do not overlap in time closely enough to be matched."""


class ConfigError(ComeNavError):
    """A configuration key is unknown, or its value breaks the field's rule."""


class CheckpointError(ComeNavError):
    """A model folder is missing, incomplete, unsafe to read, or of another shape than asked for."""


class ShapeError(ComeNavError):
    """An array has another shape, dtype or range than the function's contract."""


class PlanningError(ComeNavError):
    """The planner was asked for something that it cannot search for."""


class MemoryStoreError(ComeNavError):
    """The memory folder cannot be written, or holds no valid version."""


class StorageError(ComeNavError):
    """A file could not be written: no permission, no space, or no such folder."""


class MissingDependencyError(ComeNavError):
    """An optional library is absent; the message names the extra that installs it."""

    def __init__(self, package: str, extra: str, purpose: str, otherwise: str = "") -> None:
        way_out = f"install it with  pip install 'come_nav[{extra}]'" + (f", {otherwise}" if otherwise else "")
        super().__init__(f"{purpose} needs the package '{package}': {way_out}")


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name nearest to ``name``, or the list of known names."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""
