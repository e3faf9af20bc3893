"""Mutates files and reads them: whatever comes, a reader answers or raises one ComeNavError, in time, and runs nothing.

    python benchmarks/fuzz_readers.py --mutations 100000 --seed 0 --out benchmarks/results/fuzz_readers.json
    python benchmarks/fuzz_readers.py --only trajectory,nwm --mutations 20000

Every kind of fuzz_targets.py is read in a process of its own, so that one that dies is counted and gone on from.
Prints one JSON document: for each kind the mutations, how many were read or refused, tracebacks (with their seeds, so
that --seed S --first I --mutations 1 shows one again), hangs over 10 s, dead processes, attacks and code that ran.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_targets import TARGETS, Target

from come_nav.core.errors import ComeNavError

LIMIT_S = 10
ATTACK_EVERY = 25
TOKENS = (
    b"\x00",
    b"\xff\xff\xff\xff",
    b"\x7f",
    b"nan",
    b"1e400",
    b"-1",
    b",",
    b"\n",
    b" ",
    b"{",
    b"!!python/name:",
    b"\x80\x04",
)


@dataclass
class Tally:
    """Outcomes of one kind."""

    mutations: int = 0
    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    tracebacks: list[dict[str, Any]] = field(default_factory=list)
    hangs: list[int] = field(default_factory=list)
    died: list[int] = field(default_factory=list)
    attacks: int = 0
    code_run: int = 0


class Hang(BaseException):
    """Raised by the alarm; not an Exception, so that no reader catches it."""


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Return ``data`` with one to four changes: bits, bytes, cuts, doubled or moved pieces, tokens."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        size = len(out)
        if not size:
            return bytes(out)
        at, kind = int(rng.integers(size)), int(rng.integers(7))
        length = int(min(size - at, rng.integers(1, 64)))
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at] = int(rng.integers(256))
        elif kind == 2:
            del out[at:]
        elif kind == 3:
            del out[at : at + length]
        elif kind == 4:
            out[at:at] = out[at : at + length]
        elif kind == 5:
            out[at : at + length] = rng.bytes(length)
        else:
            token = TOKENS[int(rng.integers(len(TOKENS)))]
            out[at : at + len(token)] = token
    return bytes(out)


def fuzz(
    target: Target,
    mutations: int,
    seed: int,
    first: int = 0,
    step: Callable[[Tally, int], object] = lambda tally, index: None,
) -> Tally:
    """Mutate one file of the kind at a time and read it; mutation i has the generator of (seed, i)."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="fuzz_") as scratch:
        folder, mark = Path(scratch) / "input", Path(scratch) / "ran"
        folder.mkdir()
        originals = {path: path.read_bytes() for path in target.make(folder)}
        paths = sorted(originals)
        with contextlib.suppress(Exception):
            target.read(folder)  # what its reader imports is no mutation's time
        old = signal.signal(signal.SIGALRM, _on_alarm)
        began = time.monotonic()
        for index in range(first, first + mutations):
            step(tally, index)
            rng = np.random.default_rng([seed, index])
            path = paths[int(rng.integers(len(paths)))]
            if target.attack is not None and index % ATTACK_EVERY == 0:
                path = next(path for path in paths if path.name == target.attacked)
                path.write_bytes(target.attack(mark, rng))
                tally.attacks += 1
            else:
                path.write_bytes(mutate(originals[path], rng))
            _one(target, folder, seed, index, tally)
            _restore(folder, originals)
            if mark.exists():
                tally.code_run += 1
                mark.rmdir() if mark.is_dir() else mark.unlink()
        tally.seconds = round(time.monotonic() - began, 1)
        signal.signal(signal.SIGALRM, old)
    return tally


def _restore(folder: Path, originals: dict[Path, bytes]) -> None:
    for path, content in originals.items():
        path.write_bytes(content)
    for pattern in ("*-wal", "*-shm", "*-journal"):
        for extra in folder.rglob(pattern):
            extra.unlink()


