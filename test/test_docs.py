"""The documentation is true: commands parse, links resolve, marked Python runs, make targets exist."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from come_nav.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def documented_commands(text: str) -> list[str]:
    """Return commands of shell blocks and of inline code, without comments."""
    lines = [
        line
        for language, block in FENCE.findall(text)
        if language in ("bash", "sh", "console")
        for line in block.splitlines()
    ]
    lines += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return [line.strip() for line in lines]


def come_nav_words(command: str) -> list[str] | None:
    """Return the words after ``come-nav``, or None for another command or a mere mention of the program."""
    words = shlex.split(command, comments=True)
    if words and words[0] == ".venv/bin/come-nav":
        words[0] = "come-nav"
    if len(words) < 2 or words[0] != "come-nav" or any(word in ("...", "<verb>") for word in words):
        return None
    return words[1:]


def examples_of(verb: str) -> list[str]:
    """Return the examples in a verb's help; an explanation is set off by two spaces."""
    module = importlib.import_module(f"come_nav.cli.{main.VERBS[verb][0]}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    lines = [line.strip() for line in (parser.epilog or "").splitlines()]
    return [re.split(r"\s{2,}", line)[0] for line in lines if line.startswith("come-nav ")]


def complaint(words: list[str], capsys: pytest.CaptureFixture[str]) -> str | None:
    """Return what the real parser says against ``words``, or None."""
    try:
        main._parse(words)
    except SystemExit as end:
        captured = capsys.readouterr()
        return None if end.code in (0, None) else captured.err.strip().splitlines()[-1]
    return None


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_on_the_page_parse(page, capsys):
    wrong = []
    for command in documented_commands(page.read_text(encoding="utf-8")):
        words = come_nav_words(command) if command.startswith(("come-nav", ".venv/bin/come-nav")) else None
        said = complaint(words, capsys) if words else None
        mention = words is not None and len(words) <= 2 and "arguments are required" in (said or "")
        if said and not mention:  # `come-nav convert` in a sentence names the verb without using it
            wrong.append(f"{command}\n    {said}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("verb", list(main.VERBS))
def test_examples_in_the_help_parse(verb, capsys):
    examples = [words for line in examples_of(verb) if (words := come_nav_words(line))]
    wrong = [f"{' '.join(words)}\n    {said}" for words in examples if (said := complaint(words, capsys))]
    assert not wrong, "\n".join(wrong)


def test_the_check_of_commands_can_fail(capsys):
    assert complaint(["doctor", "--no-such-flag"], capsys)
    assert complaint(["trajectory", "only_one.txt"], capsys)
    assert complaint(["trajectory", "a.txt", "b.txt", "--align", "se3"], capsys) is None
    assert documented_commands("```bash\ncome-nav doctor  # check\n```\nand `come-nav bag info x`") == [
        "come-nav doctor  # check",
        "come-nav bag info x",
    ]


def test_every_verb_is_documented():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    commands = [come_nav_words(command) for command in documented_commands(text) if command.startswith("come-nav")]
    assert {words[0] for words in commands if words} | {"demo"} >= set(main.VERBS)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_and_images_resolve(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    missing = [
        target
        for target in targets
        if not target.startswith(("http://", "https://", "#")) and not (page.parent / target.partition("#")[0]).exists()
    ]
    assert not missing


def anchors_of(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_anchors_resolve(page):
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        name, _, anchor = target.partition("#")
        if anchor and not target.startswith(("http://", "https://")):
            other = page.parent / name if name else page
            if anchor not in anchors_of(other.read_text(encoding="utf-8")):
                missing.append(target)
    assert not missing


def test_the_check_of_anchors_can_fail():
    assert anchors_of("# Where was `this` taken?\n```bash\n# no heading\n```\n## ATE, RPE") == {
        "where-was-this-taken",
        "ate-rpe",
    }


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    named = set()
    for command in documented_commands(page.read_text(encoding="utf-8")):
        found = re.match(r"make ([a-z]+)\b(?! \w)", command.split("#")[0].strip())
        if found:
            named.add(found.group(1))
    assert named <= targets


def test_files_that_the_pages_name_exist():
    rooms = "|".join(path.name for path in (ROOT / "come_nav").iterdir() if path.is_dir())
    missing = []
    for page in PAGES:
        for name in re.findall(
            rf"`((?:come_nav|test|config|resource|docs|benchmarks|launch|models|{rooms})/[\w./]+\.\w+)`",
            page.read_text(),
        ):
            if not (ROOT / name).exists() and not (ROOT / "come_nav" / name).exists():
                missing.append(f"{page_name(page)}: {name}")
    assert not missing


def python_blocks(condition: str) -> list[tuple[str, str]]:
    pattern = re.compile(rf"<!-- {condition} -->\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(page_name(page), code) for page in PAGES for code in pattern.findall(page.read_text(encoding="utf-8"))]


def short_id(value: str) -> str:
    return value if value.endswith(".md") else "block"


def run_python(code: str, folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("page", "code"), python_blocks("executed"), ids=short_id)
def test_marked_python_runs(page, code, tmp_path):
    run_python(code, tmp_path)


@pytest.fixture(scope="module")
def folder_with_my_bag(tmp_path_factory) -> Path:
    import math

    from come_nav.core.types import CameraIntrinsics
    from come_nav.data.bags.writer import write_bag
    from come_nav.sim.episodes import EpisodeRecording, simulate_episode
    from come_nav.sim.raycaster import Raycaster
    from come_nav.sim.worlds import generate_world

    folder = tmp_path_factory.mktemp("docs")
    world = generate_world(3)
    raycaster = Raycaster([world], CameraIntrinsics.from_field_of_view(64, 64, math.pi / 2))
    episode = simulate_episode(world, "wander", duration_s=6.0, seed=1)
    write_bag(folder / "my_bag", EpisodeRecording(episode, raycaster))
    return folder


@pytest.mark.parametrize(("page", "code"), python_blocks("executed with my_bag and models/tiny"), ids=short_id)
def test_python_that_needs_a_bag_and_the_shipped_model_runs(page, code, folder_with_my_bag):
    if not (ROOT / "models" / "tiny" / "model.safetensors").is_file():
        pytest.skip("models/tiny is not in this checkout")
    run_python(code, folder_with_my_bag)


@pytest.mark.parametrize("page", ["docs/data.md"])
def test_python_on_recordings_runs(page, folder_with_my_bag):
    for language, code in FENCE.findall((ROOT / page).read_text(encoding="utf-8")):
        if language == "python":
            run_python(code, folder_with_my_bag)


def test_metrics_and_statuses_in_the_pages_are_those_of_the_code():
    from come_nav.core.types import PlanStatus
    from come_nav.evaluation.protocols import rows

    conventions = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", conventions, flags=re.MULTILINE)) == {s.value for s in PlanStatus}
    evaluation = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for name in (rows.STAND_STILL, rows.CONSTANT_VELOCITY, rows.WORLD_MODEL, rows.PERFECT_MODEL, rows.HINDSIGHT):
        assert f"| {name} |" in evaluation


def test_the_page_of_results_is_what_the_files_say():
    program = ROOT / "docs" / "make" / "results_page.py"
    done = subprocess.run([sys.executable, str(program), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
