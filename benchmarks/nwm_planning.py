"""Cost of one plan of NWM's protocol: the released loop against come_nav's paths, and what the savings do to ATE.

    python benchmarks/nwm_planning.py                          CPU: unit costs at size S, a reduced plan, ATE of tiny
    python benchmarks/nwm_planning.py --device cuda --full --sizes S XL        whole plans, where a GPU is at hand;
        those foreseen to take longer than --longest-s are told by their counted calls
    python benchmarks/nwm_planning.py --sizes --plan-size S --samples 2 --only "released loop" "one jump, DDIM 5"
                                                               whole plans of a published size at few candidates
    python benchmarks/nwm_planning.py --ate nwm_data --model tiny              only the effect on ATE, on a data set

Weights are random: the time of a network does not depend on them. The full protocol's seconds are, without --full,
counted calls times measured unit costs. Plans at reduced numbers are measured whole beside them and compared with
the same prediction, so that the ratio of the full protocol rests on more than a product. Each run replaces its own part
of the result file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.files import atomic_write_text
from come_nav.evaluation.metrics.statistics import bootstrap_mean
from come_nav.experts.base import BaseExpert
from come_nav.experts.cdit import CDIT_SIZES, CDiT
from come_nav.experts.normalizer import Normalizer
from come_nav.planning.nwm_search import NwmPlanner, NwmSearchSettings
from come_nav.planning.objectives import ImageDistance, LatentDistance
from come_nav.world_model.autoencoders.autoencoder import NWM_SCALING_FACTOR, AutoencoderSettings, ImageAutoencoder
from come_nav.world_model.codec import encode_moments
from come_nav.world_model.inference_settings import InferenceSettings, Precision
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.nwm.rollout import NwmImaginer, RolloutPath, micro_batch_for
from come_nav.world_model.sampling.schedule import NoiseSchedule
from come_nav.world_model.sampling.settings import SamplerSettings

OFFICIAL = SamplerSettings("ddpm", 250, spacing="even")
CONTEXT = 4
# path, cost, sampler, steps, stride of the rows that are evaluated by ATE; every other one is compared with the first
ATE_WAYS = [
    ("pixels", "image", "ddim", 8, 1),
    ("moments", "image", "ddim", 8, 1),
    ("latents", "image", "ddim", 8, 1),
    ("latents", "latent", "ddim", 8, 1),
    ("latents", "latent", "ddim", 5, 1),
    ("latents", "latent", "ddim", 2, 1),
    ("latents", "latent", "ddpm", 250, 8),
    ("latents", "latent", "ddim", 10, 8),
    ("latents", "latent", "ddim", 5, 8),
    ("latents", "latent", "ddim", 2, 8),
]


@dataclass(frozen=True)
class Way:
    """One way to make a plan: how the rollout goes on, which cost, which sampler, and what that changes."""

    name: str
    path: RolloutPath
    cost: str
    sampler: SamplerSettings
    changes: str
    jump: bool = False  # the end of a path at once, instead of frame by frame


def ways() -> list[Way]:
    few = {steps: SamplerSettings("ddim", steps) for steps in (10, 5, 2)}
    return [
        Way("released loop", "pixels", "image", OFFICIAL, "-"),
        Way("kept moments", "moments", "image", OFFICIAL, "nothing: the same distribution"),
        Way("latent rollout", "latents", "image", OFFICIAL, "no decode-clip-encode between steps"),
        Way("latent rollout, DDIM 5", "latents", "image", few[5], "and 5 deterministic steps"),
        Way("latent rollout and cost, DDIM 5", "latents", "latent", few[5], "and views compared as latents"),
        Way("latent rollout and cost, DDIM 2", "latents", "latent", few[2], "and 2 deterministic steps"),
        Way("one jump, DDIM 10", "latents", "latent", few[10], "10 deterministic steps, latent cost, no rollout", True),
        Way("one jump, DDIM 5", "latents", "latent", few[5], "5 deterministic steps, latent cost, no rollout", True),
        Way("one jump, DDIM 2", "latents", "latent", few[2], "2 deterministic steps, latent cost, no rollout", True),
    ]


def build(size: str, device: str, precision: Precision) -> DiffusionWorldModel:
    """Return a model with random weights: S, B, L, XL as published, or 'reduced' (64 px, the same classes)."""
    torch.manual_seed(0)
    if size == "reduced":
        autoencoder = AutoencoderSettings(64, 4, (16, 32, 32, 32), 1, 8, True, NWM_SCALING_FACTOR)
        network = CDiT(input_size=8, context_size=CONTEXT, hidden_size=96, depth=3, num_heads=4)
    else:
        autoencoder, network = AutoencoderSettings.stable_diffusion(), CDiT(**CDIT_SIZES[size])
    expert = BaseExpert(network, Normalizer.nwm(0.25)).eval()
    model = DiffusionWorldModel(
        ImageAutoencoder(autoencoder).eval(),
        {"base": expert},
        NoiseSchedule.linear(),
        OFFICIAL,
        inference=InferenceSettings(precision=precision),
    ).to(device)
    model.inference = InferenceSettings(micro_batch_for(model), precision=precision)
    return model


def seconds_of(work: Any, device: str, repeats: int) -> dict[str, float]:
    """Return the least wall and processor seconds of a call; on a shared machine the wall clock counts others' work."""
    wall, busy = [], []
    for _ in range(repeats):
        started, busy_started = time.perf_counter(), time.process_time()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - started)
        busy.append(time.process_time() - busy_started)
    return {"wall_s": min(wall), "cpu_s": min(busy)}


