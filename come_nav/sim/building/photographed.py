"""Covers the surfaces of a world with photographed materials and hangs paintings, all from an asset pack."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError
from come_nav.sim.assets.pack import AssetPack, Material, texture_of
from come_nav.sim.building.floor_plan import WALL_HALF_M
from come_nav.sim.building.textures import IMAGES_PER_WORLD, PATTERN_INDEX

PAINTINGS_SHARE = 0.7  # of the posters; the first image of a world is its windows' view
TINT = 0.25  # how much of a surface's own colour its photograph takes on
OF_PATTERN = {"wood": ("wood", "planks"), "front": ("doors", "drawers", "cardboard")}
KINDS = ("floor", "ceiling", "wall", "wood", "front")
BRIGHT = {"ceiling": 1.3}


@dataclass
class Looks:
    """Surface rows and images of a world, as :class:`come_nav.sim.worlds.World` has them."""

    boxes: torch.Tensor
    faces: torch.Tensor
    floors: torch.Tensor
    ceilings: torch.Tensor
    images: torch.Tensor
    added: list[NDArray[np.float32]] = field(default_factory=list)


def cover(looks: Looks, ceiling_m: float, pack: AssetPack, half: str, seed: int) -> Looks:
    """Return the looks with photographs on floors, walls, ceilings and furniture.

    What a surface gets depends on ``seed`` and on how it looked alone, so that look-alike rooms stay alike and a world
    is the same at every visit. A kind of surface of which this half of the pack holds none stays as it is drawn.

    Raises:
        ConfigError: for a pack without any material of this half.
    """
    if not any(material.half == half for material in pack.materials):
        raise ConfigError(f"{pack.folder}: holds no material of the {half} half; collect more with come-nav assets")
    result = Looks(looks.boxes, looks.faces.clone(), looks.floors.clone(), looks.ceilings.clone(), looks.images.clone())
    boxes = looks.boxes
    wall = (boxes[:, 2:4].amin(1) - WALL_HALF_M).abs() < 1e-3
    wall &= boxes[:, 6] >= ceiling_m - 1e-3
    sides = torch.zeros(result.faces.shape[:2], dtype=torch.bool)
    sides[wall, :4] = True
    places: list[tuple[str, torch.Tensor, torch.Tensor]] = [
        ("floor", result.floors, torch.ones(len(result.floors), dtype=torch.bool)),
        ("ceiling", result.ceilings, torch.ones(len(result.ceilings), dtype=torch.bool)),
        ("wall", result.faces, sides),
    ]
    for kind, patterns in OF_PATTERN.items():
        numbers = torch.tensor([PATTERN_INDEX[name] for name in patterns], dtype=torch.float32)
        places.append((kind, result.faces, torch.isin(looks.faces[..., 0], numbers) & ~sides))
    for kind, rows, chosen in places:
        _cover_rows(result, rows, chosen, pack.of_kind(kind, half), kind, pack, seed)
    paintings, rng = pack.of_kind("painting", half), np.random.default_rng([seed, 1])
    for index in range(1, IMAGES_PER_WORLD):
        if paintings and rng.random() < PAINTINGS_SHARE:
            chosen_one = paintings[int(rng.integers(len(paintings)))]
            result.images[index] = torch.from_numpy(texture_of(pack.folder / chosen_one.file))
    if result.added:
        result.images = torch.cat([result.images, torch.from_numpy(np.stack(result.added))])
    return result


def _cover_rows(
    looks: Looks,
    rows: torch.Tensor,
    chosen: torch.Tensor,
    materials: list[Material],
    kind: str,
    pack: AssetPack,
    seed: int,
) -> None:
    """Give all rows that looked the same one material, in place."""
    if not materials or not bool(chosen.any()):
        return
    own = rows[chosen]
    keys = own[:, [0, 6, 7, 8]].mul(1e4).round()
    kinds, group = torch.unique(keys, dim=0, return_inverse=True)
    for number in range(len(kinds)):
        rng = np.random.default_rng([seed, 1, KINDS.index(kind), *kinds[number].abs().int().tolist()])
        material = materials[int(rng.integers(len(materials)))]
        mine = group == number
        own[mine] = _covered(own[mine], _image(looks, material, pack), material, kind)
    rows[chosen] = own


def _image(looks: Looks, material: Material, pack: AssetPack) -> int:
    """Return the number of the material's image among the world's, which it joins if it is new."""
    texture = texture_of(pack.folder / material.file)
    for number, known in enumerate(looks.added):
        if known is texture:
            return IMAGES_PER_WORLD + number
    looks.added.append(texture)
    return IMAGES_PER_WORLD + len(looks.added) - 1


def _covered(rows: torch.Tensor, image: int, material: Material, kind: str) -> torch.Tensor:
    """Return rows (M, 15) with the image on them, at its own size where it has one."""
    result = rows.clone()
    result[:, 0] = -1 - image
    if material.repeat_m > 0 and kind != "front":
        per_metre = torch.hypot(rows[:, 1], rows[:, 2]).clamp(min=1e-6)
        result[:, 1:6] *= (1.0 / (material.repeat_m * per_metre))[:, None]
    result[:, 6:9] = BRIGHT.get(kind, 1.0) * (1.0 - TINT) + TINT * rows[:, 6:9]
    return result
