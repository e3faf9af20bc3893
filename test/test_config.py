"""The configuration: files over defaults, overrides over files, mistakes in one line, every key explained."""

import dataclasses
import json

import pytest
import yaml

from come_nav.cli.main import main
from come_nav.config import BASIC, Config, describe, load_config, load_layers, override_words, parse_override
from come_nav.core import resources
from come_nav.core.errors import ConfigError
from come_nav.core.resources import find_resource
from come_nav.core.settings import field_explanations, leaf_keys, to_mapping


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


def test_every_key_is_explained_and_the_text_reads_back(tmp_path):
    assert load_config(write(tmp_path, describe(Config()))) == Config()

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
    assert load_config(path) == load_config()
    layers = load_layers()
    shown = describe(layers.config, layers.from_model)
    assert path.read_text().endswith(shown), "run: come-nav config show, and put it into the file"


@pytest.mark.parametrize("value", ["runs/try #2/tiny", "2024", "on", "a: b", "ä 'b' \\"])
def test_a_flag_is_the_text_that_was_given(value):
    [word] = override_words({"model": value, "seed": None})
    assert parse_override(word) == ("model", value)


def test_resources_are_found_where_other_schemes_put_them(tmp_path, monkeypatch):
    """Debian's own Python puts data into /usr/local, and --user into the home."""
    share = tmp_path / "local" / "share" / "come_nav"
    (share / "config").mkdir(parents=True)
    (share / "config" / "elsewhere.yaml").write_text("seed: 3\n")
    monkeypatch.setattr(resources.sysconfig, "get_path", lambda name, scheme: str(tmp_path / "local"))
    assert find_resource("config", "elsewhere") == share / "config" / "elsewhere.yaml"


def test_what_a_robot_can_do_stands_where_the_file_says_nothing(tmp_path):
    robot = ("planner.limits.v_min_mps=-0.15", "spatial.max_range_m=6.0", "experts.use=[spatial]")
    path = write(tmp_path, "planner: {limits: {v_min_mps: 0.0}}\nexperts.use: [auto]")
    config = load_config(path, ["spatial.max_range_m=2.0"], robot)
    assert (config.planner.limits.v_min_mps, config.spatial.max_range_m, config.experts.use) == (0.0, 2.0, ("auto",))
    alone = load_config(None, (), robot)
    assert (alone.planner.limits.v_min_mps, alone.spatial.max_range_m, alone.experts.use) == (-0.15, 6.0, ("spatial",))


def test_shipped_planner_files_load():
    assert load_config("planner").planner.first_samples < Config().planner.first_samples
    nwm = load_config("planner_nwm")
    assert (nwm.planner.parameterisation, nwm.planner.first_samples, nwm.planner.elites) == ("straight", 120, 5)
    assert nwm.imagination == "rollout"


def test_models_are_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"known: medium, motion, small, tiny$"):
        find_resource("models", "none of them")


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


# -- layers --------------------------------------------------------------------------------------------------------


def a_model(tmp_path, section, name="mine"):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"navigation": section} if section is not None else {}))
    return folder


def test_the_model_lies_over_the_classes_the_file_over_it_and_single_keys_on_top(tmp_path):
    section = {"lora": {"rank": 8, "alpha": 4}, "experts.spatial": 0.5, "planner": {"samples": 33}}
    folder = a_model(tmp_path, section)
    path = write(tmp_path, f"model: {folder}\nplanner.samples: 44\nlora:\n  alpha: 2\n")
    config = load_config(path, ["lora.alpha=3"])
    assert (config.lora.rank, config.lora.alpha, config.planner.samples, config.experts.spatial) == (8, 3, 44, 0.5)
    assert config.lora.targets == Config().lora.targets
    layers = load_layers(path, ["lora.alpha=3"])
    assert layers.from_model == {"lora.rank", "experts.spatial"}
    shown = describe(layers.config, layers.from_model)
    assert f"  rank: 8  # from the model {folder}" in shown.splitlines()
    assert shown.count("# from the model") == 2
    assert load_config(write(tmp_path, shown)) == config


