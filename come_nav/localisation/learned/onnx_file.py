"""A network in an ONNX file, run by ONNX Runtime where it is installed, else by OpenCV where that can.

One input (1, 1, H, W) float32, of any name. Three outputs named ``keypoints``, ``scores`` and ``descriptors`` in any
order, or of other names in this order.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import CheckpointError, MissingDependencyError

OUTPUTS = ("keypoints", "scores", "descriptors")
Run = Callable[[NDArray[np.float32]], Sequence[Any]]
# OpenCV 5.0 does not raise but ends the process where a network lists what it found and finds nothing.
TRIAL_S = 60.0
TRIAL = """
import sys, cv2, numpy
network = cv2.dnn.readNetFromONNX(sys.argv[1])
for grey in (0.0, 0.5):
    network.setInput(numpy.full((1, 1, 120, 160), grey, numpy.float32))
    network.forward(network.getUnconnectedOutLayersNames())
"""


def onnx_network(path: Path) -> Run:
    """Return what runs an ONNX file on an image (1, 1, H, W).

    Raises:
        CheckpointError: for a file that is no ONNX.
        MissingDependencyError: where ONNX Runtime is absent, and OpenCV cannot read the file.
    """
    return _by_onnx_runtime(path) if importlib.util.find_spec("onnxruntime") is not None else _by_opencv(path)


def _by_onnx_runtime(path: Path) -> Run:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors alone: they are raised as well
    options.intra_op_num_threads = max(1, cv2.getNumThreads())
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # classes of its own that have no public name
        raise CheckpointError(f"{path}: ONNX Runtime cannot read it ({_reason(error)}); {_exported()}") from error
    inputs, outputs = session.get_inputs(), [output.name for output in session.get_outputs()]
    if len(inputs) != 1:
        raise CheckpointError(f"{path}: the network has {len(inputs)} inputs, must have one; {_exported()}")
    names = _ordered(outputs)
    return lambda image: session.run(names, {inputs[0].name: image})


def _by_opencv(path: Path) -> Run:
    if _ends_process(path):
        raise _beyond_opencv(path, RuntimeError("it ends the process on an image without features"))
    try:
        with _silent():
            network = cv2.dnn.readNetFromONNX(str(path))
        names = _ordered(list(network.getUnconnectedOutLayersNames()))
    except Exception as error:  # cv2.error, and a UnicodeDecodeError where its text is none
        raise _beyond_opencv(path, error) from error

    lock = threading.Lock()  # images are looked for while others are kept, and a network of OpenCV holds its input

    def run(image: NDArray[np.float32]) -> Sequence[Any]:
        try:
            with lock, _silent():
                network.setInput(image)
                return network.forward(names)
        except cv2.error as error:
            raise _beyond_opencv(path, error) from error

    return run


def _ends_process(path: Path) -> bool:
    """Try a network on images without features in a process of its own; return whether a signal ended that."""
    try:
        trial = subprocess.run(
            [sys.executable, "-c", TRIAL, str(path)], capture_output=True, timeout=TRIAL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return trial.returncode < 0  # what raises there raises here as well


@contextmanager
def _silent() -> Iterator[None]:
    """Keep OpenCV from printing what it raises as well."""
    log = cv2.utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)


def _beyond_opencv(path: Path, error: Exception) -> MissingDependencyError:
    purpose = f"{path}: OpenCV {cv2.__version__} cannot run this ONNX file ({_reason(error)}), which then"
    return MissingDependencyError("onnxruntime", "learned", purpose, otherwise="if the file is a network at all")


def _ordered(names: list[str]) -> list[str]:
    return list(OUTPUTS) if set(OUTPUTS) <= set(names) else names


def _exported() -> str:
    return "export one with torch.onnx.export(network, (image,), FILE)"


def _reason(error: Exception) -> str:
    text = re.sub(r"^\[ONNXRuntimeError\].* failed:", "", " ".join(str(error).split()))
    return f"{text[:160]} ..." if len(text) > 160 else text or type(error).__name__
