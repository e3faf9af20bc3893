"""In how many windows the goal's image registered, to what, and how each row does there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from come_nav.evaluation.metrics.statistics import Interval, bootstrap_mean
from come_nav.evaluation.protocols.results import Record
from come_nav.evaluation.protocols.rows import REGISTRATION

REGISTERED_TO = {"newest frames": "context", "key frame": "memory", "nothing": "not at all"}
Split = dict[str, dict[str, Interval]]


def registration_split(
    records: Mapping[str, Sequence[Record]], seed: int, groups: Mapping[str, str] | None = None
) -> Split:
    """Return what the goal registers to -> row -> mean ATE on those windows; empty without the row that registers."""
    told = {(own["recording"], own["start"]): own.get("registered_to") for own in records.get(REGISTRATION, ())}
    split: Split = {}
    for name, words in REGISTERED_TO.items():
        for row, found in records.items():
            mine = [record for record in found if told.get((record["recording"], record["start"])) == name]
            if mine:
                values = np.array([record["ate_m"] for record in mine], np.float64)
                labels = None if groups is None else [groups[record["recording"]] for record in mine]
                split.setdefault(words, {})[row] = bootstrap_mean(values, seed, labels)
    return split
