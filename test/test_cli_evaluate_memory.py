"""``come-nav evaluate --suite recall | memory-planning`` from end to end, weights files, and one-line errors."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from model_samples import small_model
from policy_samples import fill

from come_nav.cli.main import main
from come_nav.core.errors import ConfigError
from come_nav.evaluation.suites.memory.compositions import (
    EXPERTS,
    CompositionWeights,
    find_weights,
    read_weights,
    write_weights,
)
from come_nav.evaluation.suites.memory.weights import climb
from come_nav.policies.model import LearnedPolicy, make_network
from come_nav.policies.settings import published

SMALL = ["--device", "cpu", "--memory-frames", "100", "--test-frames", "90", "--horizon", "6", "--windows", "3"]
SMALL += ["--set", "lora.rank=2", "--set", "episodic.steps_per_frame=0.02", "--set", "episodic.batch_size=2"]
WORLD = ["evaluate", "--worlds", "10003", *SMALL]


def document(capsys, *words) -> dict:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def rows_of(result: dict) -> dict[str, dict]:
    return {line["row"]: line for line in result["table"]["rows"] if line.get("part", "all") == "all"}


def error_of(capsys, *words) -> str:
    assert main(list(words)) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_recall_from_end_to_end_and_again(tmp_path, capsys):
    words = [*WORLD, "--suite", "recall", "--out", str(tmp_path), "--contrast", "on"]
    words += ["--rows", "copy,nearest,geometry,base,ltm,sltm,sltm-blend,all"]
    result = document(capsys, *words)
    rows = rows_of(result)
    assert list(rows) == [
        "copy the last frame",
        "nearest remembered frame",
        "geometry only",
        "base",
        "LTM",
        "SLTM",
        "SLTM, render blend",
        "all (CoME)",
    ]
    assert rows["SLTM, render blend"]["psnr_db"]["value"] != rows["SLTM"]["psnr_db"]["value"]
    assert rows["all (CoME)"]["psnr_db"] == rows["SLTM"]["psnr_db"]
    assert rows["base"]["kernel_distance"]["value"] is None, "three images are no set"
    made_of = {line["row"]: line for line in result["compositions"]}
    assert (made_of["all (CoME)"]["equals"], made_of["all (CoME)"]["one_pass"]) == ("SLTM", True)
    assert any(note.startswith("base: sees views of its context") for note in result["notes"])
    assert any(note.startswith("one sampling step") for note in result["notes"])
    kept_document = json.loads((tmp_path / "results.json").read_text())
    assert kept_document["compositions"] == result["compositions"]
    page = (tmp_path / "report.html").read_text()
    assert "all (CoME) [one pass, = SLTM]" in page
    assert "memory network (context, older frames, cloud)^1" in page
    assert {line["psnr_db"]["n"] for line in rows.values()} == {3}
    assert rows["geometry only"]["psnr_db"]["value"] > rows["copy the last frame"]["psnr_db"]["value"]
    facts = result["table"]["facts_of_windows"]
    assert facts["visible_from_context"] < 0.25
    assert facts["seen_in_memory_phase"] >= 0.5
    assert facts["median_age_frames"] >= 60
    compared = {(line["row"], line["reference"]) for line in result["table"]["gains"]}
    assert {("all (CoME)", "geometry only"), ("all (CoME)", "nearest remembered frame")} <= compared
    assert result["settings"]["weights"]["contrast"]["all"]["spatial"] == pytest.approx(
        find_weights(None, "tiny").composed_row("all", True).weights["spatial"]
    )
    assert "</html>" in (tmp_path / "report.html").read_text()

    table, adapter = (tmp_path / "table.csv").read_bytes(), next((tmp_path / "adapters").iterdir())
    trained_ns = adapter.stat().st_mtime_ns
    lines = (tmp_path / "results.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"row": "LTM"' not in line]
    assert len(kept) == len(lines) - 3
    (tmp_path / "results.jsonl").write_text("".join(kept))
    assert main([*words, "--no-report"]) == 0
    out = capsys.readouterr().out
    assert "all (CoME) [one pass, = SLTM]" in out
    assert "memory network (context, older frames, cloud)^1" in out
    assert (tmp_path / "table.csv").read_bytes() == table
    assert adapter.stat().st_mtime_ns == trained_ns, "a trained adapter is found again"


def test_recall_by_age_without_a_depth_camera(tmp_path, capsys):
    words = [*WORLD, "--suite", "recall", "--out", str(tmp_path), "--rows", "geometry,sltm"]
    result = document(capsys, *words, "--windows", "6", "--ages", "0.5-15,15-", "--rgb-only", "--no-report")
    parts, base = result["table"]["windows"], [row for row in result["table"]["rows"] if row["row"] == "base"]
    assert parts["last seen 0.5-15 s ago"] == parts["last seen > 15 s ago"] == 3
    assert {row["part"] for row in base} == {*parts}
    assert result["settings"]["input"]["rgb_only"]
    assert [limits.get("max_age_frames") for limits in result["settings"]["limits"]] == [59, None]


def test_plans_to_remembered_views(tmp_path, capsys):
    words = [
        *WORLD,
        "--suite",
        "memory-planning",
        "--out",
        str(tmp_path),
        "--no-report",
        "--rows",
        "nearest,geometry,base",
    ]
    words += ["--set", "planner.samples=4", "--set", "planner.initial_samples=4", "--set", "planner.iterations=1"]
    words += ["--set", "planner.elites=2"]
    words[words.index("--windows") + 1] = "1"
    rows = rows_of(document(capsys, *words))
    assert list(rows) == [
        "stand still",
        "constant velocity",
        "nearest remembered frame",
        "geometry only",
        "base",
    ]
    assert {line["n"] for line in rows.values()} == {1}


def test_a_policy_beside_memories_and_ranked_by_the_composition(tmp_path, capsys):
    policy = tmp_path / "nomad"
    shape = {"context_size": 1, "encoding_size": 16, "heads": 2, "layers": 1, "ff_factor": 1, "down_dims": (8, 16)}
    LearnedPolicy(fill(make_network(published("nomad", **shape)))).save(policy)
    words = [*WORLD, "--out", str(tmp_path / "plans"), "--no-report", "--rows", "base,all", "--policy", str(policy)]
    words += ["--contrast", "on"]
    words += ["--set", "planner.samples=4", "--set", "planner.initial_samples=4", "--set", "planner.iterations=1"]
    words += ["--set", "planner.elites=2"]
    words[words.index("--windows") + 1] = "1"
    result = document(capsys, *words, "--suite", "memory-planning")
    main_row = "all (CoME)"
    ranked = [f"nomad x{count}, ranked by {main_row}" for count in (16, 32)]
    names = ["stand still", "constant velocity", "base", main_row, "nomad", f"{main_row} + nomad", *ranked]
    assert list(rows_of(result)) == names
    assert [own["name"] for own in result["settings"]["policies"]] == ["nomad"]
    candidates = {row: rows_of(result)[row]["ate_m"]["value"] for row in names}
    assert len({*candidates.values()}) > 4, "rows are plans of their own"
    assert "--policy is for plans" in error_of(capsys, *words, "--suite", "recall")


def test_a_model_that_looks_at_no_views_composes_an_adapter_and_a_likelihood(tmp_path, capsys):
    """The class of NWM: base, LTM, the spatial memory as a likelihood, and all of them, as views and as plans."""
    few = ["--set", "planner.samples=4", "--set", "planner.initial_samples=4", "--set", "planner.iterations=1"]
    few += ["--set", "planner.elites=2", "--model", str(small_model(tmp_path / "model")), "--no-report"]
    few += ["--rows", "base,base+ltm,likelihood,base+ltm+likelihood", "--contrast", "on"]
    names = ["base", "base+LTM", "base + likelihood", "base+LTM + likelihood"]
    views = document(capsys, *WORLD, "--suite", "recall", "--out", str(tmp_path / "recall"), *few)
    rows = rows_of(views)
    assert list(rows) == ["copy the last frame", *names]
    assert len({row["psnr_db"]["value"] for row in rows.values()}) == 5, "each row is another image"
    assert {(name, "base") for name in names[1:]} <= {(own["row"], own["reference"]) for own in views["table"]["gains"]}
    words = [*WORLD, "--suite", "memory-planning", "--out", str(tmp_path / "plans"), *few]
    words[words.index("--windows") + 1] = "1"
    plans = document(capsys, *words)
    assert list(rows_of(plans)) == ["stand still", "constant velocity", *names]
    compared = {(own["row"], own["reference"]) for own in plans["table"]["ate_ratios"]}
    assert {(name, "base") for name in names[1:]} <= compared
    assert "likelihood" in plans["settings"]["memory"]


def test_weights_are_chosen_on_validation_worlds_alone(tmp_path, capsys):
    words = ["evaluate", "--suite", "recall", "--choose-weights", "--out", str(tmp_path)]
    for worlds in ("20000-20001", "20099", "5"):
        line = error_of(capsys, *words, "--worlds", worlds)
        assert "validation worlds alone" in line
    assert "no recording" in error_of(capsys, *words, "some_bag")
    assert "--suite recall" in error_of(capsys, *words[:2], "memory-planning", *words[3:])


def test_a_weights_file_comes_back(tmp_path):
    weights = CompositionWeights({"contrast": {"all": {"spatial": 1.5, "long_term": 0.0}}, "average": {}})
    write_weights(tmp_path / "w.yaml", weights, "two\nlines")
    back = read_weights(tmp_path / "w.yaml")
    assert back.to_mapping() == weights.to_mapping()
    row = back.composed_row("all", True)
    assert row.counting == {"base": 1.0, "short_term": 1.0, "spatial": 1.5}
    assert row.mode == "normalised"
    assert back.composed_row("all", False).name == "all (CoME), no contrast"
    assert back.composed_row("ltm", True).mode == "average", "one expert alone is its own prediction"
    assert len(back.compositions(list(EXPERTS))) == 4 + 2 * 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"contrasts": {}}, "unknown section 'contrasts'"),
        ({"contrast": {"base+spatial": {}}}, "unknown row of contrast 'base+spatial'"),
        ({"contrast": {"base+stm": {"spatial": 1}}}, "unknown expert of base+stm 'spatial'"),
        ({"contrast": {"base+stm": {"base": float("nan")}}}, "contrast.base+stm.base must be a finite number"),
        ({"average": {"base+stm": {"base": 0, "short_term": 0}}}, "must have a sum above 0"),
        ({"contrast": [1]}, "contrast must be a mapping"),
    ],
)
def test_mistakes_in_a_weights_file_are_named(tmp_path, content, words):
    path = tmp_path / "w.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_weights(path)


def test_weights_are_the_models_own_unless_a_file_is_named(tmp_path):
    assert find_weights(None, "tiny").composed_row("all", True).counting == {"base": 1.0, "spatial": 1.0}
    (tmp_path / "plain").mkdir()
    config = tmp_path / "plain" / "config.yaml"
    config.write_text("rate_hz: 4.0\n")
    assert find_weights(None, str(tmp_path / "plain")).to_mapping() == CompositionWeights({}).to_mapping()
    config.write_text("composition_weights: {contrast: {all: {spacial: 1.0}}}\n")
    with pytest.raises(ConfigError, match=r"plain/config\.yaml: unknown expert of all 'spacial'; did you mean"):
        find_weights(None, str(tmp_path / "plain"))
    config.write_text("composition_weights: 3\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: composition_weights must be a mapping, got 3"):
        find_weights(None, str(tmp_path / "plain"))
    with pytest.raises(ConfigError, match=r"--weights memory_weights: .* config\.yaml now; leave --weights out"):
        find_weights("memory_weights", "tiny")
    write_weights(tmp_path / "w.yaml", CompositionWeights({"contrast": {"all": {"spatial": 0.25}}}), "mine")
    assert find_weights(str(tmp_path / "w.yaml"), "tiny").composed_row("all", True).weights["spatial"] == 0.25


def test_the_search_finds_the_top_of_a_hill_and_leaves_harm_at_zero():
    peak = (1.25, 0.0, 2.5)
    calls = []

    def score(weights: tuple[float, ...]) -> float:
        calls.append(weights)
        return 30.0 - sum((weight - best) ** 2 for weight, best in zip(weights, peak, strict=True))

    assert climb(score, (1.0, 1.0, 1.0))[0] == peak
    assert all(0.0 <= weight <= 3.0 for weights in calls for weight in weights)
    assert climb(lambda weights: 1.0, (1.0, 1.0)) == ((1.0, 1.0), 1.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--part", "0.6-1.0"], "--memory-part"),
        (["--rows", "copy,everything"], "--rows takes"),
        (["--memory-frames", "4"], "--memory-frames"),
        (["--weights", "nowhere.yaml"], "nowhere.yaml"),
        (["--ages", "2-0.5"], "--ages takes bins"),
        (["--ages", "young"], "--ages takes bins"),
        (["--drift", "-1"], "--drift"),
    ],
)
def test_mistakes_cost_one_line(tmp_path, capsys, words, message):
    assert message in error_of(capsys, "evaluate", "--suite", "recall", "--out", str(tmp_path), *words)
