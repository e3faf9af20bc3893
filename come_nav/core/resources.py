"""Finds what ships with come_nav: config, models and launch files, wherever it is installed."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from come_nav.core.checks import check_choice
from come_nav.core.errors import ConfigError, suggest

KINDS = ("config", "models", "launch")


def find_resource(kind: str, name: str) -> Path:
    """Return the path of a resource that ships with come_nav, or of the user's own.

    Looks, in this order, at: ``name`` as a path; the ament share folder, where ROS is sourced; ``share/come_nav`` of
    this Python; the repository root; for models also the user's own folder.

    Args:
        kind: config, models or launch.
        name: a path, or the name of a file (without suffix, if you like) or folder of that kind.

    Raises:
        ConfigError: with the nearest known name.
    """
    check_choice("kind of resource", kind, KINDS)
    own = Path(name).expanduser()
    # A bare word means a shipped resource, unless a folder of that name here is a model itself.
    own_folder = kind == "models" and own.is_dir() and (own.name != name or (own / "config.yaml").is_file())
    if own.is_file() or own_folder:
        return own
    known: set[str] = set()
    for folder in _resource_folders(kind):
        for entry in (folder / name, folder / f"{name}.yaml", folder / f"{name}.launch.py"):
            if entry.exists() and name:
                return entry
        known.update(_names(kind, folder))
    hint = suggest(name, known) or f"; this installation has no {kind}"
    raise ConfigError(f"'{name}' is neither a path nor one of the {kind} of come_nav{hint}")


def _resource_folders(kind: str) -> Iterator[Path]:
    if os.environ.get("AMENT_PREFIX_PATH"):
        try:
            ament = importlib.import_module("ament_index_python.packages")
            yield Path(ament.get_package_share_directory("come_nav")) / kind
        except (ImportError, LookupError):  # no ROS in this Python, or come_nav is not in the sourced workspace
            pass
    yield Path(sys.prefix) / "share" / "come_nav" / kind
    yield Path(__file__).resolve().parents[2] / kind
    for scheme in dict.fromkeys((sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))):
        # Debian's own Python has them in /usr/local, an installation with --user in ~/.local
        yield Path(sysconfig.get_path("data", scheme)) / "share" / "come_nav" / kind
    if kind == "models":
        yield user_models_folder()


def user_models_folder() -> Path:
    """Return where imported and downloaded models are kept: ``$XDG_DATA_HOME/come_nav/models``."""
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data_home) / "come_nav" / "models"


def _names(kind: str, folder: Path) -> set[str]:
    """Return what can be asked for by name: models are folders, the list of models beside them is none."""
    if not folder.is_dir():
        return set()
    names = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    if kind == "models":
        return names
    return names | {path.name.split(".")[0] for ending in ("yaml", "launch.py") for path in folder.glob(f"*.{ending}")}
