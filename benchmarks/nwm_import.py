"""Memory and time of importing a checkpoint as NWM's training writes it: weights, averaged weights and Adam's moments.

    python benchmarks/nwm_import.py --size XL            a 16 GB file (sparse: few of its bytes are on the disk)

The numbers in the file are zeros, which an import treats as any others. What is counted: the growth of the process's
own memory (RssAnon), and that of its largest resident size, which includes pages of the mapped file that the system
takes back whenever it needs them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import status_bytes
from torch import Tensor
from torch.serialization import skip_data

from come_nav.core.files import atomic_write_text
from come_nav.experts.cdit import CDIT_SIZES, CDiT
from come_nav.world_model.nwm.importer import ImportSettings, import_checkpoint


def write_sparse(path: Path, size: str) -> None:
    """Write the layout of a whole training checkpoint with holes in place of numbers."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in CDiT(**CDIT_SIZES[size]).state_dict().items()}

    def tensors() -> dict[str, Tensor]:
        return {name: torch.empty(shape) for name, shape in shapes.items()}  # untouched, so it takes no memory

    moments = zip(tensors().values(), tensors().values(), strict=True)
    state = {index: {"exp_avg": first, "exp_avg_sq": second} for index, (first, second) in enumerate(moments)}
    content = {
        "model": {f"_orig_mod.{name}": tensor for name, tensor in tensors().items()},
        "ema": tensors(),
        "opt": {"state": state, "param_groups": [{"lr": 8e-5}]},
        "args": argparse.Namespace(config="config/nwm_cdit_xl.yaml"),
        "epoch": 1,
        "train_steps": 100_000,
    }
    with skip_data():
        torch.save(content, path)


def write_autoencoder(folder: Path) -> None:
    """Write a small AutoencoderKL of the class that NWM uses; the real one's 335 MB would only be added."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = 4
    AutoencoderKL(
        block_out_channels=(8,) * levels, norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels, latent_channels=4, layers_per_block=1,
    ).save_pretrained(folder)  # fmt: skip


def measure(size: str, folder: Path) -> dict[str, Any]:
    """Import a checkpoint of ``size`` in ``folder`` and return what it took."""
    source, written = folder / f"cdit_{size.lower()}.pth.tar", folder / "model"
    write_autoencoder(folder / "vae")
    write_sparse(source, size)
    with torch.device("meta"):
        state = CDiT(**CDIT_SIZES[size]).state_dict()
    Path("/proc/self/clear_refs").write_text("5")  # forget the largest size so far
    own, resident, peak = status_bytes("RssAnon"), status_bytes("VmRSS"), 0

    def watch(_: int) -> None:
        nonlocal peak
        peak = max(peak, status_bytes("RssAnon"))

    started, busy = time.perf_counter(), time.process_time()
    import_checkpoint(source, written, ImportSettings(size, autoencoder=str(folder / "vae")), progress=watch)
    return {
        "size": size,
        "file_bytes": source.stat().st_size,
        "written_bytes": (written / "model.safetensors").stat().st_size,
        "largest_tensor_bytes": 4 * max(tensor.numel() for tensor in state.values()),
        "own_memory_growth_bytes": peak - own,
        "resident_growth_bytes": status_bytes("VmHWM") - resident,
        "wall_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - busy,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="XL", choices=list(CDIT_SIZES))
    parser.add_argument("--folder", type=Path, help="where the files lie for a while (default: the system's)")
    parser.add_argument("--machine", default="")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/nwm_import.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        found = measure(args.size, Path(name))
    for key, value in found.items():
        print(f"{key:26} {value if isinstance(value, str) else format(round(value, 1), ',')}")
    atomic_write_text(
        args.out, json.dumps({"machine": args.machine, "torch": torch.__version__, **found}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
