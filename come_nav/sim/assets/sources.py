"""Where assets are found on a user's machine, and what is in them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from come_nav.core.errors import ConfigError, DataError

FURNITURE_FOLDER = Path("/usr/share/sweethome3d/furniture")
CATALOGUE = "PluginFurnitureCatalog.properties"

# miniworld's textures that may cover a surface indoors: kinds, and the metres that one image covers
SURFACES: dict[str, tuple[tuple[str, ...], float]] = {
    "asphalt": (("floor",), 1.5),
    "brick_wall": (("wall",), 1.2),
    "cardboard": (("front",), 0.6),
    "ceiling_tile": (("ceiling",), 1.2),
    "cinder_blocks": (("wall",), 1.2),
    "concrete": (("floor", "wall"), 1.5),
    "concrete_tiles": (("floor",), 1.2),
    "door_steel": (("front",), 0.0),
    "drywall": (("wall", "ceiling"), 1.5),
    "floor_tiles": (("floor",), 1.0),
    "marble": (("floor", "wall"), 1.2),
    "metal_grill": (("front",), 0.6),
    "rock": (("wall",), 1.5),
    "stucco": (("wall", "ceiling"), 1.2),
    "white": (("wall", "ceiling"), 1.0),
    "wood": (("floor", "wood"), 0.9),
    "wood_planks": (("floor", "wood"), 1.2),
}


@dataclass(frozen=True)
class Source:
    """A package: its kind (textures or furniture), its files and its name and version for the index."""

    kind: str
    path: Path
    title: str
    licence: str = ""


@dataclass(frozen=True)
class CatalogueEntry:
    """One model of a furniture catalogue; ``path`` is inside the archive."""

    name: str
    path: str
    category: str
    size_m: tuple[float, float, float]
    author: str
    title: str
    rotation: tuple[float, ...]
    elevation_m: float


def installed_package(name: str) -> Source:
    """Return the textures of an installed Python package, which is not imported."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise ConfigError(f"--pip {name}: is not installed here; pip install --no-deps {name}, or --from its wheel")
    meta = importlib.metadata.metadata(name)
    folder = Path(next(iter(found.submodule_search_locations)))
    return _textures(folder, f"{name} {meta['Version']}", meta["License"] or "unknown")


def installed_furniture(name: str, folder: Path = FURNITURE_FOLDER) -> list[Source]:
    """Return the catalogues of an installed Debian package."""
    found = sorted(folder.glob("*.sh3f"))
    if not found:
        raise ConfigError(f"--deb {name}: {folder} holds no .sh3f file; apt-get install {name}, or --from a folder")
    return [Source("furniture", path, f"{name}/{path.stem}") for path in found]


def sources_in(path: Path) -> list[Source]:
    """Return what a folder, a wheel or a furniture catalogue holds; raise ConfigError where that is nothing."""
    if path.suffix == ".whl" and path.is_file():
        return [_textures(path, "-".join(path.stem.split("-")[:2]), _wheel_licence(path))]
    if path.suffix == ".sh3f" and path.is_file():
        return [Source("furniture", path, path.stem)]
    if not path.is_dir():
        raise ConfigError(f"--from {path}: must be a folder, a wheel or a .sh3f file; unpack a .deb with dpkg -x first")
    found = [Source("furniture", catalogue, catalogue.stem) for catalogue in sorted(path.rglob("*.sh3f"))]
    found += [source for wheel in sorted(path.glob("miniworld*.whl")) for source in sources_in(wheel)]
    textures = [folder.parent for folder in sorted(path.rglob("textures")) if folder.is_dir()]
    found += [_textures(folder, folder.name, "unknown") for folder in textures]
    if not found:
        raise ConfigError(f"--from {path}: holds no textures/ folder, no miniworld wheel and no .sh3f catalogue")
    return found


def surface_of(name: str) -> tuple[tuple[str, ...], float] | None:
    """Return kinds and repeat of a texture's file, e.g. ``concrete_2.png``; None for what is no surface indoors."""
    stem = re.sub(r"_(\d+|bw_\d+|white|noborder_\d+|brown|grey|red)$", "", Path(name).stem)
    best = max((key for key in SURFACES if stem == key or stem.startswith(key + "_")), key=len, default=None)
    best = best or (stem.rstrip("s") if stem.rstrip("s") in SURFACES else None)
    return None if best is None else SURFACES[best]


def texture_files(source: Source) -> Iterator[tuple[str, bytes]]:
    """Yield name (below textures/) and bytes of every PNG and JPEG of a source of textures."""
    if source.path.suffix == ".whl":
        with zipfile.ZipFile(source.path) as archive:
            for name in sorted(archive.namelist()):
                before, found, inside = name.partition("/textures/")
                if found and "/" not in before and inside.lower().endswith((".png", ".jpg")):
                    yield inside, archive.read(name)
        return
    folder = source.path / "textures"
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".png", ".jpg"):
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def catalogue_of(archive: zipfile.ZipFile, title: str) -> tuple[str, list[CatalogueEntry]]:
    """Return licence and models of a furniture catalogue; raise DataError where it has none."""
    try:
        text = archive.read(CATALOGUE).decode("latin-1")
    except KeyError:
        raise DataError(f"{title}: holds no {CATALOGUE}; it is no catalogue of Sweet Home 3D") from None
    entries: dict[str, dict[str, str]] = {}
    licence = "unknown"
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if not equals or line.startswith("#"):
            continue
        word, numbered, number = key.strip().partition("#")
        if numbered:
            entries.setdefault(number, {})[word] = value.strip()
        elif word == "license":
            licence = " ".join(value.split())
    return licence, [_entry(values) for values in entries.values() if {"id", "model", "width"} <= values.keys()]


def _entry(values: dict[str, str]) -> CatalogueEntry:
    width, depth, height = (0.01 * float(values.get(name, "0")) for name in ("width", "depth", "height"))
    path = values["model"].lstrip("/")
    return CatalogueEntry(
        name=values["id"].replace("#", "/"),
        path=path,
        category=values.get("category", ""),
        size_m=(width, depth, height),
        author=values.get("creator", "unknown"),
        title=values.get("name", ""),
        rotation=tuple(float(word) for word in values.get("modelRotation", "").split()),
        elevation_m=0.01 * float(values.get("elevation", "0")),
    )


def _textures(path: Path, title: str, licence: str) -> Source:
    return Source("textures", path, title, licence)


def _wheel_licence(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".dist-info/METADATA"):
                found: Sequence[str] = re.findall(r"^License: (.+)$", archive.read(name).decode("utf-8"), re.MULTILINE)
                return found[0].strip() if found else "unknown"
    return "unknown"
