"""Checks and settings: what is wrong is named in one line, what is right passes unchanged."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from come_nav.core.checks import check_choice, check_range, check_shape
from come_nav.core.errors import ComeNavError, ConfigError, MissingDependencyError, ShapeError, suggest
from come_nav.core.settings import (
    field_explanations,
    from_mapping,
    leaf_keys,
    merged,
    nested,
    read_yaml,
    set_key,
    to_mapping,
)


@dataclasses.dataclass(frozen=True)
class Camera:
    width: int = 64
    fov_rad: float = 1.5

    def __post_init__(self) -> None:
        check_range("camera.fov_rad", self.fov_rad, 0.0, math.pi, open_low=True)


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str = "run"
    mode: Literal["jump", "rollout"] = "jump"
    camera: Camera = dataclasses.field(default_factory=Camera)
    limits: tuple[float, float] = (0.0, 1.0)
    widths: tuple[int, ...] = ()
    out: Path | None = None
    fast: bool = False


def test_shape_letters_are_bound_and_returned():
    assert check_shape("rgb", np.zeros((48, 64, 3)), "H W 3") == {"H": 48, "W": 64}
    assert check_shape("poses", np.zeros((2, 5, 8, 3)), "... T 3") == {"T": 8}
    check_shape("square", np.zeros((4, 4)), "N N")
    check_shape("any", np.zeros((4, 9)), "N *")


@pytest.mark.parametrize(
    ("shape", "spec"),
    [((48, 64), "H W 3"), ((48, 64, 4), "H W 3"), ((3, 4), "N N"), ((3,), "... T 3"), ((1, 2, 3), "T 3"), ((), "N")],
)
def test_wrong_shapes_show_both_sides(shape, spec):
    with pytest.raises(ShapeError) as caught:
        check_shape("thing", np.zeros(shape), spec)
    assert spec in str(caught.value)
    assert str(shape) in str(caught.value)
    assert "thing" in str(caught.value)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_a_shape_matches_its_own_numbers_and_no_other(shape):
    array = np.zeros(shape)
    check_shape("a", array, " ".join(map(str, shape)))
    with pytest.raises(ShapeError):
        check_shape("a", array, " ".join(map(str, [*shape[:-1], shape[-1] + 1])))


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1, "0.5", None, True])
def test_range_rejects_what_is_out_or_no_number(value):
    with pytest.raises(ConfigError, match=r"planner\.rate must be in"):
        check_range("planner.rate", value, 0.0, 1.0)


def test_range_borders():
    assert check_range("x", 0.0, 0.0, 1.0) == 0.0
    assert check_range("x", 7, 0) == 7
    with pytest.raises(ConfigError, match=r"x must be > 0, got 0\.0"):
        check_range("x", 0.0, 0.0, open_low=True)


def test_choice_suggests_the_near_one():
    assert check_choice("mode", "jump", ("jump", "rollout")) == "jump"
    with pytest.raises(ConfigError, match="did you mean 'rollout'"):
        check_choice("mode", "rolout", ("jump", "rollout"))


def test_suggest_lists_what_is_known_when_nothing_is_near():
    assert suggest("zzz", ["alpha", "beta"]) == "; known: alpha, beta"
    assert suggest("zzz", []) == ""


def test_every_error_is_a_come_nav_error_and_names_the_extra():
    message = str(MissingDependencyError("lpips", "perceptual", "LPIPS"))
    assert "pip install 'come_nav[perceptual]'" in message
    assert "lpips" in message
    assert issubclass(ConfigError, ComeNavError)


def test_settings_round_trip_through_plain_values():
    settings = Settings(camera=Camera(96, 1.2), limits=(0.5, 2.0), widths=(1, 2, 3), out=Path("x/y"))
    plain = to_mapping(settings)
    assert plain["camera"] == {"width": 96, "fov_rad": 1.2}
    assert plain["limits"] == [0.5, 2.0]
    assert plain["out"] == "x/y"
    assert from_mapping(Settings, plain) == settings


def test_yaml_spellings_are_converted():
    settings = from_mapping(Settings, {"camera": {"fov_rad": "1e-1"}, "limits": [0, 3]})
    assert settings.camera.fov_rad == 0.1
    assert settings.limits == (0.0, 3.0)
    assert isinstance(settings.limits[0], float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"camra": {}}, "unknown key 'camra'; did you mean 'camera'"),
        ({"camera": {"widht": 3}}, "unknown key 'camera.widht'; did you mean 'width'"),
        ({"camera": {"width": 3.5}}, "camera.width must be int, got 3.5"),
        ({"camera": {"width": True}}, "camera.width must be int, got True"),
        ({"camera": {"fov_rad": 4.0}}, "camera.fov_rad must be in (0, 3.14159], got 4.0"),
        ({"camera": 3}, "camera must be a mapping of keys, got 3"),
        ({"fast": "yes"}, "fast must be bool, got 'yes'"),
        ({"mode": "fly"}, "mode must be one of jump, rollout, got 'fly'"),
        ({"limits": [1.0]}, "limits must have 2 values, got 1"),
        ({"limits": 1.0}, "limits must be a list, got 1.0"),
        ({"widths": [1, "a"]}, "widths must be int, got 'a'"),
        ({"name": None}, "name must be str, got None"),
    ],
)
def test_a_mistake_in_settings_is_named(values, message):
    with pytest.raises(ConfigError) as caught:
        from_mapping(Settings, values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_optional_fields_take_none():
    assert from_mapping(Settings, {"out": None}).out is None


@pytest.mark.parametrize(
    ("content", "message"),
    [("a: [1", "not valid YAML"), ("- 1\n- 2\n", "holds a list"), ("!!python/object:os.system {}", "not valid YAML")],
)
def test_bad_yaml_files_are_one_line(tmp_path, content, message):
    path = tmp_path / "settings.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_files_read_and_absent_ones_are_named(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("name: x\n")
    assert read_yaml(path) == {"name": "x"}
    path.write_text("")
    assert read_yaml(path) == {}
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError):
        read_yaml(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")


# -- layers and explanations ---------------------------------------------------------------------------------------

KEYS = st.text("abc", min_size=1, max_size=2)
TREES = st.recursive(
    st.integers(0, 9), lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3), max_leaves=8
)
MAPPINGS = st.dictionaries(KEYS, TREES, max_size=3)


def at(values, dotted_key):
    for part in dotted_key.split("."):
        values = values[part]
    return values


@given(MAPPINGS, MAPPINGS)
def test_the_layer_above_wins_and_what_it_does_not_name_stays(below, above):
    both = merged(below, above)
    assert all(at(both, key) == at(above, key) for key in leaf_keys(above))
    kept = {key for key in leaf_keys(below) if not any(f"{key}.".startswith(f"{own}.") for own in leaf_keys(above))}
    kept = {key for key in kept if not any(own.startswith(f"{key}.") for own in leaf_keys(above))}
    assert all(at(both, key) == at(below, key) for key in kept)
    assert leaf_keys(both) == leaf_keys(above) | kept
    assert merged(above, {}) == above


@given(MAPPINGS)
def test_dotted_keys_are_nested_ones(values):
    assert nested({key: at(values, key) for key in leaf_keys(values)}) == values
    assert nested(values) == values


def test_a_key_below_a_single_value_is_refused():
    with pytest.raises(ConfigError, match=r"cannot set 'a\.b\.c': 'a\.b' is a single value"):
        set_key({"a": {"b": 1}}, "a.b.c", 2)


@pytest.mark.parametrize("margin", ["", "    ", "        "], ids=["Python 3.13", "older", "nested class"])
@given(
    names=st.lists(st.text("abxy_", min_size=1, max_size=6), min_size=1, max_size=4, unique=True),
    texts=st.lists(st.lists(st.text("word, 1:", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=3)),
)
def test_explanations_are_found_at_any_indentation(margin, names, texts):
    expected = {name: [f"is {line}" for line in lines] for name, lines in zip(names, texts, strict=False)}
    body = [line for name, (first, *more) in expected.items() for line in (f"    {name}: {first}", *indented(more))]
    lines = ["", "Attributes:", *body, "", "    Not this: one.", "Raises:", "    other: no field."]
    text = "Summary.\n" + "\n".join(margin + line if line else "" for line in lines)
    found = field_explanations(type("Synthetic", (), {"__doc__": text}))
    assert {name: found.get(name) for name in expected} == expected
    assert "other" not in found


def indented(lines):
    return [f"        {line}" for line in lines]


def test_explanations_of_bases_and_of_several_names_count():
    base = type("Base", (), {"__doc__": "B.\n\n    Attributes:\n        a, b: both,\n            on two lines."})
    own = type("Own", (base,), {"__doc__": "O.\n\nAttributes:\n    b: mine.\n"})
    assert field_explanations(own) == {"a": ["both,", "on two lines."], "b": ["mine."]}


def test_errors_are_one_line_without_control_characters():
    from come_nav.core.errors import DataError

    error = DataError("a.pkl: holds po\nition,\r\n  yaw \x1b[31mred\x1b[0m  and  come-nav bag\n")
    assert str(error) == "a.pkl: holds po ition, yaw [31mred [0m  and  come-nav bag"
