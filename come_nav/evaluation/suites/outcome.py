"""What a suite hands back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from come_nav.evaluation.suites.inputs import Input

EvaluationT = TypeVar("EvaluationT")


@dataclass(frozen=True)
class Outcome(Generic[EvaluationT]):
    """A finished evaluation that is written.

    Attributes:
        source: what was evaluated.
        evaluation: all figures, with the rows that made them.
        folder: of its files.
        page: the HTML report, None where none was wanted.
    """

    source: Input
    evaluation: EvaluationT
    folder: Path
    page: Path | None
