"""An asset pack: a folder with ``index.json``, which lists every material and model with its origin and licence."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError, DataError
from come_nav.core.settings import from_mapping
from come_nav.sim.building.textures import TEXTURE_SIZE

INDEX, VERSION = "index.json", 1
TRAIN, HELD_OUT = "train", "held_out"


@dataclass(frozen=True)
class Material:
    """A photographed or painted surface.

    Attributes:
        name: source and name, unique in the pack.
        file: image, relative to the pack.
        kinds: what it may cover: floor, wall, ceiling, wood, front, painting.
        repeat_m: length that the image covers, m; 0 = it is stretched over a face.
        source: package it came from, with its version where known.
        licence: as that package states it.
        half: train or held_out.
    """

    name: str
    file: str
    kinds: tuple[str, ...]
    repeat_m: float
    source: str
    licence: str
    half: str


@dataclass(frozen=True)
class Model:
    """A piece of furniture as a triangle mesh.

    Attributes:
        name: unique in the pack.
        file: OBJ file with its materials and images beside it, relative to the pack; y is up.
        category: of its catalogue, e.g. "Bedroom".
        size_m: width, depth and height that the catalogue gives, m.
        source: package and catalogue it came from.
        author: as the catalogue names them.
        licence: as the catalogue states it.
        half: train or held_out.
        title: what the catalogue calls it; tells what it is.
        rotation: 9 numbers, row by row, that turn the file's axes into x right, y up, z to the front; none = they are.
        elevation_m: at which it hangs; 0 = it stands on the floor.
    """

    name: str
    file: str
    category: str
    size_m: tuple[float, float, float]
    source: str
    author: str
    licence: str
    half: str
    title: str = ""
    rotation: tuple[float, ...] = ()
    elevation_m: float = 0.0


@dataclass(frozen=True)
class AssetPack:
    """What a pack holds; ``folder`` is where it lies."""

    folder: Path
    materials: tuple[Material, ...]
    models: tuple[Model, ...]

    def of_kind(self, kind: str, half: str) -> list[Material]:
        """Return the materials of one kind and half, by name."""
        return [material for material in self.materials if kind in material.kinds and material.half == half]


def half_of(name: str) -> str:
    """Return the half that a material or model belongs to, from its name alone: the same wherever it is collected."""
    return TRAIN if hashlib.sha256(name.encode("utf-8")).digest()[0] % 2 == 0 else HELD_OUT


def default_folder() -> Path:
    """Return where packs are kept: $XDG_DATA_HOME/come_nav/assets, ~/.local/share/come_nav/assets without it."""
    base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(base) / "come_nav" / "assets"


def read_pack(folder: Path | str | None = None) -> AssetPack:
    """Read a pack's index.

    Args:
        folder: of the pack; the default one where None.

    Raises:
        ConfigError: where there is none.
        DataError: for an index that is damaged, or of another version.
    """
    place = default_folder() if folder is None else Path(folder)
    path = place / INDEX
    if not path.is_file():
        raise ConfigError(f"{place}: holds no asset pack; make one with come-nav assets collect --out {place}")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["version"] != VERSION:
            raise DataError(f"{path}: is of version {document['version']}, not {VERSION}; collect it again")
        materials = tuple(from_mapping(Material, entry, "material.") for entry in document["materials"])
        models = tuple(from_mapping(Model, entry, "model.") for entry in document["models"])
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
        raise DataError(f"{path}: is damaged ({error}); collect it again with come-nav assets collect") from error
    return AssetPack(place, materials, models)


def index_document(pack: AssetPack) -> dict[str, Any]:
    """Return the index of a pack as JSON values."""
    return {
        "version": VERSION,
        "materials": [asdict(material) for material in pack.materials],
        "models": [asdict(model) for model in pack.models],
    }


@lru_cache(maxsize=256)
def texture_of(path: Path) -> NDArray[np.float32]:
    """Return the image at ``path`` as a texture (3, S, S) in [0, 1]; raise DataError where it cannot be read."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{path}: cannot be read as an image; collect the pack again with come-nav assets collect")
    small = cv2.resize(image[..., ::-1], (TEXTURE_SIZE, TEXTURE_SIZE), interpolation=cv2.INTER_AREA)
    texture: NDArray[np.float32] = np.ascontiguousarray(small.transpose(2, 0, 1)).astype(np.float32) / 255.0
    return texture
