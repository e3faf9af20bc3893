"""What a sampling step of composed experts costs, over a step of one expert alone.

Short-term and spatial experts are further views of the base's own network; the long-term expert's adapted side has
weights of its own, its other side is the base's pass and costs nothing. The table gives, for each composition, the
passes and batches of a step, its time, and the time over that of the base alone with and without guidance. Random
adapters: times do not depend on what they hold.

    python benchmarks/composition_cost.py --model tiny --candidates 64 --repeats 5
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch

from come_nav.core.files import atomic_write_text
from come_nav.core.resources import find_resource
from come_nav.core.types import Context, ContextViews, ViewSource
from come_nav.experts.lora import LongTermExpert, adapted
from come_nav.experts.lora_settings import LoraSettings
from come_nav.experts.memory_views import short_term_expert, spatial_expert
from come_nav.experts.passes import Query
from come_nav.world_model.composition import CompositionSettings, ExpertProduct
from come_nav.world_model.model import DiffusionWorldModel


def a_query(model: DiffusionWorldModel, candidates: int, generator: torch.Generator) -> Query:
    settings = model.base.model.settings
    grid = (settings.in_channels, settings.input_size, settings.input_size)
    frames = settings.context_size
    shape = (candidates, settings.extra_channels, *grid[1:])
    views = ContextViews(*(torch.randn(shape, generator=generator) for _ in ViewSource if settings.extra_channels))
    context = Context(
        torch.randn(1, frames, *grid, generator=generator),
        torch.zeros(1, frames, 3),
        torch.arange(1.0 - frames, 1.0)[None],
        torch.zeros(1, 3),
        views=views,
    ).to(model.device)
    x_t = torch.randn(candidates, *grid, generator=generator).to(model.device)
    t = torch.full((candidates,), 500, device=model.device)
    action = torch.randn(candidates, 3, generator=generator).to(model.device)
    return Query(x_t, t, context, action, torch.full((candidates,), 8.0, device=model.device))


def medians_ms(products: dict[str, ExpertProduct], query: Query, repeats: int) -> dict[str, float]:
    """Median time of a step of each product, measured in turns so that a slow minute hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in products}
    clock_s = time.perf_counter if query.x_t.is_cuda else time.process_time
    with torch.inference_mode():
        for _ in range(repeats + 1):
            for name, product in products.items():
                started_s = clock_s()
                product(query, 500).composed()
                if query.x_t.is_cuda:
                    torch.cuda.synchronize()
                times[name].append((clock_s() - started_s) * 1e3)
    return {name: statistics.median(values[1:]) for name, values in times.items()}  # the first one warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = DiffusionWorldModel.load(find_resource("models", args.model), args.device)
    generator = torch.Generator().manual_seed(0)
    query, steps, base = a_query(model, args.candidates, generator), len(model.schedule), model.base
    long_term = []
    for rank in args.ranks:
        settings = LoraSettings(rank, rank)
        expert = LongTermExpert(model.memory_base, settings)
        expert.swap(
            {n: p for n, p in adapted(model.memory_base, settings, generator).named_parameters() if p.requires_grad}
        )
        long_term.append(expert)
    pairs = {
        "base": ([base], (1.0,)),
        "base with contrast": ([base], (2.0,)),
        "base + long-term": ([base, long_term[0]], (1.0, 2.0)),
        "base with contrast + long-term": ([base, long_term[0]], (2.0, 2.0)),
        "base with contrast + 2 long-term": ([base, long_term[0], long_term[-1]], (2.0, 2.0, 2.0)),
    }
    if base.model.settings.extra_channels:
        short, spatial = short_term_expert(base), spatial_expert(base, model.memory_base)
        long = long_term[0].through(ViewSource.MEMORY)  # as a model composes it beside the spatial expert
        pairs |= {
            "base + spatial": ([base, spatial], (1.0, 1.0)),
            "base + spatial, contrast beyond it": ([base, spatial], (1.0, 1.5)),
            "base + long-term + spatial": ([base, long, spatial], (1.0, 1.0, 1.0)),
            "base + long-term + spatial, contrast beyond them": ([base, long, spatial], (1.0, 1.5, 1.25)),
            "base + short-term + long-term + spatial": ([base, short, long, spatial], (1.0, 0.5, 1.5, 1.25)),
        }
    unmerged = {rank: adapted(base, LoraSettings(rank, rank), generator) for rank in args.ranks}
    pairs |= {f"one expert, adapter of rank {rank} not merged": ([own], (1.0,)) for rank, own in unmerged.items()}
    products = {
        name: ExpertProduct(experts, CompositionSettings("normalised", weights), steps)
        for name, (experts, weights) in pairs.items()
    }
    medians = medians_ms(products, query, args.repeats)
    rows = []
    for name, product in products.items():
        passes = product.exponents(500)
        row = {
            "name": name,
            "passes": len(passes),
            "batches": len({id(own.network) for own in passes}),
            "ms_per_step": round(medians[name], 2),
        }
        rows.append(row)
        row["over_base"] = round(row["ms_per_step"] / rows[0]["ms_per_step"], 2)
        row["over_base_with_contrast"] = round(row["ms_per_step"] / rows[min(1, len(rows) - 1)]["ms_per_step"], 2)
        print(
            f"{name:44s} passes {row['passes']}  batches {row['batches']}  {row['ms_per_step']:8.2f} ms  "
            f"{row['over_base']:.2f} x base  {row['over_base_with_contrast']:.2f} x base with contrast",
            flush=True,
        )
    if args.out is not None:
        document = {
            "what": __doc__.splitlines()[0],
            "model": args.model,
            "candidates": args.candidates,
            "machine": {
                "cpu": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "torch_threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "device": args.device,
            },
            "rows": rows,
        }
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
