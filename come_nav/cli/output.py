"""How verbs print: results on stdout (text or one JSON document), everything else on stderr."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class Finished(Protocol):
    """An evaluation that is written.

    Attributes:
        evaluation: with ``title``, ``settings``, ``table``, ``records`` and ``facts``.
        folder: of its files.
        page: the HTML report, None without one.
    """

    @property
    def evaluation(self) -> Any: ...  # noqa: D102
    @property
    def folder(self) -> Path: ...  # noqa: D102
    @property
    def page(self) -> Path | None: ...  # noqa: D102


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``: print one JSON document on stdout instead of text."""
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout instead of text")


def print_json(document: Any) -> None:
    """Print ``document`` as one strict JSON document: NaN and infinities become null."""
    print(json.dumps(_strict(document), indent=2, default=str))


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned text table; the first column is flush left, the others flush right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        return "  ".join([first, *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))])

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


def outcome_document(outcome: Finished) -> dict[str, Any]:
    """Return all figures of an evaluation and where its files are, for ``--json``."""
    from come_nav.evaluation.reports.report import timing

    evaluation = outcome.evaluation
    return {
        "title": evaluation.title,
        "out": str(outcome.folder),
        "report": None if outcome.page is None else str(outcome.page),
        "settings": evaluation.settings,
        "table": evaluation.table.to_mapping(),
        "timing": timing(evaluation.records),
        "facts": evaluation.facts,
    }


def print_files(folder: Path, page: Path | None) -> None:
    """Print where the results are and, where there is one, the HTML page."""
    print(f"\nresults: {folder / 'results.json'}" + ("" if page is None else f"\nreport:  {page}"))


class Steps:
    """A bar on stderr with a word beside it, gone when done unless ``leave``; silent where stderr is no terminal."""

    def __init__(self, total: int, label: str, unit: str, *, leave: bool = False) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(
            total=total, desc=label, unit=unit, file=sys.stderr, disable=None, dynamic_ncols=True, leave=leave
        )

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def add(self, word: str = "", count: int = 1) -> None:
        """Count and show ``word``."""
        self._bar.set_postfix_str(word, refresh=False)
        self._bar.update(count)


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return _strict(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
