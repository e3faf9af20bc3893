"""Advice can be followed: every flag that a message names is one of the verb that can print it."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

import come_nav
from come_nav.cli.main import VERBS

ROOT = Path(come_nav.__file__).parent
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
OTHER_COMMAND = re.compile(
    r"(?:come-nav|pip|rosbag|sqlite3|ros2|colcon|apt|git) [^;]*"
)  # advice to run another command

# Whose messages these are, where a verb imports a module for something else than what can raise them.
ONLY_OF = {
    "come_nav/cli/evaluate_": {"evaluate"},  # demo gives them its own, valid words
    "come_nav/evaluation/": {"evaluate"},
    "come_nav/evaluation/metrics/": {"evaluate", "trajectory"},
    "come_nav/evaluation/protocols/trajectory_comparison.py": {"trajectory"},
    "come_nav/cli/nwm_writer.py": {"simulate"},
    "come_nav/cli/recording_flags.py": {"bag", "convert", "evaluate", "memory", "plan"},
    "come_nav/data/atomic_folder.py": {"convert", "simulate"},  # what is written
    "come_nav/data/": {"bag", "convert", "evaluate", "memory", "plan", "train"},  # recordings of the user's
    "come_nav/data/trajector": {"convert", "trajectory"},
}
# The same for single flags: (module, flag) -> verbs.
FLAG_ONLY_OF = {
    ("come_nav/cli/recording_flags.py", "--size"): {"convert"},
    ("come_nav/data/nwm/dataset.py", "--root"): {"evaluate"},
    ("come_nav/data/nwm/dataset.py", "--splits"): {"evaluate"},
}


def owners(module: str, flag: str) -> set[str]:
    """Return the verbs that can print what a module says about a flag; the longest prefix of its name decides."""
    fitting = [prefix for prefix in ONLY_OF if module.startswith(prefix)]
    of_module = ONLY_OF[max(fitting, key=len)] if fitting else set(VERBS)
    return FLAG_ONLY_OF.get((module, flag), of_module)


@cache
def parser(verb: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    importlib.import_module(f"come_nav.cli.{VERBS[verb][0]}").add_arguments(made)
    return made


@cache
def flags(verb: str) -> frozenset[str]:
    """All flags of a verb, those of its actions included."""
    found: set[str] = set()
    waiting = [parser(verb)]
    while waiting:
        for action in waiting.pop()._actions:
            found.update(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                waiting.extend(action.choices.values())
    return frozenset(found)


@cache
def imports(path: Path) -> frozenset[Path]:
    """Modules of come_nav that a file imports, also inside functions, but not for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in skipped:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found.update(file for name in names if (file := file_of(name)) is not None)
    return frozenset(found)


def file_of(module: str) -> Path | None:
    if not module.startswith("come_nav"):
        return None
    path = ROOT.parent / Path(*module.split("."))
    candidates = [path.with_suffix(".py"), path / "__init__.py"]
    return next((file for file in candidates if file.is_file()), None)


@cache
def reached(verb: str) -> frozenset[Path]:
    found: set[Path] = set()
    waiting = [ROOT / "cli" / f"{VERBS[verb][0]}.py"]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            others = {file for file in imports(path) if file.parent != ROOT / "cli" or file.stem not in VERBS}
            waiting.extend(others)
    return frozenset(found)


@cache
def told(path: Path) -> tuple[tuple[str, int], ...]:
    """Flags (and lines) in the messages of errors that a file raises, or makes: strings in calls of ...Error(...)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        is_error = isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("Error", "check_range", "check_choice")
        )
        is_note = isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("warnings.append", "notes.append"))
        is_text = isinstance(node, ast.Return)  # messages that a helper puts together
        if not (is_error or is_note or is_text):
            continue
        text = " ".join(
            inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
        )
        for flag in FLAG.findall(OTHER_COMMAND.sub("", text)):
            found.add((flag, node.lineno))
    return tuple(sorted(found))


def complaints(verb: str) -> list[str]:
    wrong = []
    for path in sorted(reached(verb)):
        name = path.relative_to(ROOT.parent).as_posix()
        if name != "come_nav/viz/report_style.py":  # style sheets, too, have names with two dashes
            unknown = [
                (flag, line) for flag, line in told(path) if flag not in flags(verb) and verb in owners(name, flag)
            ]
            wrong += [f"{name}:{line} names {flag}" for flag, line in unknown]
    return wrong


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_the_flags_that_its_messages_name(verb):
    assert not complaints(verb)


def test_the_check_can_fail(monkeypatch):
    """Without its recording flags plan would be told to set some."""
    assert any("--depth-topic" in flag for flag, _ in told(ROOT / "data" / "recording.py"))
    without = flags("plan") - {"--depth-topic"}
    monkeypatch.setattr("test_cli_flags.flags", lambda verb: without)
    assert any("--depth-topic" in line for line in complaints("plan"))


def test_every_exception_is_still_needed():
    every = {path.relative_to(ROOT.parent).as_posix(): path for path in ROOT.rglob("*.py")}
    for prefix in ONLY_OF:
        assert any(name.startswith(prefix) for name in every), prefix
    for module, flag in FLAG_ONLY_OF:
        assert flag in {named for named, _ in told(every[module])}, (module, flag)


def test_train_opens_recordings_as_its_flags_say():
    pytest.importorskip("pytorch_lightning", reason="training needs the extra [train]")
    from come_nav.cli import train

    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    words = [
        "--out",
        "x",
        "--data",
        "bag",
        "--depth-scale",
        "0.0002",
        "--camera-frame",
        "optical",
        "--time-offset",
        "2",
    ]
    opened = train._config(parser.parse_args(words), None).data.recording_flags
    assert opened == {"depth_scale_m": 0.0002, "camera_frame": "optical", "time_offset_s": 2.0}
    assert train._config(parser.parse_args(words[:4]), None).data.recording_flags == {}