def unit_costs(size: str, device: str, precision: Precision, batch: int, repeats: int) -> dict[str, Any]:
    """Return seconds of one denoiser sample, one encoded and one decoded image."""
    model = build(size, device, precision)
    pixels, grid = model.image_size, model.base.model.settings.input_size
    images = torch.rand(batch, 3, pixels, pixels, device=device) * 2 - 1
    latents = torch.randn(batch, 4, grid, grid, device=device)
    context = model.context_from_images(torch.zeros(CONTEXT, 3, pixels, pixels), torch.zeros(CONTEXT, 3))
    action, ahead, t = torch.zeros(batch, 3, device=device), torch.ones(batch, device=device), torch.zeros(batch).long()

    fast = precision == "bfloat16" or (precision == "auto" and device.startswith("cuda"))

    @torch.inference_mode()
    def forward() -> None:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=fast):
            model.base.eps_with_variance(latents, t.to(device), context, action, ahead)

    calls = {
        "forward": forward,
        "encode": lambda: encode_moments(model, images),
        "decode": lambda: model.decode(latents),
    }
    found: dict[str, Any] = {}
    for name, call in calls.items():
        if device.startswith("cuda"):
            call()  # warm up
        measured = seconds_of(call, device, repeats)
        found[name] = {key: value / batch for key, value in measured.items()}
    return {"size": size, "batch": batch, "n": repeats, "precision": precision, **found}


def full_counts(way: Way, samples: int, repeats: int, waypoints: int) -> dict[str, int]:
    """Return the calls of one plan: every candidate of every repeat, the answer, and the goal of the latent cost."""
    rollouts = samples * repeats + 1
    steps = rollouts * (1 if way.jump else waypoints)
    encodes = {"pixels": CONTEXT * steps, "moments": CONTEXT + steps - rollouts, "latents": CONTEXT}[way.path]
    decodes = steps if way.path != "latents" else (rollouts if way.cost == "image" else 0)
    encodes += way.cost == "latent"
    return {"forwards": steps * way.sampler.steps, "encodes": encodes, "decodes": decodes}


def estimate(way: Way, unit: dict[str, Any], clock: str, search: NwmSearchSettings | None = None) -> dict[str, Any]:
    """Return the counted calls of a search (the full protocol's) and their seconds at the measured unit costs."""
    search = search or NwmSearchSettings()
    counts = full_counts(way, search.samples, search.repeats, search.steps)
    parts = {name: counts[f"{name}s"] * unit[name][clock] for name in ("forward", "encode", "decode")}
    return {**counts, "seconds": sum(parts.values()), "seconds_by_part": parts}


