"""Writes docs/results.md from benchmarks/results: every figure of the documentation comes from a file of a run.

python docs/make/results_page.py          write docs/results.md
python docs/make/results_page.py --check  exit status 1 where the page is not what the files say
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from composition_sections import COMPOSITIONS
from cost_sections import COSTS, ROBOTS
from drive_sections import DRIVES
from memory_sections import MEMORIES
from model_sections import MODELS, TRAINING
from plan_sections import PLANS
from recording_sections import REAL_ROOMS
from sections import Section, Table

ROOT = Path(__file__).resolve().parents[2]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "results.md"
HEAD = """# Results

<!-- written by docs/make/results_page.py from benchmarks/results; do not edit -->

Every table is made from a file in `benchmarks/results/`, which also holds the settings, the windows and the machine.
Means carry a 95 % bootstrap interval over worlds or recordings. All of it ran on two CPU cores; nothing ran on CUDA, on
a real robot, with official Navigation World Models weights, in Habitat or in Gazebo.

On recordings, rows of `tiny` and those beside policies that look at a spatial memory were told that all it shows is new
(ages of zero). With true ages, as in the tables of `small`, recall differs by at most 0.005 dB and plans of 2 s by
-0.002 m in the kitchen and +0.016 m around the cabinet (12 windows).

The preset `ideal-64` is a camera of 64 x 64 pixels and 90 degrees, 0.5 m high and level, true depth and odometry
without noise, unless a row says how it drifts; contexts look at estimated depth (`--depth estimated`). "base" is this
project's small network, which sees rendered views of its context; it is not the class of Navigation World Models. CoME
is the composition of all experts."""
SECTIONS = (
    *PLANS,
    *REAL_ROOMS,
    *MODELS,
    *DRIVES,
    *COMPOSITIONS,
    *COSTS,
    *MEMORIES,
    *ROBOTS,
    *TRAINING,
)


def table_lines(table: Table) -> list[str]:
    """Return a Markdown table."""
    header, rows = table
    cells = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in cells]


def renamed(section: Section, table: Table) -> Table:
    """Return a table with present names in its header and its first column."""
    header, rows = table
    return [section.named(cell) for cell in header], [[section.named(row[0]), *row[1:]] for row in rows]


def earlier_weights(result: dict[str, Any]) -> str:
    """Say that a result is of other weights than those that ship under the model's name now; empty where it is not."""
    settings = result.get("settings")
    model = settings.get("model") if isinstance(settings, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("sha256"), str):
        return ""
    folder = ROOT / "models" / Path(str(model.get("name", ""))).name
    if not (folder / "config.yaml").is_file():
        return ""
    shipped = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["weights_sha256"]
    if model["sha256"] == shipped:
        return ""
    return f". By earlier weights of `{folder.name}`, {model['sha256'][:8]}."


def section_lines(section: Section, result: dict[str, Any]) -> list[str]:
    """Return the lines of one section."""
    command = f"`{section.command}` (`{section.file}`){earlier_weights(result)}"
    lines = ["", f"## {section.heading}", "", section.text, "", command]
    for table in section.tables(result):
        if table[1]:
            lines += ["", *table_lines(renamed(section, table))]
    return lines


def page() -> str:
    """Return the whole page; sections whose file is absent are left out."""
    lines = [HEAD.rstrip()]
    for section in SECTIONS:
        path = RESULTS / section.file
        if path.is_file():
            lines += section_lines(section, json.loads(path.read_text(encoding="utf-8")))
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    args = parser.parse_args(arguments)
    text = page()
    if args.check:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        print(
            "docs/results.md is what the files say"
            if same
            else "docs/results.md is stale: run docs/make/results_page.py"
        )
        return 0 if same else 1
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
