"""The zoo of known models and ``come-nav models``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from test_world_model_model import small_model

from come_nav.cli.main import main
from come_nav.core.errors import CheckpointError, ConfigError
from come_nav.core.resources import user_models_folder
from come_nav.experts.sequence.network import SequenceDenoiser
from come_nav.experts.sequence.settings import SequenceSettings
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings, ImageAutoencoder
from come_nav.world_model.files.zoo import installed_models, read_zoo
from come_nav.world_model.probe import probe
from come_nav.world_model.sequence.model import SequenceModel, SequenceModelSettings

ZOO = Path(__file__).resolve().parents[1] / "models" / "zoo.yaml"


def test_zoo_is_complete_and_names_licences() -> None:
    zoo = read_zoo(ZOO)
    assert {entry.name for entry in zoo.models} >= {"tiny", "nwm-s", "nwm-b", "nwm-xl"}
    for entry in zoo.models:
        assert entry.licence != "unknown"
        assert entry.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
    nwm = zoo.find("nwm-b")
    assert nwm is not None
    assert nwm.gated
    assert nwm.licence == "CC-BY-NC-4.0"
    assert "ask for access and download cdit_b_100000.pth.tar" in nwm.how_to_get


def test_mistakes_in_the_zoo_are_told(tmp_path: Path) -> None:
    path = tmp_path / "zoo.yaml"
    path.write_text("models: [{name: a}, {name: a}]")
    with pytest.raises(ConfigError, match=r"zoo.yaml: models must have different names, 'a' occurs twice"):
        read_zoo(path)
    path.write_text("models: [{name: a, license: MIT}]")
    with pytest.raises(ConfigError, match=r"zoo.yaml: unknown key 'models.license'; did you mean 'licence'\?"):
        read_zoo(path)


def test_installed_models_are_folders_with_a_config(tmp_path: Path) -> None:
    for name in ("first/a", "second/a", "second/b", "second/empty"):
        (tmp_path / name).mkdir(parents=True)
        if "empty" not in name:
            (tmp_path / name / "config.yaml").write_text("")
    found = installed_models([tmp_path / "first", tmp_path / "second", tmp_path / "absent"])
    assert found == {"a": tmp_path / "first" / "a", "b": tmp_path / "second" / "b"}


def test_list_prints_every_known_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    text = capsys.readouterr().out
    assert main(["models", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    assert {row["name"] for row in rows} >= {entry.name for entry in read_zoo(ZOO).models}
    assert all(row["name"] in text and row["licence"] in text for row in rows)


def test_info_and_verify_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    small_model().save(folder)
    assert main(["models", "info", str(folder), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["name"], info["image_size"], info["context_frames"]) == ("mine", 16, 3)
    assert info["config"]["expert"]["network"]["depth"] == 2
    assert main(["models", "info", str(folder)]) == 0
    assert "# mine" in capsys.readouterr().out
    assert main(["models", "verify", str(folder)]) == 0
    assert "sound. checksum agrees" in capsys.readouterr().out
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    assert main(["models", "verify", str(folder)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("come-nav: ")
    assert "cut short" in captured.err


def test_a_sequence_model_is_a_model_and_a_broken_folder_hides_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    network = SequenceSettings(hidden_size=8, depth=1, num_heads=2, state_size=4)
    autoencoder = AutoencoderSettings(kind="lapped", block_size=16, latent_channels=24)
    settings = SequenceModelSettings(network=network, autoencoder=autoencoder)
    model = SequenceModel(settings, SequenceDenoiser(network), ImageAutoencoder(autoencoder))
    model.save(user_models_folder() / "maze_memory")
    (user_models_folder() / "broken").mkdir()
    (user_models_folder() / "broken" / "config.yaml").write_text("format: of tomorrow\n")
    assert main(["models", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert rows["maze_memory"]["sequence"] == "ssm" and rows["maze_memory"]["parameters"] > 1000
    assert rows["tiny"]["here"] and "config.yaml" in rows["broken"]["description"]
    for words in (["list"], ["info", "tiny"], ["info", "maze_memory"], ["verify", "maze_memory"]):
        assert main(["models", *words]) == 0, words
    capsys.readouterr()
    assert main(["models", "verify", "broken"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_models_that_are_not_here_say_how_to_get_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "info", "nwm-xl"]) == 0
    assert "https://huggingface.co/facebook/nwm" in capsys.readouterr().out
    assert main(["models", "verify", "nwm-xl"]) == 1
    assert "ask for access and download cdit_xl_100000.pth.tar" in capsys.readouterr().err
    assert main(["models", "verify", "nwm-xxl"]) == 1
    assert "did you mean 'nwm-xl'?" in capsys.readouterr().err


def test_probe_notices_a_network_that_overflows() -> None:
    model = small_model()
    probe(model)
    model.base.model.final_layer.linear.weight.data.fill_(float("inf"))
    with pytest.raises(CheckpointError, match="the model's denoiser returns NaN"):
        probe(model)
