"""What was tuned to one model: the ``navigation`` section of the ``config.yaml`` in its folder.

The section has the keys of :class:`NavigationSettings`; those that it names are that model's defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from come_nav.core.errors import ConfigError
from come_nav.core.resources import find_resource
from come_nav.core.settings import from_mapping, nested, read_yaml
from come_nav.navigation.settings import NavigationSettings

SECTION, FILE_NAME = "navigation", "config.yaml"
OF_THE_ROBOT = ("model", "device", "seed", "robot")  # no model can know these


def model_section(model: str) -> dict[str, Any]:
    """Return the navigation section of the model ``model`` (a name or a folder) as nested mappings.

    Empty for a model without the section, and for one that is not there: it is missed when it is loaded.

    Raises:
        ConfigError: in one line that names the file, the key and the rule.
    """
    try:
        path = find_resource("models", model) / FILE_NAME
    except ConfigError:
        return {}
    return read_section(path) if path.is_file() else {}


def read_section(path: Path) -> dict[str, Any]:
    """Return the navigation section of a model's ``config.yaml``, checked; raise ConfigError as above."""
    section = read_yaml(path).get(SECTION)
    if section is None:
        return {}
    try:
        if not isinstance(section, Mapping):
            raise ConfigError(f"must be a mapping of keys, got {section!r}")
        values = nested(section)
        for key in OF_THE_ROBOT:
            if key in values:
                raise ConfigError(f"'{key}' is not a model's to set; leave it out")
        from_mapping(NavigationSettings, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {SECTION}: {error}") from error
    return values
