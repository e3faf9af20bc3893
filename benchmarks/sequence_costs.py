"""What a memory of sequences costs, by the frames that it has seen: a frame, a read-out, and the bytes of its state.

    python benchmarks/sequence_costs.py

The networks are those of config/train_sequence.yaml, untrained: what a state holds does not change what it costs, so
states are filled with random numbers. What would take more than --most-gb is extrapolated from the two longest that
were measured, and marked. Processor time of one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from machine import machine_facts

from come_nav.core.files import atomic_write_text
from come_nav.core.resources import find_resource
from come_nav.core.settings import from_mapping, read_yaml
from come_nav.experts.sequence.mixers import Kept
from come_nav.experts.sequence.network import CLEAN, SequenceDenoiser, SequenceState
from come_nav.training.pretrained import merged
from come_nav.training.sequence.settings import SequenceTrainSettings, default_values
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder
from come_nav.world_model.sequence.model import SequenceModel, SequenceModelSettings

KINDS = {"sliding window": "window", "full attention": "full", "state space": "ssm"}
LONG = 30_000  # frames; states of so many are timed three times


def untrained(kind: str, config: str) -> SequenceModel:
    """Return an untrained model of a kind."""
    values = merged(default_values(kind), read_yaml(find_resource("config", config)))
    settings = from_mapping(SequenceTrainSettings, values)
    shape = SequenceModelSettings(network=settings.network, autoencoder=settings.autoencoder)
    return SequenceModel(shape, SequenceDenoiser(settings.network), ImageAutoencoder(settings.autoencoder))


def cost_curve(model: SequenceModel, frames: list[int], most_gb: float, repeats: int) -> list[dict[str, Any]]:
    """Return for each number of frames seen: ms a frame, ms a read-out, MB, and whether it was extrapolated."""
    found: list[dict[str, Any]] = []
    for count in frames:
        if state_bytes(model, count) > most_gb * 1e9:
            found.append(extrapolated(found, count, state_bytes(model, count)))
            continue
        state = filled_state(model, count)
        times = timed(model, state, min(repeats, max(3, LONG // count)))
        found.append({"frames": count, **times, "mb": state.size_bytes / 1e6, "extrapolated": False})
    return found


@torch.no_grad()
def timed(model: SequenceModel, state: SequenceState, repeats: int) -> dict[str, float]:
    """Return the median processor time of one more frame and of one read-out, ms."""
    latent = model.settings.network
    x = torch.randn(1, 1, latent.in_channels, latent.input_size, latent.input_size)
    clean, none = torch.full((1, 1), CLEAN), torch.zeros(1, 1, 3)
    generator = torch.Generator().manual_seed(0)
    return {
        "frame_ms": median_ms(lambda: model.network.velocity(x, clean, none, none, state), repeats),
        "read_out_ms": median_ms(lambda: model.imagine(state, none[0], none[0], generator), repeats),
    }


def state_bytes(model: SequenceModel, frames: int) -> int:
    """Return the bytes of a state after so many frames, without making it."""
    start = model.network.start().size_bytes
    if model.settings.network.memory != "full":
        return start
    one = model.network.model.start(1).layers[0][0]["key"]
    per_frame = one.shape[0] * one.shape[1] * one.shape[3] * one.shape[4] * one.element_size()
    return int(start + 2 * per_frame * model.settings.network.depth * frames)


def filled_state(model: SequenceModel, frames: int) -> SequenceState:
    """Return a state of random numbers that has seen so many frames: what it holds does not change what it costs."""
    generator = torch.Generator().manual_seed(0)

    def filled(kept: Kept, grows: bool) -> Kept:
        shapes = {key: [*own.shape] for key, own in kept.items()}
        for shape in shapes.values():
            shape[2] = frames if grows else shape[2]
        return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}

    grows = model.settings.network.memory == "full"
    layers = [(filled(memory, grows), filled(local, False)) for memory, local in model.network.start().layers]
    return SequenceState(tuple(layers), frames)


def extrapolated(measured: list[dict[str, Any]], frames: int, size: int) -> dict[str, Any]:
    """Return the line through the two longest that were measured, at ``frames``."""
    first, second = measured[-2:]
    share = (frames - first["frames"]) / (second["frames"] - first["frames"])
    times = {key: first[key] + share * (second[key] - first[key]) for key in ("frame_ms", "read_out_ms")}
    return {"frames": frames, **times, "mb": size / 1e6, "extrapolated": True}


def median_ms(call: Any, repeats: int) -> float:
    """Return the median processor time of a call, ms, after one that sets up."""
    call()
    times = []
    for _ in range(repeats):
        started_s = time.process_time()
        call()
        times.append(time.process_time() - started_s)
    return 1e3 * sorted(times)[len(times) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="train_sequence.yaml", help="training configuration of the networks")
    parser.add_argument("--frames", type=int, nargs="+", default=[100, 1000, 10_000, 100_000], help="that were seen")
    parser.add_argument("--most-gb", type=float, default=2.0, help="largest state that is measured, GB")
    parser.add_argument("--repeats", type=int, default=21, help="of each timing")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/sequence_costs.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings = {"config": args.config, "frames": args.frames, "most_gb": args.most_gb, "repeats": args.repeats}
    document: dict[str, Any] = {"what": __doc__.splitlines()[0], "settings": settings, "machine": machine_facts()}
    document["rows"] = {}
    for name, kind in KINDS.items():
        document["rows"][name] = cost_curve(untrained(kind, args.config), args.frames, args.most_gb, args.repeats)
        for own in document["rows"][name]:
            print(name, own, flush=True)
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
