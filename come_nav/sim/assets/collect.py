"""Converts found packages into one asset pack."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from come_nav.core.errors import DataError
from come_nav.core.files import atomic_write_text
from come_nav.sim.assets.pack import AssetPack, Material, Model, half_of, index_document
from come_nav.sim.assets.sources import CatalogueEntry, Source, catalogue_of, surface_of, texture_files

KEPT_PX = 256  # side of a stored material
MOST_MODEL_BYTES = 8 * 2**20  # of one model with its images; larger ones are for pictures, not for robots
MODEL_FILES = (".obj", ".mtl", ".png", ".jpg", ".jpeg", ".txt", ".html")


def collect(sources: Iterable[Source], folder: Path, tell: Callable[[str], object] = lambda line: None) -> AssetPack:
    """Copy what ``sources`` hold into ``folder`` and write its index last.

    Args:
        sources: packages.
        folder: of the pack; what it holds already is replaced, name by name.
        tell: is told what was left out, one line each.

    Raises:
        DataError: where nothing usable was found, or a source is damaged.
    """
    materials: dict[str, Material] = {}
    models: dict[str, Model] = {}
    for source in sources:
        try:
            if source.kind == "textures":
                materials |= {one.name: one for one in _materials(source, folder, tell)}
            else:
                models |= {one.name: one for one in _models(source, folder, tell)}
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{source.path}: cannot be read ({error})") from error
    if not materials and not models:
        raise DataError("nothing usable was found; name a package that holds textures or furniture")
    by_name = AssetPack(
        folder,
        tuple(materials[name] for name in sorted(materials)),
        tuple(models[name] for name in sorted(models)),
    )
    atomic_write_text(folder / "index.json", json.dumps(index_document(by_name), indent=1) + "\n")
    return by_name


def _materials(source: Source, folder: Path, tell: Callable[[str], object]) -> Iterable[Material]:
    package = source.title.split()[0].split("-")[0]
    left_out = 0
    for inside, data in texture_files(source):
        painting = "portraits/" in inside
        surface = (("painting",), 0.0) if painting else surface_of(inside) if "/" not in inside else None
        if surface is None:
            left_out += 1
            continue
        name = f"{package}/{PurePosixPath(inside).with_suffix('')}"
        file = f"materials/{name}.png"
        if not _write_image(folder / file, data):
            tell(f"{source.title}: {inside} is no image that can be read; left out")
            continue
        kinds, repeat_m = surface
        yield Material(name, file, kinds, repeat_m, source.title, source.licence, half_of(name))
    if left_out:
        tell(f"{source.title}: {left_out} textures of letters, plants, doors and liquids left out")


def _write_image(path: Path, data: bytes) -> bool:
    import cv2

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    small = cv2.resize(image, (KEPT_PX, KEPT_PX), interpolation=cv2.INTER_AREA)
    return bool(cv2.imwrite(str(path), small))


def _models(source: Source, folder: Path, tell: Callable[[str], object]) -> Iterable[Model]:
    with zipfile.ZipFile(source.path) as archive:
        licence, entries = catalogue_of(archive, source.title)
        files = [item for item in archive.infolist() if not item.is_dir()]
        for entry in entries:
            if not entry.path.lower().endswith(".obj"):
                tell(f"{source.title}: {entry.name} is no OBJ model; left out")
                continue
            beside = [item for item in files if _belongs(item.filename, entry)]
            size = sum(item.file_size for item in beside)
            if not any(item.filename == entry.path for item in beside) or size > MOST_MODEL_BYTES:
                tell(f"{source.title}: {entry.name} is missing or larger than {MOST_MODEL_BYTES >> 20} MiB; left out")
                continue
            for item in beside:
                target = folder / "models" / source.path.stem / PurePosixPath(item.filename)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(item) as content, io.BytesIO(content.read()) as data:
                    target.write_bytes(data.getvalue())
            name = f"{source.path.stem}/{entry.name}"
            yield Model(
                name=name,
                file=f"models/{source.path.stem}/{entry.path}",
                category=entry.category,
                size_m=entry.size_m,
                source=source.title,
                author=entry.author,
                licence=licence,
                half=half_of(name),
                title=entry.title,
                rotation=entry.rotation,
                elevation_m=entry.elevation_m,
            )


def _belongs(name: str, entry: CatalogueEntry) -> bool:
    """Whether a file of the archive lies in a model's folder, and is of a kind that a pack keeps."""
    path, home = PurePosixPath(name), PurePosixPath(entry.path).parent
    safe = not path.is_absolute() and ".." not in path.parts
    return safe and path.parent == home and path.suffix.lower() in MODEL_FILES
