"""How far come_nav is from recorded outputs of the official NWM code: every figure in one place.

    python benchmarks/nwm_parity.py --kit ../shared/data/nwm_parity

The kit: a small CDiT with random weights in the official layout, its inputs, outputs and tokens between blocks, sampler
runs with the noise of every step, schedules, and ATE/RPE pairs by evo. The tests hold the same figures to their bounds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.files import atomic_write_text
from come_nav.evaluation.protocols.nwm_protocol import path_errors
from come_nav.experts.cdit import CDiT
from come_nav.world_model.nwm.official_checkpoint import network_settings, open_checkpoint
from come_nav.world_model.sampling.sampler import sample
from come_nav.world_model.sampling.schedule import NoiseSchedule
from come_nav.world_model.sampling.settings import SamplerSettings

RUNS = {
    "ddpm10": SamplerSettings("ddpm", 10, spacing="even"),
    "ddim5": SamplerSettings("ddim", 5, spacing="ddim"),
    "ddim5_eta1": SamplerSettings("ddim", 5, eta=1.0, spacing="ddim"),
    "ddim_on_respaced10": SamplerSettings("ddim", 10, spacing="even"),
}
COEFFICIENTS = (
    "betas",
    "alphas_cumprod",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
Recorded = dict[str, NDArray[Any]]


def largest(found: torch.Tensor, recorded: NDArray[Any]) -> float:
    return float(np.abs(found.double().numpy() - recorded).max())


def relative_rms(found: torch.Tensor, recorded: NDArray[Any]) -> float:
    """Return the root mean square of the difference over the spread of what was recorded."""
    return float(np.sqrt(((found.double().numpy() - recorded) ** 2).mean()) / recorded.std())


def inputs_of(io: Recorded, case: int) -> list[torch.Tensor]:
    return [torch.from_numpy(io[f"in{case}_{name}"]) for name in ("x", "t", "y", "x_cond", "rel_t")]


@torch.no_grad()
def run_with_blocks(model: CDiT, given: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the output and the tokens after every block."""
    seen: list[torch.Tensor] = []
    hooks = [block.register_forward_hook(lambda module, given, out: seen.append(out)) for block in model.blocks]
    output = model(*given)
    for hook in hooks:
        hook.remove()
    return output, seen


def model_figures(model: CDiT, io: Recorded) -> dict[str, Any]:
    """Largest absolute differences in float32 and float64, and bfloat16 against float32."""
    found: dict[str, Any] = {"float32": {}, "float64": {}, "bfloat16": {}}
    for case in range(3):
        given = inputs_of(io, case)
        output, blocks = run_with_blocks(model, given)
        found["float32"][f"out{case}"] = largest(output, io[f"out{case}"])
        with torch.autocast("cpu", torch.bfloat16):
            rounded, rounded_blocks = run_with_blocks(model, given)
        found["bfloat16"][f"out{case}_relative_rms"] = relative_rms(rounded, io[f"out{case}"])
        found["bfloat16"][f"out{case}_largest_over_spread"] = largest(rounded, io[f"out{case}"]) / float(
            io[f"out{case}"].std()
        )
        if case == 0:
            with torch.no_grad():
                parts = {
                    "tokens": model.x_embedder(given[0]) + model.pos_embed[-1],
                    "c": model.embed_condition(given[1], given[2], given[4]),
                    "ctx_tokens": model.embed_context(given[3]),
                }
            parts |= {f"block{index}": block for index, block in enumerate(blocks)}
            found["float32"] |= {name: largest(part, io[f"in0_{name}"]) for name, part in parts.items()}
            for index, block in enumerate(rounded_blocks):
                found["bfloat16"][f"block{index}_relative_rms"] = relative_rms(block, io[f"in0_block{index}"])
    exact = model.double()
    for case in range(3):
        given = [value.double() if value.is_floating_point() else value for value in inputs_of(io, case)]
        with torch.no_grad():
            found["float64"][f"out{case}"] = largest(exact(*given), io[f"out{case}_f64"])
    model.float()
    return found


@torch.no_grad()
def sampler_figures(model: CDiT, kit: Path) -> dict[str, float]:
    """Largest difference of each run's result, relative to its largest value."""
    with np.load(kit / "sampler_small.npz") as archive:
        data = dict(archive)
    z, y, x_cond, rel_t = (torch.from_numpy(data[name]) for name in ("z", "y", "x_cond", "rel_t"))
    found = {}
    for run, settings in RUNS.items():
        noise = iter(torch.from_numpy(data[f"{run}_noise"]))
        result = sample(
            lambda x_t, t: model(x_t, t, y, x_cond, rel_t), z, settings, NoiseSchedule.linear(),
            draw=lambda like, noise=noise: next(noise),
        )  # fmt: skip
        found[run] = largest(result, data[f"{run}_final"]) / float(np.abs(data[f"{run}_final"]).max())
    return found


def schedule_figures(kit: Path) -> dict[str, float]:
    """Largest relative difference of each coefficient over all recorded respacings; the maps of steps must be equal."""
    found = dict.fromkeys(COEFFICIENTS, 0.0)
    with np.load(kit / "schedules.npz") as archive:
        specs = [name.removesuffix("_map") for name in archive.files if name.endswith("_map")]
        for spec in specs:
            schedule = NoiseSchedule.linear().respaced(spec)
            assert np.array_equal(schedule.timestep_map, archive[f"{spec}_map"]), spec
            for name in COEFFICIENTS:
                recorded = archive[f"{spec}_{name}"]
                difference = np.abs(getattr(schedule, name) - recorded) / np.maximum(np.abs(recorded), 1e-300)
                found[name] = max(found[name], float(difference.max()))
    return {"respacings": len(specs), **found}


def error_figures(kit: Path) -> dict[str, float]:
    """Largest difference of ATE and RPE from evo's."""
    ate, rpe = 0.0, 0.0
    rows = json.loads((kit / "evo_ate_rpe.json").read_text())["rows"]
    for row in rows:
        planned, driven = (np.pad(np.asarray(row[name], float), ((0, 0), (0, 1))) for name in ("pred", "gt"))
        own = path_errors(planned, driven, start_excluded=True)
        ate, rpe = max(ate, abs(own[0] - row["evo_ate"])), max(rpe, abs(own[1] - row["evo_rpe"]))
    return {"pairs": len(rows), "ate": ate, "rpe": rpe}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kit", type=Path, default=Path("../shared/data/nwm_parity"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/nwm_parity.json"))
    args = parser.parse_args()
    checkpoint = open_checkpoint(args.kit / "cdit_small.pth.tar")
    model = CDiT.from_settings(network_settings(checkpoint, heads=3))
    model.load_state_dict(checkpoint.tensors)
    model.eval()
    with np.load(args.kit / "cdit_small_io.npz") as archive:
        io = dict(archive)
    result = {
        "torch": torch.__version__,
        "model": model_figures(model, io),
        "samplers_relative": sampler_figures(model, args.kit),
        "schedules_relative": schedule_figures(args.kit),
        "errors_against_evo": error_figures(args.kit),
    }
    print(json.dumps(result, indent=1))
    atomic_write_text(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
