"""Records on disk: resumed, torn, changed and shared result files; evaluating; tables and the report."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_samples import SampleRecording

from come_nav.core.errors import ConfigError, DataError, StorageError
from come_nav.core.types import IterationTrace, Plan, PlanStatus, PlanTrace
from come_nav.evaluation.metrics.success import SuccessSettings
from come_nav.evaluation.protocols.protocol import ProtocolSettings, choose_windows
from come_nav.evaluation.protocols.results import ResultStore, evaluate_windows, settings_hash
from come_nav.evaluation.protocols.rows import HINDSIGHT, REGISTRATION, Row, evaluate, trivial_rows
from come_nav.evaluation.reports.report import Evaluation, write_report, write_results
from come_nav.evaluation.reports.tables import (
    format_interval,
    plan_lines,
    planning_table,
    registration_lines,
    registration_ratio_lines,
)

SETTINGS = {"planner": {"samples": 8}, "seed": 0}


class StopHereError(Exception):
    pass


def windows(count: int = 6):
    return choose_windows([("drive", SampleRecording(60))], ProtocolSettings(), count)


def random_plan(window, generator) -> Plan:
    """A planner whose answer depends on its generator, with a trace of eight candidates."""
    noise = torch.randn(8, *window.driven_xyyaw.shape, generator=generator, dtype=torch.float64)
    candidates = torch.from_numpy(window.driven_xyyaw) + 0.1 * noise
    costs = torch.rand(8, generator=generator)
    step = IterationTrace(candidates.flatten(1), candidates, costs, {}, torch.zeros(1), torch.ones(1), torch.arange(2))
    chosen = candidates[int(costs.argmin())].numpy()
    return Plan(PlanStatus.OK, 0.0, window.dt_s, chosen, np.zeros(3), float(costs.min()), trace=PlanTrace([step]))


def rows(plan=random_plan) -> list[Row]:
    return [*trivial_rows(), Row("searcher", plan, hindsight=HINDSIGHT)]


def run(path, chosen=None, plan=random_plan, settings=None, fresh=False):
    """Evaluate into ``path``; return the table's figures."""
    chosen = chosen or windows()
    with ResultStore(path, settings or SETTINGS, fresh) as store:
        evaluate_windows(chosen, rows(plan), store)
        records = {name: store.table(chosen, name) for row in rows(plan) for name in row.names}
    return planning_table(chosen, records, seed=0).to_mapping()


def test_figures_are_split_by_what_the_goal_registers_to(tmp_path):
    """The row that registers says to what; every row is then measured on those windows, paired with every other."""
    chosen = windows(7)
    found_by = ["newest frames", "newest frames", "key frame", "key frame", "key frame", "nothing", "nothing"]
    told = {window.start: name for window, name in zip(chosen, found_by, strict=True)}

    def registered(window, generator) -> Plan:
        return replace(random_plan(window, generator), registered_to=told[window.start])

    own = [Row(name, random_plan) for name in ("geometry only", "base")] + [Row(REGISTRATION, registered)]
    with ResultStore(tmp_path / "r.jsonl", SETTINGS) as store:
        evaluate_windows(chosen, own, store)
        records = {row.name: store.table(chosen, row.name) for row in own}
    split = planning_table(chosen, records, seed=0).registered
    assert {words: part.windows for words, part in split.items()} == {"context": 2, "memory": 3, "not at all": 2}
    for metric in ("ate_m", "rpe_m"):
        values = {row: [record[metric] for record in found] for row, found in records.items()}
        for words, (first, last) in {"context": (0, 2), "memory": (2, 5), "not at all": (5, 7)}.items():
            mine = {row: np.mean(found[first:last]) for row, found in values.items()}
            assert {row: found[metric].value for row, found in split[words].rows.items()} == pytest.approx(mine)
            ratio = split[words].ratios[metric]["base", "geometry only"]
            assert (ratio.value, ratio.n) == (pytest.approx(mine["base"] / mine["geometry only"]), last - first)
    assert set(split["memory"].ratios["ate_m"]) == {
        ("base", "geometry only"),
        (REGISTRATION, "geometry only"),
        (REGISTRATION, "base"),
    }
    kept = planning_table(chosen, records, seed=0).to_mapping()["by_registration"]["memory"]
    assert kept["windows"] == 3
    assert kept["rows"]["base"]["rpe_m"]["n"] == 3
    assert {own["row"] for own in kept["ratios"]} == {"base", REGISTRATION}
    header, lines = registration_lines(split, "rpe_m")
    assert header == ["RPE [m] where the goal registers to", "context (n 2)", "memory (n 3)", "not at all (n 2)"]
    assert [line[0] for line in lines] == list(records)
    header, lines = registration_ratio_lines(split, ["base"])
    assert [line[:3] for line in lines] == [[words, REGISTRATION, "base"] for words in split]
    assert "by_registration" not in run(tmp_path / "without.jsonl")


