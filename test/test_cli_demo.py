"""The demo end to end with a toy model: files, table, resuming, and the mistakes it must refuse."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
import torch

from come_nav.cli import main
from come_nav.experts.base import BaseExpert
from come_nav.experts.cdit import CDiT, CDiTSettings
from come_nav.experts.normalizer import Normalizer
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings, ImageAutoencoder
from come_nav.world_model.files.checkpoint import save_model
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.sampling.schedule import NoiseSchedule

FEW = ["planner.samples=4", "planner.initial_samples=6", "planner.elites=2", "planner.iterations=2"]


@pytest.fixture(scope="module")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model with random weights: 16 px images, 4x4x4 latents."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = ImageAutoencoder(
            AutoencoderSettings(image_size=16, block_out_channels=(8, 8, 8), norm_num_groups=4)
        )
        network = CDiT.from_settings(
            CDiTSettings(input_size=4, context_size=4, hidden_size=24, depth=1, num_heads=3, learn_sigma=False)
        )
    schedule = NoiseSchedule.linear()
    expert = BaseExpert(network, Normalizer.metric(1.0), schedule, "v")
    folder = tmp_path_factory.mktemp("models") / "toy"
    save_model(DiffusionWorldModel(autoencoder, {"base": expert}, schedule), folder)
    return folder


def demo(out: Path, model: Path, *words: str) -> int:
    settings = [word for key in FEW for word in ("--set", key)]
    return main.main(
        ["demo", "--out", str(out), "--model", str(model), "--duration", "6", "--windows", "2", *settings, *words]
    )


@pytest.fixture(scope="module")
def first_run(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Run the demo once; return its folder, stdout and stderr."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert demo(folder, toy_model) == 0
    return folder, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def finished(first_run: tuple[Path, str, str]) -> Path:
    return first_run[0]


def test_demo_leaves_a_bag_a_table_images_a_video_and_a_page(finished: Path) -> None:
    for name in ("map.png", "imagined.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    assert (finished / "plan.mp4").read_bytes()[4:8] == b"ftyp"
    assert (finished / "tour_20003" / "metadata.yaml").is_file()
    page = (finished / "report.html").read_text(encoding="utf-8")
    rows = json.loads((finished / "results.json").read_text(encoding="utf-8"))["table"]["rows"]
    wanted = {"stand still", "constant velocity", "world model", "perfect model", "best candidate in hindsight"}
    assert {row["row"] for row in rows} == wanted
    assert all(row in page for row in wanted)


def test_demo_tells_its_steps_the_table_and_what_is_next(first_run: tuple[Path, str, str]) -> None:
    folder, out, err = first_run
    assert [err.count(f"[{step}/5]") for step in (1, 2, 3, 4, 5)] == [1] * 5
    for words in ("world model", "ATE [m]", str(folder / "report.html"), str(folder / "map.png"), "What to try next"):
        assert words in out
    assert "evaluate plans" not in out, "the recording verb's own words are not the demo's"


def test_second_run_goes_on_and_prints_one_json_document(
    finished: Path, toy_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results, bag = finished / "results.jsonl", finished / "tour_20003" / "metadata.yaml"
    before, recorded = results.read_bytes(), bag.stat().st_mtime_ns
    assert demo(finished, toy_model, "--json") == 0
    out, err = capfd.readouterr()
    assert results.read_bytes() == before
    assert bag.stat().st_mtime_ns == recorded
    assert "is there from an earlier run" in err
    document = json.loads(out)
    assert (document["table"]["rows"][0]["row"], document["table"]["rows"][0]["n"]) == ("stand still", 2)
    assert Path(document["files"]["map"]).is_file()
    assert Path(document["report"]).is_file()


@pytest.mark.parametrize("words", [["--duration", "9"], ["--seed", "1"], ["--world", "20004", "--windows", "1"]])
def test_another_drive_is_not_mixed_into_the_folder(
    finished: Path, toy_model: Path, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    before = (finished / "results.json").read_bytes()
    assert demo(finished, toy_model, *words) == 1
    err = capfd.readouterr().err
    assert "--fresh" in err
    assert "Traceback" not in err
    assert (finished / "results.json").read_bytes() == before


def test_missing_model_is_told_before_anything_is_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.main(["demo", "--out", str(tmp_path / "out"), "--model", "no_such_model"]) == 1
    assert "no_such_model" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, toy_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    assert demo(tmp_path / "file" / "out", toy_model) == 1
    assert capfd.readouterr().err.startswith("come-nav: ")