def measured_plan(
    model: DiffusionWorldModel, way: Way, search: NwmSearchSettings, device: str, unit: dict[str, Any], clock: str
) -> dict[str, Any]:
    """Make one plan; return its seconds, the calls that it made, those foreseen, and their seconds at ``unit``."""
    model.sampler = way.sampler
    generator = torch.Generator(device).manual_seed(0)
    pixels = model.image_size
    images = torch.rand(CONTEXT, 3, pixels, pixels, generator=torch.Generator().manual_seed(1)) * 2 - 1
    goal = images[-1:].flip(-1)
    imaginer = NwmImaginer(
        model,
        images,
        np.zeros((CONTEXT, 3)),
        way.path,
        way.cost == "image",
        stride=search.steps if way.jump else 1,
    )

    def plan() -> None:
        encoded_goal = way.cost == "latent"
        cost = LatentDistance(model.encode(goal)) if encoded_goal else ImageDistance(goal[0].to(device))
        imaginer.counts.encodes += encoded_goal
        NwmPlanner(search).plan(imaginer, cost, generator)

    start_peak(device)
    spent = seconds_of(plan, device, 1)
    expected = estimate(way, unit, clock, search)
    counted = asdict(imaginer.counts)
    assert all(expected[name] == counted[name] for name in counted), (way.name, expected, counted)
    return {"way": way.name, **spent, **counted, "foreseen_s": expected["seconds"], "peak_bytes": peak_bytes(device)}


def start_peak(device: str) -> None:
    """Forget the peak of memory so far."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: str) -> int:
    """Return the peak of memory since :func:`start_peak`: of the GPU, or of the process."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def ate_by_way(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Evaluate a trained model on a data set in NWM's layout, on the same windows and random numbers in every way."""
    import contextlib
    import io

    from come_nav.cli.main import main as come_nav

    search = ["--windows", str(args.windows), "--samples", str(args.samples), "--top-k", "5", "--repeats", "1"]
    data = ["--dataset", "recon", "--root", str(args.ate), "--model", args.model, "--device", args.device]
    found: list[dict[str, Any]] = []
    errors: list[NDArray[np.float64]] = []
    for path, cost, sampler, steps, stride in (ATE_WAYS[number] for number in args.ways):
        words = ["evaluate", "--protocol", "nwm", *data, *search]
        words += ["--rollout-path", path, "--cost", cost, "--rollout-stride", str(stride), "--json", "--no-report"]
        spacing = "even" if sampler == "ddpm" else "trailing"
        for setting in (f"name={sampler}", f"steps={steps}", f"spacing={spacing}"):
            words += ["--set", f"sampler.{setting}"]
        out = folder / f"{path}-{cost}-{sampler}{steps}-{stride}"
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            status = come_nav([*words, "--out", str(out)])
        if status != 0:
            raise SystemExit(status)
        document = json.loads(text.getvalue())
        errors.append(np.array([record["ate_m"] for record in records_of(out)]))
        change = asdict(bootstrap_mean(errors[-1] - errors[0], seed=0))
        way = {"path": path, "cost": cost, "sampler": sampler, "steps": steps, "stride": stride}
        found.append({**way, "ate_m": document["table"]["world model"]["ate_m"], "change_m": change})
        rows = {name: document["table"][name]["ate_m"]["value"] for name in ("stand still", "constant velocity")}
        found[-1]["trivial_ate_m"] = rows
        print(json.dumps(found[-1]), flush=True)
    return found


def records_of(out: Path) -> list[dict[str, Any]]:
    """Return the records of the world model in the order of the windows."""
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    records = [line for line in lines if line.get("row") == "world model"]
    return sorted(records, key=lambda record: (record["recording"], record["start"]))


def compare(plans: list[dict[str, Any]], clock: str) -> None:
    for plan in plans:
        plan["ratio"] = plans[0][clock] / max(plan[clock], 1e-9)