@pytest.mark.parametrize("how", ["file", "set", "both"])
def test_the_model_that_is_named_last_decides_whose_section_is_read(tmp_path, how):
    first, second = a_model(tmp_path, {"lora": {"rank": 5}}, "first"), a_model(tmp_path, None, "second")
    path = write(tmp_path, f"model: {first if how != 'both' else second}\n") if how != "set" else None
    overrides = [f"model={first}"] if how != "file" else []
    assert load_config(path, overrides).lora.rank == 5
    assert load_config(path, [f"model={second}"]) == load_config(None, [f"model={second}"])
    assert load_config(None, [f"model={second}"]).lora == Config().lora, "no section: neutral defaults"


def test_the_shipped_model_brings_what_was_tuned_to_it():
    tiny = load_config()
    assert (tiny.lora.rank, tiny.lora.alpha, tiny.episodic.learning_rate) == (16, 16, 1e-3)
    assert (tiny.objective.view_distance, tiny.experts.spatial, tiny.experts.long_term) == ("latent_cosine", 1.0, 0.0)
    assert (Config().lora.rank, Config().episodic.learning_rate) == (64, 1e-4), "CoME's published values"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"lora": {"rnak": 8}}, "navigation: unknown key 'lora.rnak'; did you mean 'rank'?"),
        ({"experts": {"spatial": -1.0}}, "navigation: experts.spatial must be >= 0, got -1.0"),
        ({"device": "cpu"}, "navigation: 'device' is not a model's to set; leave it out"),
        ([1], "navigation: must be a mapping of keys, got [1]"),
        ({"follower": {"gain_x": 2.0}}, "navigation: unknown key 'follower'"),
    ],
)
def test_mistakes_in_a_models_section_name_file_and_key(tmp_path, section, message):
    folder = a_model(tmp_path, section)
    with pytest.raises(ConfigError) as error:
        load_config(None, [f"model={folder}"])
    assert f"{folder}/config.yaml: {message}" in str(error.value)
    assert "\n" not in str(error.value)


def test_old_files_are_still_read(tmp_path):
    old = "model: tiny\nobjective:\n  haste: 0.4\nexperts:\n  use: [spatial, long_term]\n  long_term: 1.0\n"
    config = load_config(write(tmp_path, old))
    assert config.objective.path_cost_fraction == 0.4
    assert config.experts.use == ("spatial", "long_term")
    assert load_config(write(tmp_path, "experts:\n  use: []\n")).experts.use == ()
    assert load_config(None, ["objective.haste=0.3"]).objective.path_cost_fraction == 0.3


def test_one_word_is_a_list_of_one_and_auto_stands_alone():
    assert load_config(None, ["experts.use=spatial"]).experts.use == ("spatial",)
    assert load_config(None, ["experts.use=auto"]) == load_config()
    with pytest.raises(ConfigError, match=r"experts\.use must be auto alone or a list of experts, got auto, spatial"):
        load_config(None, ["experts.use=[auto, spatial]"])


def test_basic_settings_come_first_and_can_be_had_alone(capsys):
    assert main(["config", "show"]) == 0
    whole = capsys.readouterr().out
    assert main(["config", "show", "--basic"]) == 0
    basic = capsys.readouterr().out
    assert whole.startswith(basic)
    assert list(yaml.safe_load(basic)) == list(BASIC)
    assert set(BASIC) <= leaf_keys(to_mapping(load_config()))
    assert whole.removeprefix(basic).lstrip().startswith("# expert settings\n")
    assert "# from the model tiny" in whole


def test_show_with_a_model_that_is_not_there_says_so(capsys):
    assert main(["config", "show", "--model", "tinny"]) == 1
    assert "did you mean 'tiny'" in capsys.readouterr().err
