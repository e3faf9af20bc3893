"""What a section of the page of results is, and how figures are written in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Rows = list[list[str]]
Table = tuple[list[str], Rows]
EVALUATE = "come-nav evaluate --depth estimated --suite"


@dataclass(frozen=True)
class Section:
    """One table of the page: the file it is made from, its heading, what it shows and how it is read."""

    file: str
    heading: str
    text: str
    command: str
    tables: Callable[[dict[str, Any]], Sequence[Table]]
    blended: bool = False  # rows with the spatial expert show the render blend

    def named(self, cell: str) -> str:
        """Return a row's present name: files keep the names of their time."""
        if self.blended and ("SLTM" in cell or "CoME" in cell) and not cell.startswith("PSNR"):
            cell = f"{cell}, render blend"
        return cell.replace("base (NWM)", "base")


def interval(value: dict[str, Any], digits: int = 3) -> str:
    """Return a mean with its interval."""
    return f"{value['value']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"
