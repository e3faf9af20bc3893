"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: a busy machine is no failure. In continuous integration the examples are the same in every run.
settings.register_profile("come_nav", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("come_nav")

LIVE = ("ros_harness", "ros_distros")  # what starts nodes comes from these


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of every module that imports what starts nodes as ``live``.

    They share their nodes within a module, so one process runs them all (--dist loadgroup).
    """
    for item in items:
        module = getattr(item, "module", None)
        if any(getattr(value, "__module__", None) in LIVE for value in vars(module).values()) if module else False:
            item.add_marker("live")
            item.add_marker(pytest.mark.xdist_group(module.__name__))


REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the recorded data (COME_NAV_DATA, or shared/data beside the checkout); skips where it is absent."""
    candidates = [Path(os.environ["COME_NAV_DATA"])] if "COME_NAV_DATA" in os.environ else []
    candidates.append(REPOSITORY.parent / "shared" / "data")
    for folder in candidates:
        if (folder / "MANIFEST.md").is_file():
            return folder
    pytest.skip("recorded data is not here; set COME_NAV_DATA to its folder")