def forbidden(window, generator):
    raise AssertionError("this window was computed before")


def test_a_result_is_that_of_its_goal_not_of_any_window_that_starts_there(tmp_path):
    """Another number of windows pairs a start with another goal."""
    window = windows(1)[0]
    later = replace(window, goal=window.goal + 1)
    place = {"recording": window.recording_id, "start": window.start}
    with ResultStore(tmp_path / "r.jsonl", SETTINGS) as store:
        store.add({**place, "row": "planned", "goal": window.goal})
        store.add({**place, "row": "imagined", "targets": [window.goal - 1, window.goal]})
        store.add({**place, "row": "of no goal"})
    with ResultStore(tmp_path / "r.jsonl", SETTINGS) as store:
        for row, found in (("planned", True), ("imagined", True), ("of no goal", False)):
            assert (store.get(window, row) is not None) == found
            assert store.get(later, row) is None
        store.add({**place, "row": "planned", "goal": later.goal})
        assert store.table([window, later], "planned") == [
            {**place, "row": "planned", "goal": goal} for goal in (window.goal, later.goal)
        ]


def test_a_finished_evaluation_is_read_back_and_not_computed_again(tmp_path):
    first = run(tmp_path / "r.jsonl")
    assert run(tmp_path / "r.jsonl", plan=forbidden) == first
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 6 * 4
    assert json.loads(lines[0])["hash"] == settings_hash(SETTINGS)


@pytest.mark.parametrize("keep", [0.1, 0.37, 0.5, 0.73, 0.99])
def test_a_file_torn_anywhere_resumes_to_the_same_table(tmp_path, keep):
    whole = run(tmp_path / "whole.jsonl")
    content = (tmp_path / "whole.jsonl").read_bytes()
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(content[: int(keep * len(content))])
    assert run(torn) == whole
    seconds_apart = [
        [
            {key: value for key, value in json.loads(line).items() if key != "seconds"}
            for line in path.read_text().splitlines()
        ]
        for path in (torn, tmp_path / "whole.jsonl")
    ]
    assert sorted(map(str, seconds_apart[0])) == sorted(map(str, seconds_apart[1]))


def test_a_first_line_torn_by_a_kill_starts_over(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"hash": "12')
    assert run(path) == run(tmp_path / "other.jsonl")


def test_an_interrupted_run_keeps_what_it_has(tmp_path):
    calls = []

    def interrupted(window, generator):
        if len(calls) == 3:
            raise StopHereError
        calls.append(window.start)
        return random_plan(window, generator)

    with pytest.raises(StopHereError):
        run(tmp_path / "r.jsonl", plan=interrupted)
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 1 + 3 * 4 + 2

    again = []

    def counted(window, generator):
        again.append(window.start)
        return random_plan(window, generator)

    assert run(tmp_path / "r.jsonl", plan=counted) == run(tmp_path / "other.jsonl")
    assert not set(again) & set(calls)


def test_rows_and_windows_may_be_added_and_order_does_not_matter(tmp_path):
    some, every = windows(3), windows(6)
    run(tmp_path / "r.jsonl", some)
    extended = run(tmp_path / "r.jsonl", every)
    assert extended == run(tmp_path / "once.jsonl", every)
    backwards = tmp_path / "backwards.jsonl"
    with ResultStore(backwards, SETTINGS) as store:
        evaluate_windows(every[::-1], rows()[::-1], store)
    assert run(backwards, every, forbidden) == extended


def test_other_settings_are_refused_by_name(tmp_path):
    run(tmp_path / "r.jsonl")
    changed = {"planner": {"samples": 9}, "seed": 0}
    with pytest.raises(ConfigError, match=r"planner.samples 8 -> 9\); choose another --out, or --fresh"):
        run(tmp_path / "r.jsonl", settings=changed)
    run(tmp_path / "r.jsonl", settings=changed, fresh=True)
    run(tmp_path / "r.jsonl", plan=forbidden, settings=changed)
    assert settings_hash({"a": 1, "b": 2}) == settings_hash({"b": 2, "a": 1})


def test_damage_inside_the_file_is_named(tmp_path):
    path = tmp_path / "r.jsonl"
    run(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"{oops\n", *lines[4:]]))
    with pytest.raises(DataError, match="line 4 is damaged"):
        run(path)


