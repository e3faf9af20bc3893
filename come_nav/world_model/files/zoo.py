"""The model zoo: which models are known, and which of them are here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from come_nav.core.errors import ConfigError
from come_nav.core.settings import from_mapping, read_yaml

ZOO_NAME = "zoo.yaml"
SHIPPED = "come_nav"  # source of the models that come with the package


@dataclass(frozen=True)
class ZooEntry:
    """A known model.

    Attributes:
        name: for ``--model``.
        description: one line.
        licence: SPDX name.
        source: "come_nav" for a shipped folder, else the page it is downloaded from.
        file: name of the file on that page.
        size: of an official NWM denoiser, S, B, L or XL; None for other models.
        gated: access must be asked for on that page.
        sha256: of the file; None = not known.
        image_size: rows and columns, pixels.
        context_frames: frames in a context.
        parameters: of the denoiser; None = read from the folder.
    """

    name: str
    description: str = ""
    licence: str = "unknown"
    source: str = SHIPPED
    file: str | None = None
    size: str | None = None
    gated: bool = False
    sha256: str | None = None
    image_size: int = 0
    context_frames: int = 4
    parameters: int | None = None

    @property
    def how_to_get(self) -> str:
        """One line for a model that is not here."""
        if self.source == SHIPPED:
            return f"'{self.name}' ships with come_nav but is not in this installation; install come_nav again"
        access = "ask for access and " if self.gated else ""
        return (
            f"{access}download {self.file} from {self.source} (licence {self.licence}), by "
            f"'come-nav models pull {self.name}' or in a browser and 'come-nav models import FILE --name {self.name}'"
        )

    @property
    def repository(self) -> str:
        """Owner and name of the repository on the Hugging Face hub."""
        return self.source.removeprefix("https://huggingface.co/").strip("/")


@dataclass(frozen=True)
class Zoo:
    """Content of ``zoo.yaml``."""

    models: tuple[ZooEntry, ...] = field(default_factory=tuple)

    def find(self, name: str) -> ZooEntry | None:
        """Return the entry of that name, or None."""
        return next((entry for entry in self.models if entry.name == name), None)


def read_zoo(path: Path) -> Zoo:
    """Read ``zoo.yaml``; raise ConfigError naming the file for an unknown key or two models of one name."""
    try:
        zoo = from_mapping(Zoo, read_yaml(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    names = [entry.name for entry in zoo.models]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ConfigError(f"{path}: models must have different names, '{double[0]}' occurs twice")
    return zoo


def installed_models(folders: Sequence[Path]) -> dict[str, Path]:
    """Return name -> folder of the model folders in ``folders``; the first of a name wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        for config in sorted(folder.glob("*/config.yaml")):
            found.setdefault(config.parent.name, config.parent)
    return found
