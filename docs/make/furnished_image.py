"""Makes docs/images/furnished.png: views of furnished worlds, from models in the public domain alone.

python docs/make/furnished_image.py      needs the asset pack (come-nav assets collect)

Of the pack's models it takes those whose licence is "Public domain"; surfaces are miniworld's (Apache-2.0), paintings
are in the public domain. Validation worlds show the held-out half of both.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from come_nav.core.files import atomic_path
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.assets.pack import AssetPack, index_document, read_pack
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.chain import to_uint8
from come_nav.sim.world_sets import WORLD_SETS
from come_nav.sim.worlds import World, generate_world
from come_nav.viz.frames import compose_panels
from come_nav.viz.images import png_from_rgb

ROOT = Path(__file__).resolve().parents[2]
WORLDS = (10002, 10007)
PER_WORLD, CANDIDATES = 3, 60
LICENCE = "Public domain"
HEIGHT_M, PITCH_RAD = 1.2, -0.15


def public_pack(folder: Path) -> AssetPack:
    """Write an index of the user's pack with models in the public domain alone into ``folder``."""
    pack = read_pack()
    materials = tuple(replace(one, file=str(pack.folder / one.file)) for one in pack.materials)
    models = tuple(replace(one, file=str(pack.folder / one.file)) for one in pack.models if one.licence == LICENCE)
    found = AssetPack(folder, materials, models)
    (folder / "index.json").write_text(json.dumps(index_document(found)), encoding="utf-8")
    return found


def views_of(world: World, seed: int) -> torch.Tensor:
    """Return the poses (N, 3), one a room, from which most furniture is seen at some distance."""
    generator = torch.Generator().manual_seed(seed)
    small = CameraIntrinsics.from_field_of_view(32, 24, np.radians(90.0))
    renderers = [Raycaster([one], small, HEIGHT_M, pitch_rad=PITCH_RAD) for one in (world, replace(world, models=()))]
    best = []
    for x0, y0, x1, y1 in world.rooms.tolist():
        share = torch.rand(CANDIDATES, 3, generator=generator)
        poses = share * torch.tensor([x1 - x0, y1 - y0, 2 * torch.pi]) + torch.tensor([x0, y0, 0.0])
        poses = poses[world.free(poses[:, :2], 0.3)]
        if len(poses) == 0:
            continue
        depth, bare = (renderer.render(poses)[1] for renderer in renderers)
        seen = ((depth < bare - 0.05) & (depth > 1.8)).flatten(1).float().mean(1)
        near = (depth < 1.3).flatten(1).float().mean(1)
        score = seen - 2.0 * near
        best.append((float(score.max()), poses[int(score.argmax())]))
    best.sort(key=lambda found: -found[0])
    return torch.stack([pose for _, pose in best[:PER_WORLD]])


def main() -> None:
    """Render the views and write the image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "furnished.png")
    args = parser.parse_args()
    panels = {}
    with tempfile.TemporaryDirectory() as made:
        pack = public_pack(Path(made))
        for seed in WORLDS:
            world = generate_world(seed, replace(WORLD_SETS["furnished"], assets=str(pack.folder)))
            camera = CameraIntrinsics.from_field_of_view(320, 240, np.radians(90.0))
            raycaster = Raycaster([world], camera, HEIGHT_M, pitch_rad=PITCH_RAD)
            for number, image in enumerate(to_uint8(raycaster.render(views_of(world, seed))[0]), 1):
                panels[f"world {seed}, room {number}"] = image
    with atomic_path(args.out) as temporary:
        temporary.write_bytes(png_from_rgb(compose_panels(panels, cell_px=320, columns=3)))


if __name__ == "__main__":
    main()