def test_two_writers_are_kept_apart(tmp_path):
    with ResultStore(tmp_path / "r.jsonl", SETTINGS), pytest.raises(StorageError, match="another evaluation"):
        ResultStore(tmp_path / "r.jsonl", SETTINGS)
    ResultStore(tmp_path / "r.jsonl", SETTINGS).__exit__(None, None, None)


def test_a_full_disk_is_one_line():
    import os

    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    store = object.__new__(ResultStore)
    store.path = type("P", (), {"__str__": lambda self: "results.jsonl"})()
    store._records = {}
    with open("/dev/full", "ab", buffering=0) as store._file, pytest.raises(StorageError, match="no space left"):
        store.add({"recording": "a", "start": 0, "row": "b"})


def test_a_plan_that_is_not_ok_counts_as_standing_still():
    window = windows(1)[0]

    def blocked(window, generator):
        return Plan(PlanStatus.ALL_IN_COLLISION, 0.0, window.dt_s, np.zeros((0, 3)), np.zeros(3))

    record = evaluate(Row("blocked", blocked), window)[0]
    still = evaluate(trivial_rows()[0], window)[0]
    assert record["status"] == "ALL_IN_COLLISION"
    assert (record["ate_m"], record["step_errors_m"]) == (still["ate_m"], still["step_errors_m"])
    assert record["cost"] is None
    table = planning_table([window], {"blocked": [record]}, 0)
    assert table.counts["blocked"] == {"n": 1, "not_ok": 1}
    wide = SuccessSettings(within_m=100.0, within_deg=180.0)
    rates = planning_table([window], {"blocked": [record], "still": [still]}, 0, success=wide).success
    assert (rates["blocked"].value, rates["still"].value) == (0.0, 1.0)


def test_success_is_the_end_near_the_goal_pose_with_wilsons_interval():
    chosen = windows(10)
    ends = [(0.1, 5.0)] * 6 + [(0.3, 5.0), (0.1, -20.0), (0.25, 15.0), (0.26, 0.0)]  # metres, degrees off

    def plans(window, generator):
        metres, degrees = ends[chosen.index(window)]
        path = window.driven_xyyaw.copy()
        path[-1] += [metres - 1e-9, 0.0, math.radians(degrees) - 1e-9]
        return Plan(PlanStatus.OK, 0.0, window.dt_s, path, np.zeros(3))

    records = {"row": [evaluate(Row("row", plans), window)[0] for window in chosen]}
    table = planning_table(chosen, records, 0)
    rate = table.success["row"]
    # Newcombe 1998: the roots of (p - 0.7)^2 = z^2 p (1 - p) / 10
    roots = np.sort(np.roots([1 + 1.96**2 / 10, -(1.4 + 1.96**2 / 10), 0.49]))
    assert (rate.value, rate.low, rate.high) == (0.7, pytest.approx(roots[0]), pytest.approx(roots[1]))
    header, lines = plan_lines(table)
    assert lines[0][header.index("success (0.25 m, 15 deg)")] == f"0.70 [{rate.low:.2f}, {rate.high:.2f}]"
    document = table.to_mapping()
    assert document["rows"][0]["success"]["value"] == 0.7
    assert document["success_settings"] == {"within_m": 0.25, "within_deg": 15.0}
    with pytest.raises(ConfigError, match="success_m"):
        SuccessSettings(within_m=0.0)


def test_hindsight_is_the_best_of_what_was_tried():
    for window in windows(4):
        plan = random_plan(window, window.generator())
        chosen, best = evaluate(rows()[-1], window)
        tried = plan.trace.iterations[0].poses_xyyaw.numpy()[..., :2] - window.driven_xyyaw[:, :2]
        expected = np.sqrt((tried**2).sum(-1).mean(-1)).min()
        assert best["row"] == HINDSIGHT
        assert best["ate_m"] == pytest.approx(expected)
        assert chosen["hindsight_ate_m"] == pytest.approx(expected)
        assert best["ate_m"] <= chosen["ate_m"]
        assert chosen["candidates"] == 8


def image(frame) -> torch.Tensor:
    return torch.from_numpy(frame.rgb.copy()).permute(2, 0, 1).float() / 127.5 - 1


