"""What a goal's image registers to, and how each row does where it does and where it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from come_nav.evaluation.metrics.statistics import Interval
from come_nav.evaluation.protocols.results import Record
from come_nav.evaluation.protocols.rows import REGISTRATION

REGISTERED_TO = {"newest frames": "context", "key frame": "memory", "nothing": "not at all"}
PART_METRICS = ("ate_m", "rpe_m")
Ratios = dict[tuple[str, str], Interval]


@dataclass(frozen=True)
class RegistrationPart:
    """The windows whose goals register to one thing.

    Attributes:
        windows: how many they are.
        rows: row -> mean ``ate_m`` and ``rpe_m``.
        ratios: ``ate_m`` and ``rpe_m`` -> (row, reference row) -> mean of the row over that of the other, paired.
    """

    windows: int
    rows: dict[str, dict[str, Interval]]
    ratios: dict[str, Ratios]

    def to_mapping(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {
            "windows": self.windows,
            "rows": {row: {name: asdict(own) for name, own in found.items()} for row, found in self.rows.items()},
            "ratios": [
                {"row": row, "reference": reference}
                | {metric: asdict(self.ratios[metric][row, reference]) for metric in PART_METRICS}
                for row, reference in self.ratios[PART_METRICS[0]]
            ],
        }


Split = dict[str, RegistrationPart]


def by_registration(records: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, list[Record]]]:
    """Return what the goal registers to -> row -> records of those windows; empty without the row that registers."""
    told = {(own["recording"], own["start"]): own.get("registered_to") for own in records.get(REGISTRATION, ())}
    found = {
        words: {
            row: [record for record in own if told.get((record["recording"], record["start"])) == name]
            for row, own in records.items()
        }
        for name, words in REGISTERED_TO.items()
    }
    return {words: rows for words, rows in found.items() if rows.get(REGISTRATION)}
