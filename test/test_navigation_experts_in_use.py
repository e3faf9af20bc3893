"""Which memory experts are in use: named ones, or what model, weights and sensors make of auto."""

from __future__ import annotations

import pytest

from come_nav.core.resources import find_resource
from come_nav.navigation import experts_in_use as module
from come_nav.navigation.experts_in_use import experts_in_use, unsupported_experts
from come_nav.navigation.settings import ExpertsSettings
from come_nav.world_model.model import DiffusionWorldModel

ALL = ("short_term", "long_term", "spatial")
ON = {"short_term": 0.5, "long_term": 0.5, "spatial": 1.0}


@pytest.mark.parametrize(
    ("settings", "unsupported", "has_depth", "names"),
    [
        (ON, (), True, ALL),
        (ON, (), None, ALL),
        (ON, (), False, ("short_term", "long_term")),
        ({**ON, "estimate_depth": True}, (), False, ALL),
        (ON, ("short_term", "spatial"), True, ("long_term",)),
        (ON, ALL, True, ()),
        ({**ON, "long_term": 0.0}, (), True, ("short_term", "spatial")),
        ({**ON, "spatial": 0.0}, (), True, ("short_term", "long_term")),
        ({}, (), True, ("spatial",)),
        ({}, (), False, ()),
        ({}, ("spatial",), True, ()),
    ],
)
def test_auto(settings, unsupported, has_depth, names):
    found = experts_in_use(ExpertsSettings(**settings), dict.fromkeys(unsupported, "why not"), has_depth)
    assert found.names == names
    assert set(found.names) | set(found.left_out) == set(ALL)
    assert not set(found.names) & set(found.left_out)
    assert all(found.left_out[name] == "why not" for name in unsupported)
    assert found.warnings_of(found.left_out) == [], "auto leaves out in silence"


@pytest.mark.parametrize(
    ("use", "unsupported", "names", "warnings"),
    [
        ((), (), (), []),
        (("spatial",), (), ("spatial",), []),
        (("spatial", "short_term"), (), ("spatial", "short_term"), ["the short_term expert changes nothing: "]),
        (("spatial",), ("spatial",), (), ["without the spatial expert: why not"]),
        (("spatial",), ("short_term",), ("spatial",), []),
    ],
)
def test_named_experts_are_told_where_they_are_missing(use, unsupported, names, warnings):
    settings = ExpertsSettings(use=use, short_term=0.0, spatial=1.0)
    found = experts_in_use(settings, dict.fromkeys(unsupported, "why not"), has_depth=False)
    assert found.names == names
    told = found.warnings_of(found.left_out)
    assert len(told) == len(warnings)
    assert all(line.startswith(start) for line, start in zip(told, warnings, strict=True))


def test_what_a_model_cannot_use(monkeypatch):
    tiny, settings = DiffusionWorldModel.load(find_resource("models", "tiny")), ExpertsSettings()
    assert unsupported_experts(tiny, settings) == {}
    assert set(unsupported_experts(object(), settings)) == set(ALL)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert set(unsupported_experts(tiny, settings)) == {"long_term"}
    assert unsupported_experts(tiny, ExpertsSettings(adapter_store="store")) == {}
    tiny.depth = None
    assert set(unsupported_experts(tiny, settings)) == set(ALL)