def seer(window, paths, generator) -> torch.Tensor:
    """A model that imagines the goal perfectly at the true pose and black anywhere else."""
    real = image(window.goal_frame())
    true_end = torch.from_numpy(window.driven_xyyaw[-1]).float()
    return torch.stack([real if torch.allclose(path[-1], true_end) else torch.full_like(real, -1.0) for path in paths])


def test_images_are_evaluated_at_the_chosen_and_at_the_true_pose():
    window = windows(1)[0]
    record = evaluate(Row("seer", random_plan, seer, image), window)[0]
    assert record["prediction"]["psnr_db"] == 60.0
    assert record["prediction"]["ssim"] == pytest.approx(1.0)
    assert record["imagined"]["psnr_db"] < 30.0
    assert record["copy_last_frame"]["psnr_db"] == pytest.approx(
        10
        * math.log10(
            4 / float(((image(window.recording.frame(window.start)) - image(window.goal_frame())) ** 2).mean())
        ),
        rel=1e-4,
    )


def test_the_table_in_closed_form():
    chosen = windows(5)
    records = {row.name: [evaluate(row, window)[0] for window in chosen] for row in trivial_rows()}
    table = planning_table(chosen, records, 0)
    steps = [np.diff(w.driven_xyyaw[:, :2], axis=0, prepend=np.zeros((1, 2))) for w in chosen]
    assert table.spacing_m == pytest.approx(np.linalg.norm(np.concatenate(steps), axis=1).mean())
    ates = [np.sqrt((w.driven_xyyaw[:, :2] ** 2).sum(1).mean()) for w in chosen]
    still = table.rows["stand still"]
    assert still["ate_m"].value == pytest.approx(np.mean(ates))
    assert still["ate_spacings"].value == pytest.approx(np.mean(ates) / table.spacing_m)
    means = {row: np.mean([record["ate_m"] for record in found]) for row, found in records.items()}
    ratio = table.ratios["constant velocity", "stand still"]
    assert ratio.value == pytest.approx(means["constant velocity"] / means["stand still"])
    assert table.error_by_step["stand still"][-1] == pytest.approx(still["final_m"].value)
    assert table.groups == {"drive": {row: pytest.approx(mean) for row, mean in means.items()}}
    header, lines = plan_lines(table)
    assert all(len(line) == len(header) for line in lines)
    assert lines[0][1] == format_interval(still["ate_m"])


def test_worlds_are_the_clusters_of_a_suite_with_enough_of_them():
    recordings = [(f"world {seed}", SampleRecording(30)) for seed in range(6)]
    chosen = choose_windows(recordings, ProtocolSettings(), 18)
    records = {"stand still": [evaluate(trivial_rows()[0], window)[0] for window in chosen]}
    groups = {name: name for name, _ in recordings}
    clustered = planning_table(chosen, records, 0, groups)
    assert (clustered.rows["stand still"]["ate_m"].clusters, clustered.resampled) == (6, "6 worlds or recordings")
    few = planning_table(chosen, records, 0, {name: "a" if name[-1] < "3" else "b" for name in groups})
    assert (few.rows["stand still"]["ate_m"].clusters, few.resampled) == (18, "windows")
    assert set(few.groups) == {"a", "b"}


@pytest.mark.slow
def test_results_and_report_are_written_and_equal_runs_give_equal_tables(tmp_path):
    chosen = windows(3)
    competitors = [*trivial_rows(), Row("world model", random_plan, seer, image)]
    contents = []
    for name in ("first", "second"):
        with ResultStore(tmp_path / name / "results.jsonl", SETTINGS) as store:
            evaluate_windows(chosen, competitors, store)
            records = {row.name: store.table(chosen, row.name) for row in competitors}
        table = planning_table(chosen, records, 0)
        evaluation = Evaluation(
            "<drive>",
            chosen,
            competitors,
            records,
            table,
            SETTINGS,
            {"versions": {"come_nav": "1"}, "odd": float("nan")},
        )
        write_results(tmp_path / name, evaluation)
        contents.append((tmp_path / name / "table.csv").read_bytes())
    assert contents[0] == contents[1]
    document = json.loads((tmp_path / "first" / "results.json").read_text(), parse_constant=pytest.fail)
    assert document["settings"] == SETTINGS
    assert set(document["timing"]) == {row.name for row in competitors}
    page = write_report(tmp_path / "first", evaluation)
    html = page.read_text()
    assert "&lt;drive&gt;" in html
    assert html.count("data:image/png") >= 6
    assert "data:video/mp4" in html
    assert "http" not in html.replace("http://www.w3.org", "")
    assert (tmp_path / "first" / "plan.mp4").stat().st_size > 1000
