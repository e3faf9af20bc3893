"""What a run takes over: a finished autoencoder, a model to fine-tune; and the flags of ``come-nav train``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_samples import CONFIG

from come_nav.cli import train
from come_nav.core.errors import ConfigError
from come_nav.core.settings import from_mapping
from come_nav.experts.base import BaseExpert
from come_nav.experts.cdit import CDiT
from come_nav.experts.normalizer import Normalizer
from come_nav.training.config import TrainSettings
from come_nav.training.pretrained import fine_tuning_values, given_autoencoder, merged
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.sampling.schedule import NoiseSchedule


def toy_model(learn_sigma: bool = False) -> DiffusionWorldModel:
    schedule = NoiseSchedule.linear()
    network = CDiT.from_settings(replace(CONFIG.denoiser_model, learn_sigma=learn_sigma))
    expert = BaseExpert(network, Normalizer(), schedule, "v")
    return DiffusionWorldModel(ImageAutoencoder(CONFIG.autoencoder_model), {"base": expert}, schedule, rate_hz=5.0)


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    return parser.parse_args(["--out", "x", *words])


def test_an_autoencoder_of_a_model_folder_is_taken_over(tmp_path: Path) -> None:
    model = toy_model()
    model.autoencoder.set_scaling_factor(0.5)
    model.save(tmp_path / "given")
    config = replace(CONFIG, autoencoder_from=str(tmp_path / "given"))
    taken = given_autoencoder(config)
    assert taken.scaling_factor == 0.5
    for name, tensor in model.autoencoder.state_dict().items():
        torch.testing.assert_close(taken.state_dict()[name], tensor, atol=2e-3, rtol=1e-3)  # stored in float16
    other = replace(CONFIG.autoencoder_model, block_out_channels=(8, 8, 8, 16))
    with pytest.raises(ConfigError, match=r"autoencoder_model.block_out_channels must be that of autoencoder_from"):
        given_autoencoder(replace(config, autoencoder_model=other))


def test_an_autoencoder_of_diffusers_is_taken_over(tmp_path: Path) -> None:
    whole = ImageAutoencoder(CONFIG.autoencoder_model)
    whole.kl.save_pretrained(tmp_path / "vae")
    wanted = replace(CONFIG.autoencoder_model, scaling_factor=0.18215)
    taken = given_autoencoder(replace(CONFIG, autoencoder_from=str(tmp_path / "vae"), autoencoder_model=wanted))
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(taken.encode(images), 0.18215 * whole.eval().encode(images))


def test_fine_tuning_follows_the_model_and_is_gentle() -> None:
    config = train._config(parse("--data", "my_bag", "--data-use", "0-0.6"), toy_model())
    assert config.denoiser_model == CONFIG.denoiser_model
    assert config.autoencoder_model == CONFIG.autoencoder_model
    assert (config.rate_hz, config.prediction) == (5.0, "v")
    assert (config.data.worlds, config.data.recordings, config.data.recording_use) == (0, ("my_bag",), (0.0, 0.6))
    assert config.denoiser.learning_rate < TrainSettings().denoiser.learning_rate
    louder = train._config(parse("--data", "b", "--set", "denoiser.learning_rate=1e-3"), toy_model())
    assert louder.denoiser == replace(config.denoiser, learning_rate=1e-3)


def test_fine_tuning_says_what_is_missing_or_cannot_be() -> None:
    with pytest.raises(ConfigError, match="--init needs something to learn from: --data BAG"):
        train._config(parse(), toy_model())
    with pytest.raises(ConfigError, match="learned the variance of its noise"):
        fine_tuning_values(toy_model(learn_sigma=True))


def test_values_override_group_by_group() -> None:
    assert merged({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}, "e": 5}) == {"a": 1, "b": {"c": 4, "d": 3}, "e": 5}


def test_devices_follow_torchrun_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert train._devices(parse()) == (1, 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("WORLD_SIZE", "12")
    assert train._devices(parse()) == (4, 3)
    assert train._devices(parse("--devices", "2", "--num-nodes", "1")) == (2, 1)
    assert train._devices(parse("--devices", "auto"))[0] == "auto"


def test_devices_follow_srun_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_NTASKS", "32")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    assert train._devices(parse()) == (1, 1), "a batch script without srun is one process"
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "32")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "4")
    assert train._devices(parse()) == (8, 4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # torchrun, started by srun
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert train._devices(parse()) == (2, 4)


def test_values_that_are_set_are_read_as_everywhere() -> None:
    def values(*words: str, **there: object) -> dict[str, object]:
        made: dict[str, object] = dict(there)
        train._override(made, parse(*words))
        return made

    own = values("--set", "data.recordings=my_bag", "--data", "other", denoiser=None, data=None)
    assert own["data"] == {"recordings": ["my_bag", "other"]}
    assert values("--data", "b", data={"recordings": None})["data"] == {"recordings": ["b"]}
    assert values("--set", "denoiser.steps=3", denoiser=None)["denoiser"] == {"steps": 3}
    for words, told in (
        (("--set", "trained=[a"), "trained"),
        (("--set", "trained=*all"), "trained"),
        (("--set", "seed=2024-13-45"), "seed"),
        (("--set", "seed"), "planner.samples=60"),
        (("--set", "data=3"), "data must be a group of keys"),
        (("--set", "seed=3", "--set", "seed.x=4"), "'seed' is a single value"),
    ):
        with pytest.raises(ConfigError, match=told):
            values(*words)


def test_the_default_of_waypoints_is_metres() -> None:
    assert TrainSettings().waypoint_spacing_m is None
    with pytest.raises(ConfigError, match="waypoint_spacing_m"):
        from_mapping(TrainSettings, {"waypoint_spacing_m": 0.0})