def _one(target: Target, folder: Path, seed: int, index: int, tally: Tally) -> None:
    tally.mutations += 1
    began = time.monotonic()
    signal.alarm(LIMIT_S)
    try:
        target.read(folder)
        tally.read += 1
    except ComeNavError as error:
        tally.refused += 1
        if "\n" in str(error):
            tally.tracebacks.append({"seed": [seed, index], "error": f"several lines: {error!s:.200}"})
    except Hang:
        tally.hangs.append(index)
    except Exception as error:  # that is what is looked for
        where = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in where if "come_nav" in frame.filename] or where
        place = f"{ours[-1].filename.rpartition('come_nav/')[2]}:{ours[-1].lineno}"
        tally.tracebacks.append(
            {"seed": [seed, index], "error": f"{type(error).__name__}: {error!s:.100}", "at": place}
        )
    finally:
        signal.alarm(0)
    tally.slowest_s = max(tally.slowest_s, round(time.monotonic() - began, 2))


def _on_alarm(*_: object) -> None:
    raise Hang


# -- a process for each kind -----------------------------------------------------------------------------------------


def fuzz_apart(
    name: str, mutations: int, seed: int, first: int = 0, step: Callable[[], object] = lambda: None
) -> Tally:
    """Fuzz one kind in another process; where that dies, note the mutation and go on behind it."""
    context = multiprocessing.get_context("spawn")
    total, last = Tally(), first + mutations
    began = time.monotonic()
    while first < last:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_serve, args=(theirs, name, last - first, seed, first))
        process.start()
        theirs.close()
        tally, index = Tally(), first - 1
        try:
            while True:
                tally, index = ours.recv()
                step()
        except EOFError:
            process.join()
        _add(total, tally)
        first = index + 1
        if process.exitcode and index < last:
            total.mutations += 1
            total.died.append(index)
        elif not process.exitcode:
            break
    total.seconds = round(time.monotonic() - began, 1)
    return total


def _serve(pipe: Any, name: str, mutations: int, seed: int, first: int) -> None:
    """Fuzz, telling before each mutation what was found until then."""
    logging.disable(logging.CRITICAL)
    quiet = os.open(os.devnull, os.O_WRONLY)  # what libraries in C say of damaged files
    os.dup2(quiet, 2)
    tally = fuzz(TARGETS[name], mutations, seed, first, lambda tally, index: pipe.send((tally, index)))
    pipe.send((tally, first + mutations))


def _add(total: Tally, found: Tally) -> None:
    for name in ("mutations", "read", "refused", "attacks", "code_run"):
        setattr(total, name, getattr(total, name) + getattr(found, name))
    for name in ("tracebacks", "hangs", "died"):
        getattr(total, name).extend(getattr(found, name))
    total.slowest_s = max(total.slowest_s, found.slowest_s)


def main() -> None:
    """Fuzz what is asked for and print the outcomes."""
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=100_000, help="in all (default 100000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation (default 0)")
    parser.add_argument("--only", default=",".join(TARGETS), help=f"kinds of {', '.join(TARGETS)}")
    parser.add_argument("--out", type=Path, help="file for the outcomes as well")
    args = parser.parse_args()
    names = args.only.split(",")
    total = sum(TARGETS[name].share for name in names)
    result: dict[str, Any] = {"seed": args.seed, "python": platform.python_version(), "kinds": {}}
    for name in names:
        count = round(args.mutations * TARGETS[name].share / total)
        with tqdm(total=count, desc=name, unit="mutation", disable=None, file=sys.stderr) as bar:
            result["kinds"][name] = vars(fuzz_apart(name, count, args.seed, args.first, bar.update))
    found = result["kinds"].values()
    result["total"] = {
        "mutations": sum(kind["mutations"] for kind in found),
        "seconds": round(sum(kind["seconds"] for kind in found), 1),
        "attacks": sum(kind["attacks"] for kind in found),
        "code_run": sum(kind["code_run"] for kind in found),
        **{name: sum(len(kind[name]) for kind in found) for name in ("tracebacks", "hangs", "died")},
    }
    text = json.dumps(result, indent=1)
    if args.out is not None:
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
