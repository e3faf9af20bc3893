"""The configuration: files over defaults, overrides over files, mistakes in one line, every key explained."""

import dataclasses
import json

import pytest
import yaml

from come_nav.cli.main import main
from come_nav.config import Config, describe, field_explanations, load_config
from come_nav.core import resources
from come_nav.core.errors import ConfigError
from come_nav.core.resources import find_resource
from come_nav.core.settings import from_mapping, to_mapping


def write(tmp_path, text):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    return path


def test_files_and_overrides_stack_up(tmp_path):
    path = write(tmp_path, "seed: 3\nplanner:\n  samples: 70\n  limits:\n    v_max_mps: 0.4\n")
    config = load_config(path, ["planner.samples=50", "planner.limits.w_max_radps=0.9", "sampler.steps=2"])
    assert (config.seed, config.planner.samples) == (3, 50)
    assert (config.planner.limits.v_max_mps, config.planner.limits.w_max_radps) == (0.4, 0.9)
    assert config.sampler is not None
    assert config.sampler.steps == 2
    assert config.memory == Config().memory


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["planner.sample=3"], "unknown key 'planner.sample'; did you mean 'samples'?"),
        (["plannr.samples=3"], "unknown key 'plannr'; did you mean 'planner'?"),
        (["planner.samples=0"], "planner.samples must be >= 1, got 0"),
        (["planner.samples=many"], "planner.samples must be int, got 'many'"),
        (
            ["planner.parameterisation=arcs"],
            "planner.parameterisation must be one of straight, arc, spline, got 'arcs'",
        ),
        (["planner.limits.v_max_mps=-1"], "limits.v_max_mps must be in (0, 20], got -1.0"),
        (["memory.tolerance=0.9"], "memory.tolerance must be in [0, 0.5], got 0.9"),
        (["seed=1", "seed.x=2"], "cannot set 'seed.x': 'seed' is a single value"),
        (["seed"], "an override must look like planner.samples=60, got 'seed'"),
        (["seed=[1"], "value of override 'seed=[1' is not valid YAML"),
        (["device=gpu"], "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
    ],
)
def test_mistakes_name_key_value_and_rule(words, message):
    with pytest.raises(ConfigError) as error:
        load_config(None, words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_mistakes_in_a_file_name_the_file(tmp_path):
    path = write(tmp_path, "planner:\n  elite: 3\n")
    with pytest.raises(ConfigError, match=r"my\.yaml: unknown key 'planner\.elite'; did you mean 'elites'"):
        load_config(path)
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(write(tmp_path, "a: [1"))
    with pytest.raises(ConfigError, match="must hold a mapping"):
        load_config(write(tmp_path, "- 1"))


def test_every_key_is_explained_and_the_text_reads_back():
    text = describe(Config())
    assert from_mapping(Config, yaml.safe_load(text)) == Config()

    def check(cls):
        explained = field_explanations(cls)
        for item in dataclasses.fields(cls):
            assert explained.get(item.name), f"{cls.__name__}.{item.name} has no explanation"

    check(Config)
    for item in dataclasses.fields(Config()):
        value = getattr(Config(), item.name)
        if dataclasses.is_dataclass(value):
            check(type(value))
    check(type(Config().planner.limits))


def test_the_shipped_file_is_the_defaults():
    path = find_resource("config", "come_nav")
    assert load_config(path) == Config()
    assert path.read_text().endswith(describe(Config())), "run: come-nav config show, and put it into the file"


def test_shipped_planner_files_load():
    assert load_config("planner").planner.first_samples < Config().planner.first_samples
    nwm = load_config("planner_nwm")
    assert (nwm.planner.parameterisation, nwm.planner.first_samples, nwm.planner.elites) == ("straight", 120, 5)
    assert nwm.imagination == "rollout"


def test_find_resource_prefers_paths_then_share_then_repository(tmp_path, monkeypatch):
    own = tmp_path / "model"
    own.mkdir()
    assert find_resource("models", str(own)) == own
    assert find_resource("config", "come_nav").name == "come_nav.yaml"
    share = tmp_path / "prefix" / "share" / "come_nav" / "config"
    share.mkdir(parents=True)
    (share / "come_nav.yaml").write_text("seed: 1\n")
    monkeypatch.setattr(resources.sys, "prefix", str(tmp_path / "prefix"))
    assert find_resource("config", "come_nav") == share / "come_nav.yaml"
    with pytest.raises(ConfigError, match="did you mean 'come_nav'"):
        find_resource("config", "come_naw")
    with pytest.raises(ConfigError, match="kind of resource"):
        find_resource("modles", "tiny")


def test_show_prints_yaml_and_json(capsys):
    assert main(["config", "show", "--set", "planner.samples=33"]) == 0
    shown = capsys.readouterr().out
    assert yaml.safe_load(shown)["planner"]["samples"] == 33
    assert "# candidates per iteration" in shown
    assert main(["config", "show", "--set", "planner.samples=33", "--json"]) == 0
    changed = load_config(None, ["planner.samples=33"])
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(to_mapping(changed)))


def test_show_tells_mistakes_in_one_line(capsys):
    assert main(["config", "show", "--set", "planner.sampels=33"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "come-nav: unknown key 'planner.sampels'; did you mean 'samples'?\n"
