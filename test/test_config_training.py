"""Every training configuration that ships is read as it is, and the script for a GPU names what there is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from come_nav.config import parse_override
from come_nav.core.errors import ConfigError
from come_nav.core.settings import from_mapping, read_yaml
from come_nav.policies.model import make_network, parameter_count
from come_nav.training.config import TrainSettings
from come_nav.training.policies.settings import PolicyTrainSettings, default_values
from come_nav.training.pretrained import fine_tuning_values, merged
from come_nav.training.run_parts import check_fine_tuning
from come_nav.world_model.model import DiffusionWorldModel

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", ["train_small", "train_nwm_class", "train_tiny", "train_xl"])
def test_a_training_configuration_is_valid(name: str) -> None:
    config = from_mapping(TrainSettings, read_yaml(REPOSITORY / "config" / f"{name}.yaml"))
    assert config.denoiser_model.in_channels == config.autoencoder_model.latent_channels


def test_the_configuration_of_a_policy_is_valid_and_small() -> None:
    values = merged(default_values("nomad"), read_yaml(REPOSITORY / "config" / "train_nomad.yaml"))
    config = from_mapping(PolicyTrainSettings, values)
    assert config.policy.kind == "nomad"
    assert config.data.first_world + config.data.worlds <= 10000
    assert 2 * parameter_count(make_network(config.policy)) < 20e6  # bytes in float16


def test_small_and_the_nwm_class_are_of_one_size_and_learn_from_the_same_robots() -> None:
    small, plain = (
        from_mapping(TrainSettings, read_yaml(REPOSITORY / "config" / f"{name}.yaml"))
        for name in ("train_small", "train_nwm_class")
    )
    for field in ("hidden_size", "depth", "num_heads"):
        assert getattr(small.denoiser_model, field) == getattr(plain.denoiser_model, field)
    for field in ("cameras", "sensors", "worlds", "drivers"):
        assert getattr(small.data, field) == getattr(plain.data, field)
    assert (plain.prediction, plain.autoencoder_model.kind, plain.depth_model) == ("eps", "kl", None)


def test_the_script_for_a_gpu_is_sound() -> None:
    script = REPOSITORY / "scripts" / "gpu_run.sh"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    for path in re.findall(r"(?:benchmarks|config)/\w+\.(?:py|yaml)", script.read_text()):
        assert (REPOSITORY / path).is_file(), path


def test_the_script_for_a_gpu_goes_on_from_the_shipped_model() -> None:
    script = (REPOSITORY / "scripts" / "gpu_run.sh").read_text()
    begun = next(line for line in script.splitlines() if "--init" in line and "start=(" in line)
    told = [parse_override(word) for word in re.findall(r"--set (\S+=[^\s)]+)", begun)]
    init = DiffusionWorldModel.load(REPOSITORY / "models" / "small")
    values = merged(fine_tuning_values(init), read_yaml(REPOSITORY / "config" / "train_small.yaml"))
    with pytest.raises(ConfigError, match="denoiser_from"):
        check_fine_tuning(from_mapping(TrainSettings, values), init)
    check_fine_tuning(from_mapping(TrainSettings, {**values, **dict(told)}), init)