def machine(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ":unknown")
    return f"{os.cpu_count()} cores, {model.partition(':')[2].strip()}, {platform.system()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", nargs="*", default=["S"], choices=[*CDIT_SIZES, "reduced"], help="for unit costs")
    parser.add_argument("--plan-size", choices=[*CDIT_SIZES, "reduced"], help="for whole plans")
    parser.add_argument("--only", nargs="*", choices=[way.name for way in ways()], help="ways of whole plans")
    parser.add_argument("--full", action="store_true", help="whole plans of the full protocol")
    parser.add_argument("--longest-s", type=float, default=300.0, help="plans that would take longer are not made")
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--waypoints", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1, help="of the unit costs")
    parser.add_argument("--n", type=int, default=2, help="measurements of each unit cost; the least counts")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--compile", action="store_true", help="torch.compile the denoiser of whole plans")
    parser.add_argument("--machine", help="description of the machine for the result")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/nwm_planning.json"))
    parser.add_argument(
        "--ate", type=Path, metavar="DIR", help="data set in NWM's layout: evaluate --model by every way"
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--ways", type=int, nargs="*", default=range(len(ATE_WAYS)), help="of ATE_WAYS, for --ate")
    parser.add_argument("--key", default="ate", help="where --ate puts its result")
    args = parser.parse_args()
    if args.ate is not None:
        evaluate(args)
        return
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or torch.get_num_threads())
    clock = "wall_s" if args.device.startswith("cuda") else "cpu_s"
    result = json.loads(args.out.read_text()) if args.out.is_file() else {}
    result |= {
        "machine": args.machine or machine(args.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "clock": clock,
        "ways": [{**asdict(way), "exact": way.path != "latents"} for way in ways()],
    }
    if args.sizes:
        result["full_protocol_at_unit_costs"] = []
    for size in args.sizes:
        unit = unit_costs(size, args.device, args.precision, args.batch, args.n)
        table = [{"way": way.name, **estimate(way, unit, clock)} for way in ways()]
        compare(table, "seconds")
        result["full_protocol_at_unit_costs"].append({"unit": unit, "plans": table})
        print_table(f"full protocol, size {size}, from unit costs", table, "seconds")
    if args.plan_size is not None:
        plans = result.setdefault("measured_plans", {})
        plans[args.plan_size] = whole_plans(args, clock)
    result["process_peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    atomic_write_text(args.out, json.dumps(result, indent=1) + "\n")
    print(f"\n{args.out}")


def whole_plans(args: argparse.Namespace, clock: str) -> dict[str, Any]:
    """Measure plans from start to end, the unit costs of their batches beside them."""
    search = NwmSearchSettings() if args.full else NwmSearchSettings(
        samples=args.samples, elites=2, repeats=args.repeats, steps=args.waypoints
    )  # fmt: skip
    unit = unit_costs(args.plan_size, args.device, args.precision, min(search.samples, 16), args.n)
    model = build(args.plan_size, args.device, args.precision)
    if args.compile:
        model.base.model.compile()
    chosen = [way for way in ways() if args.only is None or way.name in args.only]
    plans = []
    for way in chosen:
        foreseen = estimate(way, unit, clock, search)
        if foreseen["seconds"] > args.longest_s:  # told by its counted calls, as the table of unit costs does
            told = {"way": way.name, **foreseen, clock: foreseen["seconds"], "foreseen_s": foreseen["seconds"]}
            plans.append({**told, "from_unit_costs": True, "peak_bytes": 0})
        else:
            plans.append(measured_plan(model, way, search, args.device, unit, clock))
    compare(plans, clock)
    print_table(f"measured, {args.plan_size}, {search.samples} samples, {search.steps} waypoints", plans, clock)
    for plan in plans:
        if "from_unit_costs" in plan:
            print(f"{plan['way']:34} foreseen {plan['foreseen_s']:10.2f} s: not made, from counted calls (--longest-s)")
            continue
        share = plan[clock] / plan["foreseen_s"]
        print(f"{plan['way']:34} foreseen {plan['foreseen_s']:10.2f} s, {share:.2f} of it; {plan['peak_bytes']:,} B")
    return {"search": asdict(search), "n": 1, "unit": unit, "plans": plans}


def evaluate(args: argparse.Namespace) -> None:
    """Add the effect on ATE to the result file; a second run with other --ways stands beside the first."""
    found = ate_by_way(args, args.out.with_suffix(""))
    result = json.loads(args.out.read_text()) if args.out.is_file() else {}
    result[args.key] = {
        "model": Path(args.model).name,
        "windows": args.windows,
        "samples": args.samples,
        "repeats": 1,
        "change_m": "against the first way, window by window, the same random numbers",
        "ways": found,
    }
    atomic_write_text(args.out, json.dumps(result, indent=1) + "\n")


def print_table(title: str, plans: list[dict[str, Any]], clock: str) -> None:
    print(f"\n{title}\n{'way':34} {'forwards':>9} {'encodes':>8} {'decodes':>8} {'seconds':>10} {'ratio':>7}")
    for plan in plans:
        counts = f"{plan['forwards']:9d} {plan['encodes']:8d} {plan['decodes']:8d}"
        print(f"{plan['way']:34} {counts} {plan[clock]:10.2f} {plan['ratio']:7.1f}")


if __name__ == "__main__":
    main()
