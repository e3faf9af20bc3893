"""Writes the parameter tables of docs/ros_topics_and_parameters.md from what the nodes declare; needs rclpy.

python docs/make/ros_parameters.py          write the tables
python docs/make/ros_parameters.py --check  exit status 1 where they are not what the nodes declare
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from come_nav.ros.camera import CAMERA_PARAMETERS
from come_nav.ros.parameters import Parameter, config_parameters
from come_nav.ros.reporting_node import COMMON
from come_nav.ros.run import NODES, node_class

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "ros_topics_and_parameters.md"
BEGIN = "<!-- written by docs/make/ros_parameters.py from what the nodes declare; do not edit -->\n"
END = "<!-- end of what is written -->\n"
ORDER = ("planner", "controller", "spatial_memory", "episodic_memory", "simulator", "bag_player")


def shown(value: Any) -> str:
    """Return a default as YAML writes it."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{value:g}"
    return json.dumps(value)


def range_of(parameter: Parameter) -> str:
    """Return the range or the choices of a parameter."""
    if parameter.choices:
        return ", ".join(parameter.choices)
    if parameter.low is None or parameter.high is None:
        return ""
    return f"{parameter.low:g} to {parameter.high:g}"


def table(heading: str, parameters: Sequence[Parameter]) -> Iterator[str]:
    """Yield the lines of one section."""
    yield from ("", f"### {heading}", "", "| parameter | default | range | meaning |", "|---|---|---|---|")
    for own in parameters:
        note = "; read at configure" if own.when == "start" else ""
        yield f"| `{own.name}` | `{shown(own.default)}` | {range_of(own)} | {own.description}{note} |"


def tables() -> str:
    """Return all tables; keys of the configuration are left to ``come-nav config show``."""
    shared = {own.name for own in config_parameters()}
    camera = {own.name for own in CAMERA_PARAMETERS}
    lines = [*table("All nodes", COMMON)]
    lookers = [name for name in ORDER if camera <= {own.name for own in node_class(name).PARAMETERS}]
    lines += table(f"Camera ({', '.join(lookers)})", CAMERA_PARAMETERS)
    for name in ORDER:
        left_out = shared | (camera if name in lookers else set())
        lines += table(name, [own for own in node_class(name).PARAMETERS if own.name not in left_out])
    return "\n".join(lines) + "\n\n"


def page() -> str:
    """Return the page with the tables of today between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + tables() + END + after


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    args = parser.parse_args(arguments)
    assert set(ORDER) == set(NODES), "a node has no table"
    text = page()
    if args.check:
        same = PAGE.read_text(encoding="utf-8") == text
        print(f"{PAGE.name} " + ("is what the nodes declare" if same else "is stale: run docs/make/ros_parameters.py"))
        return 0 if same else 1
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
