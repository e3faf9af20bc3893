"""NWM's protocols: errors and quirks both ways, perceptual distances, and all of it from the command line."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from test_world_model_import_nwm import official, vae  # noqa: F401  a fixture

from come_nav.cli.main import main
from come_nav.core.errors import ConfigError, DataError, MissingDependencyError
from come_nav.data.nwm.dataset import NwmDataset, dataset_facts
from come_nav.evaluation.metrics.perceptual import FrechetDistance, pair_distance
from come_nav.evaluation.metrics.trajectory_metrics import plan_errors
from come_nav.evaluation.protocols import nwm_prediction
from come_nav.evaluation.protocols.nwm_prediction import jump_targets, prediction_windows, rollout_path, score_images
from come_nav.evaluation.protocols.nwm_protocol import NwmQuirks, path_errors, planning_windows
from come_nav.world_model.nwm.importer import ImportSettings, import_checkpoint


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in the official layout, driven in the simulator."""
    folder = tmp_path_factory.mktemp("data")
    words = ["simulate", "--nwm-dataset", "recon", "--worlds", "20000-20001", "--duration", "17.5", "--size", "40x30"]
    assert main([*words, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, vae: Path) -> Path:  # noqa: F811
    """A network of the official class at reduced size, imported from a checkpoint in the official layout."""
    folder = tmp_path_factory.mktemp("model")
    torch.save(official(), folder / "cdit.pth.tar")
    import_checkpoint(folder / "cdit.pth.tar", folder / "nwm", ImportSettings(heads=3, autoencoder=str(vae)))
    return folder / "nwm"


FEW_STEPS = ["--set", "sampler.name=ddim", "--set", "sampler.steps=1"]


def run(root: Path, model: Path, out: Path, *words: str, protocol: str = "nwm") -> int:
    base = ["evaluate", "--protocol", protocol, "--dataset", "recon", "--root", str(root), "--model", str(model)]
    return main([*base, "--out", str(out), *FEW_STEPS, *words])


# -- errors and quirks -------------------------------------------------------------------------------------------------


def test_start_excluded_and_included() -> None:
    driven = np.zeros((8, 3))
    planned = np.concatenate([np.full((8, 1), 0.5), np.zeros((8, 2))], axis=1)  # a constant offset
    assert path_errors(planned, driven, start_excluded=True) == pytest.approx((0.5, 0.0))
    ate_m, rpe_m = path_errors(planned, driven, start_excluded=False)
    assert ate_m == pytest.approx(0.5 * np.sqrt(8 / 9))
    assert rpe_m == pytest.approx(0.5 / np.sqrt(8))  # the first step's error counts now
    noise = np.random.default_rng(0).normal(size=(8, 3))
    errors = plan_errors(noise, driven)
    assert path_errors(noise, driven, start_excluded=True) == pytest.approx((errors.ate_m, errors.rpe_m))


@pytest.mark.shared_data
def test_errors_equal_evo(shared_data: Path) -> None:
    for case in json.loads((shared_data / "nwm_parity" / "evo_ate_rpe.json").read_text())["rows"]:
        planned, driven = (np.pad(np.asarray(case[key], float), ((0, 0), (0, 1))) for key in ("pred", "gt"))
        found = path_errors(planned, driven, start_excluded=True)
        assert found == pytest.approx((case["evo_ate"], case["evo_rpe"]), abs=1e-6)


def test_all_quirks_are_off_unless_asked_for() -> None:
    assert not any(NwmQuirks().__dict__.values())
    assert all(NwmQuirks.official().__dict__.values())


def test_windows_are_those_of_the_index(root: Path) -> None:
    dataset = NwmDataset(root, dataset_facts("recon"))
    windows = planning_windows(dataset, seed=0)
    assert [(window.recording_id, window.start) for window in windows] == [
        (entry.trajectory, entry.start) for entry in dataset.index("navigation")
    ]
    window = windows[1]
    assert window.context == tuple(range(window.start - 3, window.start + 1))
    assert (window.goal, window.dt_s, window.rel_frames) == (window.start + 8, 0.25, 8.0)
    assert len(planning_windows(dataset, 0, 2)) == 2


def test_rollouts_are_told_the_truth_unless_the_offset_is_wanted(root: Path) -> None:
    dataset = NwmDataset(root, dataset_facts("recon"))
    window = prediction_windows(dataset, "rollout", [1, 2], seed=0)[0]
    true = rollout_path(window, 8, 1, 0.25, rollout_offset=False)
    np.testing.assert_allclose(true, window.driven_xyyaw, atol=1e-9)
    told = rollout_path(window, 8, 1, 0.25, rollout_offset=True)
    np.testing.assert_allclose(told[0, :2], true[0, :2], atol=1e-9)
    assert np.linalg.norm(told[-1, :2] - true[-1, :2]) > 1.0  # 7 steps of 1.25 spacings
    np.testing.assert_allclose(jump_targets(window, [1, 2]), window.driven_xyyaw[[3, 7]], atol=1e-9)
    slow = rollout_path(window, 8, 4, 0.25, rollout_offset=True)
    assert slow.shape == (8, 3)
    with pytest.raises(ConfigError, match="--seconds must be whole seconds"):
        prediction_windows(dataset, "time", [0], 0)


# -- perceptual distances ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lpips", "dreamsim"])
def test_an_absent_library_is_one_line_with_the_way_out(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError) as caught:
        pair_distance(name)
    assert "the latent distance does without" in str(caught.value)
    assert "pip install 'come_nav[perceptual]'" in str(caught.value)


@pytest.mark.parametrize("name", ["lpips", "dreamsim"])
def test_a_library_that_breaks_while_it_is_loaded_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """What a torchvision for another torch does."""
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('operator torchvision::nms\\ndoes not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(DataError, match=r"cannot be loaded .operator torchvision::nms does not exist") as caught:
        pair_distance(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["lpips", "dreamsim"])
def test_absent_weights_are_one_line(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def offline(*words: object, **named: object) -> None:
        raise OSError("<urlopen error [Errno -3]\nTemporary failure in name resolution>")

    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(LPIPS=offline, dreamsim=offline))
    with pytest.raises(DataError, match="its weights are not here and cannot be downloaded") as caught:
        pair_distance(name)
    assert "\n" not in str(caught.value)


def test_libraries_get_images_in_their_own_range(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, torch.Tensor] = {}

    class Network(torch.nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
            seen[self.name] = images
            return (images - references).abs().mean(dim=(1, 2, 3), keepdim=self.name == "lpips")

    lpips = types.SimpleNamespace(LPIPS=lambda net, verbose: Network("lpips") if net == "alex" else None)
    dreamsim = types.SimpleNamespace(dreamsim=lambda pretrained, device: (Network("dreamsim"), None))
    monkeypatch.setitem(sys.modules, "lpips", lpips)
    monkeypatch.setitem(sys.modules, "dreamsim", dreamsim)
    images, references = torch.full((2, 3, 32, 32), -1.0), torch.full((2, 3, 32, 32), 1.0)
    torch.testing.assert_close(pair_distance("lpips")(images, references), torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(pair_distance("dreamsim")(images, references), torch.tensor([1.0, 1.0]))
    assert seen["lpips"].min() == -1.0
    assert seen["dreamsim"].min() == 0.0
    assert seen["dreamsim"].shape == (2, 3, 224, 224)


class MeanColour(torch.nn.Module):
    """Features whose Frechet distance is known in closed form."""

    num_features = 3

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=(2, 3)) / (255.0 if images.dtype == torch.uint8 else 1.0)


def test_fid_is_the_frechet_distance_of_the_features() -> None:
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(64, 3, 1, 1, generator=generator) * 0.5
    real = (colours.expand(64, 3, 16, 16)) * 2 - 1
    shifted = ((colours + torch.tensor([0.2, 0.0, 0.4])[None, :, None, None]).expand(64, 3, 16, 16)) * 2 - 1
    distances = []
    for other in (real, shifted):
        distance = FrechetDistance(features=MeanColour())
        distance.add(real, real=True)
        distance.add(other, real=False)
        distances.append(distance.value())
    assert distances[0] == pytest.approx(0.0, abs=1e-3)
    assert distances[1] == pytest.approx(0.2**2 + 0.4**2, abs=5e-3)  # equal covariances: the squared shift of the mean
    assert np.isnan(FrechetDistance(features=MeanColour()).value())


# -- the command line --------------------------------------------------------------------------------------------------


def test_planning_end_to_end(root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--windows", "2", "--cost", "latent", "--samples", "6", "--top-k", "2", "--repeats", "2"]
    assert run(root, model, tmp_path / "out", *words) == 0
    text = capsys.readouterr().out
    assert "population 6, top-k 2, iterations 1, repeats 2, 8 waypoints, ddim 1 steps, cost latent" in text
    assert "official quirks off" in text
    for name in ("stand still", "constant velocity", "world model", "ATE [m]", "ATE [spacings]", "RPE [spacings]"):
        assert name in text
    page = (tmp_path / "out" / "report.html").read_text()
    assert "population 6" in page
    kept = (tmp_path / "out" / "results.jsonl").read_bytes()
    assert run(root, model, tmp_path / "out", *words, "--json", "--no-report") == 0  # resumes: nothing is computed
    document = json.loads(capsys.readouterr().out)
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == kept
    row = document["table"]["world model"]
    assert row["ate_spacings"]["value"] == pytest.approx(row["ate_m"]["value"] / 0.25)
    assert document["prior"] == "published"
    assert run(root, model, tmp_path / "out", *words, "--official-quirks", "--no-report") == 1
    assert "holds results of other settings (quirks." in capsys.readouterr().err
    assert run(root, model, tmp_path / "quirks", *words, "--official-quirks", "--no-report", "--json") == 0
    with_quirks = json.loads(capsys.readouterr().out)
    assert run(root, model, tmp_path / "quirks", *words, "--official-quirks", "--no-report") == 0
    header = capsys.readouterr().out.partition("ATE")[2]
    assert header.startswith(" [spacings]")  # published units lead
    assert text.partition("\nrow")[2].strip().startswith("ATE [m]")
    still = (document["table"]["stand still"]["ate_m"]["value"], with_quirks["table"]["stand still"]["ate_m"]["value"])
    assert still[0] == pytest.approx(still[1] * np.sqrt(8 / 9))


@pytest.mark.parametrize("way", ["pixels", "moments"])
def test_planning_through_images_with_an_image_cost(root: Path, model: Path, tmp_path: Path, way: str) -> None:
    words = ["--windows", "1", "--cost", "image", "--samples", "2", "--top-k", "2", "--repeats", "1", "--no-report"]
    assert run(root, model, tmp_path / "out", *words, "--rollout-path", way) == 0


def test_planning_by_one_jump(root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--windows", "1", "--cost", "latent", "--samples", "4", "--top-k", "2", "--repeats", "1", "--no-report"]
    assert run(root, model, tmp_path / "out", *words, "--rollout-stride", "8") == 0
    assert "stride 8" in capsys.readouterr().out
    assert run(root, model, tmp_path / "out", *words, "--rollout-stride", "8", "--official-quirks") == 1
    assert "--rollout-stride must be 1 with --official-quirks, got 8" in capsys.readouterr().err
    assert run(root, model, tmp_path / "out", "--rollout-stride", "2", protocol="nwm-rollout") == 1
    assert "takes --fps instead" in capsys.readouterr().err


def test_scores_of_predictions_resample_whole_trajectories(monkeypatch):
    """Windows of one trajectory are much alike: values that differ between trajectories alone."""
    rng = np.random.default_rng(0)
    level = {f"t{number}": rng.normal() for number in range(20)}
    windows = [types.SimpleNamespace(recording_id=name, start=start) for name in level for start in range(10)]
    values = iter([level[window.recording_id] for window in windows])
    monkeypatch.setattr(nwm_prediction, "_read", lambda path: path)
    scores = score_images(Path("x"), windows, [1], ["row"], {"lpips": lambda a, b: [next(values)]}, None, 0)
    found = scores[0].metrics["lpips"]
    assert (found.n, found.clusters) == (200, 20)
    spread = 1.96 * np.std(list(level.values())) / np.sqrt(20)
    assert (found.high - found.low) / 2 == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize(("protocol", "more"), [("nwm-time", []), ("nwm-rollout", ["--fps", "1"])])
def test_predictions_end_to_end(
    root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], protocol: str, more: list[str]
) -> None:
    words = ["--windows", "1", "--seconds", "1,2", "--metrics", "psnr,ssim,latent", "--json", *more]
    assert run(root, model, tmp_path / "out", *words, protocol=protocol) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(score["row"], score["second"]) for score in document["scores"]] == [
        (row, second) for row in ("copy last frame", "world model") for second in (1, 2)
    ]
    assert all(score["n"] == 1 and set(score["metrics"]) == {"psnr", "ssim", "latent"} for score in document["scores"])
    images = sorted(path.relative_to(document["images"]) for path in Path(document["images"]).rglob("*.png"))
    assert len(images) == 6
    before = {path: path.stat().st_mtime_ns for path in Path(document["images"]).rglob("*.png")}
    assert run(root, model, tmp_path / "out", *words, protocol=protocol) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_official_offset_changes_a_rollout(root: Path, model: Path, tmp_path: Path) -> None:
    words = ["--windows", "1", "--seconds", "1", "--metrics", "psnr"]
    for name, more in (("off", []), ("on", ["--official-quirks"])):
        assert run(root, model, tmp_path / name, *words, *more, protocol="nwm-rollout") == 0
    made = [next((tmp_path / name).rglob("world_model/*/1.png")).read_bytes() for name in ("off", "on")]
    assert made[0] != made[1]


def test_faults_are_one_line(
    root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    def told(*words: str, data: Path = root, protocol: str = "nwm") -> str:
        assert run(data, model, tmp_path / "out", "--cost", "latent", "--no-report", *words, protocol=protocol) == 1
        message = capsys.readouterr().err.strip()
        assert message.startswith("come-nav: ")
        assert "\n" not in message
        return message

    broken = Path(shutil.copytree(root, tmp_path / "data"))
    index = broken / "data_splits/recon/test/navigation_eval.pkl"
    index.write_bytes(pickle.dumps([("gone", 3, 8, 8)]))
    assert "names trajectory 'gone'" in told(data=broken)
    shutil.copy(root / "data_splits/recon/test/navigation_eval.pkl", index)
    next((broken / "recon").iterdir()).joinpath("9.jpg").unlink()
    assert "9.jpg is missing" in told(data=broken)
    assert "--prior-mean must be three numbers" in told("--prior-mean", "1,2")
    assert "--metrics must be one of" in told("--metrics", "psnr,beauty", protocol="nwm-time")
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert "pip install 'come_nav[perceptual]'" in told("--cost", "lpips")
    assert main(["evaluate", "--protocol", "nwm", "--cost", "latent"]) == 1
    assert "needs --dataset NAME and --root DIR" in capsys.readouterr().err
