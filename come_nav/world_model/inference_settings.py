"""How predictions are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from come_nav.core.checks import check_choice, check_range
from come_nav.experts.forward_ways import ForwardWay

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class InferenceSettings:
    """How predictions are computed, and from which depth.

    Attributes:
        micro_batch: candidates per denoiser call; bounds the memory.
        image_batch: images per autoencoder call, >= 1; null = as micro_batch, but at most a million pixels (20 images
            of 224 px, which need about 4 GB to be decoded).
        precision: "float32", "bfloat16", or "auto": bfloat16 on CUDA and on CPUs that multiply it in hardware
            (AMX, AVX-512 BF16).
        measured_depth: context frames are moved by the depth that the camera measured where it did; false = by the
            model's estimate alone.
        compile: how networks run: "eager" = as they are; "graph" = as CUDA graphs, captured once for each size of
            batch, on CUDA; "compile" = by torch.compile, which takes a minute or more. What fails runs as it is, with
            a warning.
    """

    micro_batch: int = 128
    image_batch: int | None = None
    precision: Precision = "auto"
    measured_depth: bool = True
    compile: ForwardWay = "eager"

    def __post_init__(self) -> None:
        check_range("inference.micro_batch", self.micro_batch, 1)
        if self.image_batch is not None:
            check_range("inference.image_batch", self.image_batch, 1)
        check_choice("inference.precision", self.precision, get_args(Precision))
        check_choice("inference.compile", self.compile, get_args(ForwardWay))
