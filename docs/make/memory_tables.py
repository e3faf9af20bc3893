"""Tables of memories beside the cloud of colours: latents in space, and frames that are found again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sections import Table

from come_nav.evaluation.metrics.statistics import MIN_CLUSTERS


def latent_memory(result: dict[str, Any]) -> Sequence[Table]:
    """Return bytes, times and what read-outs miss, of colours and of latents."""
    shapes = {own["name"]: "x".join(map(str, own["latent_shape"])) for own in result["rows"]}
    sizes = [
        [
            own["name"],
            shapes[own["name"]],
            each["policy"],
            f"{each['rgb_points']:,} / {each['latent_points']:,}",
            f"{each['rgb_bytes'] / 1e3:.0f} / {each['latent_bytes'] / 1e3:.1f}",
            f"{each['ratio']:.1f}",
        ]
        for own in result["rows"]
        for each in own["bytes"]
    ]
    times = [
        [
            own["name"],
            *(f"{own['milliseconds'][key]:.1f}" for key in ("rgb_read_out", "latent_read_out", "ratio")),
            f"{own['milliseconds']['rgb_write']:.1f} / {own['milliseconds']['latent_write']:.1f}",
            f"{own['milliseconds']['encode']:.1f}",
        ]
        for own in result["rows"]
    ]
    missed = [
        [own["name"], each["row"], each["views"], *(_mean(each, key) for key in ("missed", "known")), _psnr(each)]
        for own in result["rows"]
        for each in own["latents"]
    ]
    return [
        (["autoencoder", "latents", "policy", "points, rgb / latent", "kB, rgb / latent", "ratio"], sizes),
        (["autoencoder", "rgb [ms]", "latent [ms]", "ratio", "write, rgb / latent [ms]", "encoding [ms]"], times),
        (["autoencoder", "memory", "views", "variance missed", "known", "PSNR [dB]"], missed),
    ]


def retrieval(result: dict[str, Any]) -> Sequence[Table]:
    """Return what finding frames costs, by their number."""
    rows = [
        [f"{own['frames']:,}", f"{own['query_ms_median']:.2f}", f"{own['query_ms_p95']:.2f}", f"{own['mb']:.2f}"]
        for own in result["rows"]
    ]
    return [(["frames", "query, median [ms]", "95 % [ms]", "MB"], rows)]


def sequence_memories(result: dict[str, Any]) -> Sequence[Table]:
    """Return what memories of sequences show by context and by age, and how they were trained."""
    contexts = [str(context) for context in result["settings"]["contexts"]]
    trained_on = min(contexts, key=lambda context: abs(int(context) - result["settings"]["base"]["frames"]))
    rows, trainings, longest = result["rows"], result["trainings"], contexts[-1]
    counts = rows[next(iter(rows))]
    old = "over 10, in the context"
    by_context = [
        [name, *(_gain(own.get(context, {}).get(old, {})) for context in contexts)] for name, own in rows.items()
    ]
    names = ("1-10", "11-50", "51-100", "101-200", "201-400", "over 400", "never seen")
    ages = [age for age in names if age in counts[longest]]
    by_age = [
        [name, *(_plain(own[longest].get(age, {}), "psnr_db") for age in ages)]
        for name, own in rows.items()
        if longest in own
    ]
    quality = [
        [
            name,
            *(_mean(own.get(context, {}).get(old, {}), "psnr_db") for context in (trained_on, longest)),
            *(_plain(own.get(context, {}).get(old, {}), "ssim") for context in (trained_on, longest)),
            *(_plain(own.get(context, {}).get(old, {}), "kernel_distance") for context in (trained_on, longest)),
            *(_plain(own.get(context, {}).get("all", {}), "kernel_distance") for context in (trained_on, longest)),
        ]
        for name, own in rows.items()
    ]
    trained = [
        [name, f"{own['cpu_s']:.0f}", f"{own['steps']:,}", f"{own['seconds_per_step']:.3f}", f"{own['parameters']:,}"]
        for name, own in trainings.items()
        if "parameters" in own
    ]
    heads = [f"{context} frames (n = {counts[context][old]['psnr_db']['n']})" for context in contexts]
    metrics = ("PSNR [dB]", "SSIM", "kernel distance", "kernel distance of all")
    return [
        (["PSNR over no memory [dB]", *heads], by_context),
        (["row", *(f"{metric}, {context}" for metric in metrics for context in (trained_on, longest))], quality),
        (
            [f"PSNR [dB] by age, {longest} frames", *(f"{a} (n = {counts[longest][a]['psnr_db']['n']})" for a in ages)],
            by_age,
        ),
        (["row", "processor time [s]", "steps", "a step [s]", "parameters"], trained),
    ]


def sequence_costs(result: dict[str, Any]) -> Sequence[Table]:
    """Return what a frame, a read-out and the state cost, by the frames that were seen."""
    rows = [
        [
            name,
            f"{own['frames']:,}{' (extrapolated)' if own['extrapolated'] else ''}",
            *(f"{own[key]:.1f}" for key in ("frame_ms", "read_out_ms")),
            f"{own['mb']:.2f}",
        ]
        for name, curve in result["rows"].items()
        for own in curve
    ]
    return [(["row", "frames seen", "a frame [ms]", "a read-out [ms]", "state [MB]"], rows)]


def memory_costs(result: dict[str, Any]) -> Sequence[Table]:
    """Return what a frame, a read-out and each memory cost, by the frames that were seen."""
    rows = [
        [own["memory"], f"{own['frames']:,}", f"{own['frame_ms']:.2f}", f"{own['read_out_ms']:.2f}", f"{own['mb']:.2f}"]
        for own in sorted(result["rows"], key=lambda own: (own["memory"], own["frames"]))
    ]
    return [(["memory", "frames seen", "a frame [ms]", "a read-out [ms]", "MB"], rows)]


def _gain(each: dict[str, Any]) -> str:
    return _mean(each, "gain_psnr_db")


def _plain(each: dict[str, Any], key: str) -> str:
    return f"{each[key]['value']:.2f}" if key in each else ""


def _mean(each: dict[str, Any], key: str) -> str:
    if key not in each:
        return ""
    own = each[key]
    few = own["low"] is None or own.get("clusters", MIN_CLUSTERS) < MIN_CLUSTERS
    return f"{own['value']:.2f}" + ("" if few else f" [{own['low']:.2f}, {own['high']:.2f}]")


def _psnr(each: dict[str, Any]) -> str:
    own = each.get("psnr_db")
    return "" if own is None else f"{own['value']:.1f} [{own['low']:.1f}, {own['high']:.1f}]"


def latent_ablations(result: dict[str, Any]) -> Sequence[Table]:
    """Return what each choice of a memory of latents is worth, and what it costs."""
    header = ["choice", "n", "PSNR [dB]", "difference [dB]", "SSIM", "known", "write / read [ms]", "points", "kB"]
    return [
        (
            [f"{name}: {header[0]}", *header[1:]],
            [
                [
                    own["row"],
                    str(own["n"]),
                    _mean(own, "psnr_db"),
                    _mean(own, "psnr_db_difference") if "psnr_db_difference" in own else "",
                    _mean(own, "ssim"),
                    f"{own['known']['value']:.2f}",
                    f"{own['write_ms']:.2f} / {own['read_ms']:.2f}",
                    f"{own['points']:,.0f}",
                    f"{own['kb']:.0f}",
                ]
                for own in rows
            ],
        )
        for name, rows in result["tables"].items()
    ]
