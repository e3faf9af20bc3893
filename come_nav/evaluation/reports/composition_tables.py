"""What each composition is made of: its passes, their exponents, and which rows are equal by construction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PassExponent:
    """One density of a product that is left after equal passes cancelled.

    Attributes:
        network: that is asked.
        sees: what it is told.
        exponent: of its density.
    """

    network: str
    sees: str
    exponent: float

    def __str__(self) -> str:
        return f"{self.network} ({self.sees})^{self.exponent:g}"


@dataclass(frozen=True)
class RowPasses:
    """One row of a table.

    Attributes:
        row: its name.
        passes: of its product.
        experts: how many experts it names.
        equals: the first row of the table that is the same by construction: same passes, same exponents, same images.
    """

    row: str
    passes: tuple[PassExponent, ...]
    experts: int = 1
    equals: str | None = None

    @property
    def one_pass(self) -> bool:
        """Whether it names several experts, of which fewer than two different passes are left."""
        return self.experts > 1 and len(self.passes) < 2

    @property
    def mark(self) -> str:
        """What a reader must know beside the row's name; empty where it is nothing."""
        words = ["one pass"] if self.one_pass else []
        words += [] if self.equals is None else [f"= {self.equals}"]
        return f"[{', '.join(words)}]" if words else ""

    def to_mapping(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "row": self.row,
            "passes": [{"network": own.network, "sees": own.sees, "exponent": own.exponent} for own in self.passes],
            "one_pass": self.one_pass,
            "equals": self.equals,
        }


def marks_of(rows: Sequence[RowPasses]) -> dict[str, str]:
    """Return row -> mark, of the rows that have one."""
    return {row.row: row.mark for row in rows if row.mark}


def marked(row: str, marks: Mapping[str, str]) -> str:
    """Return a row's name with its mark."""
    return f"{row} {marks[row]}" if row in marks else row


def marked_lines(
    lines: tuple[list[str], list[list[str]]], marks: Mapping[str, str]
) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of a table whose first column holds names of rows, with their marks."""
    header, cells = lines
    return header, [[marked(line[0], marks), *line[1:]] for line in cells]


def pass_lines(rows: Sequence[RowPasses]) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells: each row's passes with their exponents, and its mark."""
    lines = [[row.row, " * ".join(map(str, row.passes)), row.mark.strip("[]")] for row in rows]
    return ["composition", "passes (what they see)^exponent", "note"], lines
