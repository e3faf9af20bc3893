"""Lines of numbers in trajectory files: what is a heading, which unit stamps have, in which order quaternions come."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError

logger = logging.getLogger(__name__)

UNITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}  # name -> decimal places
YEARS_2000_TO_2100_S = (0.94e9, 4.2e9)  # less than a factor 1000 apart, so at most one unit fits
LONGEST_STEP_S = 1000.0  # nobody records poses more slowly; such stamps are no seconds
DOUBTFUL_STEP_S = 10.0
USUAL_STEP_S = 0.1
_NAMED_UNIT = re.compile(r"^[^\[,]*\[\s*(s|ms|us|ns)\s*\]|^\W*\w*_(s|ms|us|ns)\b", re.IGNORECASE)
_QUATERNION_PART = re.compile(r"\b(?:q|quat|rot|\w*orientation)[\w.]*?[._]?([wx])\b", re.IGNORECASE)


@dataclass(frozen=True)
class NumberTable:
    """The rows of a file.

    Attributes:
        path: of the file.
        values: (N, columns), all finite.
        stamps: (N,) the words of the first column, as written.
        first_line: number of the first row's line.
        heading: the last line of words before the numbers, '' without one.
        has_commas: the columns are separated by commas.
    """

    path: Path
    values: NDArray[np.float64]
    stamps: tuple[str, ...]
    first_line: int
    heading: str
    has_commas: bool

    @property
    def quaternion_order(self) -> str | None:
        """``wxyz`` or ``xyzw`` where the heading names the columns, else None."""
        parts = [part.lower() for part in _QUATERNION_PART.findall(self.heading)]
        if sorted(parts) != ["w", "x"]:
            return None
        return "wxyz" if parts[0] == "w" else "xyzw"

    def seconds(self, unit: str) -> NDArray[np.float64]:
        """Return the stamps as seconds, each the double nearest to what is written."""
        if unit == "s":
            return self.values[:, 0]
        shift = -UNITS[unit]
        return np.array([float(Decimal(word).scaleb(shift)) for word in self.stamps])


def read_numbers(path: Path) -> NumberTable:
    """Read rows of numbers; '#' starts a comment, one line of words may come before them.

    Raises:
        DataError: no text, no rows, a line that is not numbers or has another count, NaN; names the line.
    """
    rows: list[list[float]] = []
    stamps: list[str] = []
    first, heading, commas = 0, "", False
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        body, _, comment = line.partition("#")
        words = body.replace(",", " ").split()
        if not words:
            heading = heading if rows or not comment.strip() else comment
            continue
        if not rows and not first and _is_heading(words):
            first, heading = number, line
            logger.info("%s: line %d is taken as a heading: '%s'", path, number, line.strip()[:60])
            continue
        try:
            row = [_number(word) for word in words]
        except ValueError:
            raise DataError(f"{path}: line {number} is not numbers: '{line.strip()[:60]}'") from None
        if not rows:
            first, commas = number, "," in body
        elif len(row) != len(rows[0]):
            raise DataError(f"{path}: line {number} has {len(row)} columns, the lines before have {len(rows[0])}")
        if not np.isfinite(row).all():
            raise DataError(f"{path}: line {number} holds NaN or an infinite value; remove that pose")
        rows.append(row)
        stamps.append(words[0])
    if not rows:
        raise DataError(f"{path}: the file holds no poses")
    return NumberTable(path, np.array(rows, float), tuple(stamps), first, heading, commas)


def stamp_unit(table: NumberTable, setting: str = "unit") -> str:
    """Return the unit of the first column: as the heading names it, by the date that it gives, or by the usual rates.

    Args:
        table: the rows.
        setting: how the user names the unit instead; stands in notes.
    """
    named = _NAMED_UNIT.match(table.heading.strip())
    if named is not None:
        return (named.group(1) or named.group(2)).lower()
    stamps = table.values[:, 0]
    middle = float(np.median(np.abs(stamps)))
    for unit, places in UNITS.items():
        if YEARS_2000_TO_2100_S[0] <= middle / 10**places <= YEARS_2000_TO_2100_S[1] and not _too_slow(stamps, places):
            return unit
    steps = np.diff(stamps)
    steps = steps[steps > 0]
    step = float(np.median(steps)) if len(steps) else 0.0
    if step <= DOUBTFUL_STEP_S:
        return "s"
    if step <= LONGEST_STEP_S:
        logger.warning(
            "%s: poses are %g s apart if the stamps are seconds; if they are not, set %s", table.path, step, setting
        )
        return "s"
    unit = min(UNITS, key=lambda name: abs(np.log(step / 10 ** UNITS[name] / USUAL_STEP_S)))
    logger.warning(
        "%s: stamps are taken as %s (%g s apart); if that is wrong, set %s",
        *(table.path, unit, step / 10 ** UNITS[unit], setting),
    )
    return unit


def _too_slow(stamps: NDArray[np.float64], places: int) -> bool:
    """Tell whether the stamps, in that unit, are too far apart: a clock from boot in a finer unit."""
    return len(stamps) > 1 and float(np.median(np.abs(np.diff(stamps)))) / 10**places > LONGEST_STEP_S


def read_text(path: Path) -> str:
    """Return the content of a text file, in UTF-8 or UTF-16; raise DataError where it is none or cannot be read."""
    try:
        data = path.read_bytes()
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")  # what some shells of Windows write
        return data.decode("utf-16" if wide else "utf-8-sig")  # a byte order mark is no part of the first number
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file (byte {error.start}); expected lines of numbers or words") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _is_heading(words: list[str]) -> bool:
    """Tell a line of column names from a damaged pose, which still holds digits first."""
    return not any(word[0].isdigit() or word[0] in "+-." or _is_number(word) for word in words)


def _number(word: str) -> float:
    if "_" in word:  # Python reads 1_0 as 10
        raise ValueError(word)
    return float(word)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
