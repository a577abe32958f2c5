"""Small steps that compute, fail, wait, resume and watch, and the pipelines that the tests build of them."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attribench.engine import Step
from attribench.errors import Unavailable, UnknownName


@dataclass(frozen=True)
class Watcher:
    """Stands for an observer: a further output of a training."""

    norm: str = "l2"


def note(log: str, line: str) -> None:
    """Append a line to the log that the tests count."""
    with open(log, "a") as stream:
        stream.write(line + "\n")


def noted(log: Path) -> list[str]:
    """The lines of the log."""
    return log.read_text().splitlines() if log.exists() else []


# `log` and `pause` are read from a file beside the store, so that they change no key.
def settings(folder: Path) -> tuple[str, float]:
    """Log and pause of the steps whose store is above `folder`."""
    store = next(parent for parent in folder.parents if (parent / "store.json").exists())
    pause = store.parent / "pause"
    return str(store.parent / "log"), float(pause.read_text()) if pause.exists() else 0.0


def draw(ctx) -> None:
    """Random numbers from a seed."""
    log, pause = settings(ctx.out("numbers"))
    numbers = np.random.default_rng(ctx.params["seed"]).normal(size=(50, 8))
    time.sleep(pause)
    np.save(ctx.out("numbers") / "numbers.npy", numbers)
    note(log, f"draw {ctx.params['seed']}")


def accumulate(ctx) -> None:
    """Sums of rows in five blocks; a block that a killed run finished is not computed again."""
    log, pause = settings(ctx.out("sums"))
    numbers = np.load(ctx.input("numbers") / "numbers.npy")
    for block in range(5):
        path = ctx.out("sums") / f"{block}.npy"
        if not path.exists():
            time.sleep(pause)
            np.save(aside := ctx.out("sums") / ".block.npy", numbers[10 * block : 10 * block + 10].sum(axis=1))
            aside.rename(path)
            note(log, f"block {block}")
        ctx.report(block + 1, 5, f"block {block}")
    note(log, "accumulate")


def collect(ctx) -> None:
    """All sums in one file."""
    log, _ = settings(ctx.out("total"))
    parts = [np.load(ctx.input(f"sums-{i}") / f"{b}.npy") for i in range(ctx.params["n"]) for b in range(5)]
    np.save(ctx.out("total") / "total.npy", np.concatenate(parts))
    note(log, "collect")


def pipeline(n: int = 3) -> Step:
    """`n` branches of two steps each, collected by the step that is returned."""
    sums = {}
    for i in range(n):
        drawn = Step("draw", draw, {"seed": i}, {}, {"numbers": None}, label=f"seed {i}")
        summed = Step("accumulate", accumulate, {}, {"numbers": drawn["numbers"]}, {"sums": None}, label=f"seed {i}")
        sums[f"sums-{i}"] = summed["sums"]
    return Step("collect", collect, {"n": n}, sums, {"total": None})


def train(ctx) -> None:
    """Weights, and what the watchers asked for saw."""
    log, _ = settings(ctx.out(next(iter(ctx.wanted))))
    for name, watcher in ctx.wanted.items():
        text = "weights" if watcher is None else f"{watcher.norm}, weights present: {ctx.present('weights') is not None}"
        (ctx.out(name) / "result.txt").write_text(text)
    note(log, "train " + " ".join(sorted(ctx.wanted)))


def training(**watchers: Watcher) -> Step:
    """A training with the outputs "weights" and one for each watcher."""
    return Step("train", train, {"epochs": 2}, {}, {"weights": None, **watchers})


def read(ctx) -> None:
    """Copy the input."""
    (ctx.out("copy") / "copy.txt").write_text((ctx.input("source") / "result.txt").read_text())


def raise_error(ctx) -> None:
    """Fail after writing half of the output."""
    (ctx.out("numbers") / "half.bin").write_bytes(b"half")
    raise ValueError("the numbers\nare bad")


def raise_early(ctx) -> None:
    """Fail before writing anything."""
    raise KeyError("seed")


def copy_bound(ctx) -> None:
    """Read a file that a binding names."""
    (ctx.out("numbers") / "copy.txt").write_text(ctx.bindings["source"].read_text())


def be_unavailable(ctx) -> None:
    """Not here."""
    raise Unavailable("the weights of clip are missing; fetch them")


def unknown_name(ctx) -> None:
    """Raise an error whose constructor takes more than a message."""
    raise UnknownName("method", "montrag", ["montrage"])


def exit_python(ctx) -> None:
    """What a rude plugin does."""
    sys.exit(3)


def forget_output(ctx) -> None:
    """Make nothing."""


def wait(ctx) -> None:
    """Wait for a minute, reporting often."""
    log, _ = settings(ctx.out("numbers"))
    note(log, "waiting")
    for i in range(600):
        time.sleep(0.1)
        ctx.report(i, 600)


def wait_unheard(ctx) -> None:
    """Wait for a minute, reporting nothing."""
    log, _ = settings(ctx.out("numbers"))
    note(log, "waiting")
    time.sleep(60)


def die(ctx) -> None:
    """What the kernel does to a step that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def hold_memory(ctx) -> None:
    """Hold 64 MiB for a moment, asked for from the system: the allocator may have as much left of what others freed."""
    with mmap.mmap(-1, 64 * 2**20) as memory:
        held = np.frombuffer(memory, dtype=np.uint8)
        held += 1
        time.sleep(0.1)
        total = held.sum()
        del held
    np.save(ctx.out("numbers") / "sum.npy", total)


def fill(ctx) -> None:
    """Write an array of `params["bytes"]` bytes; numpy's error on a full disk has no errno."""
    np.save(ctx.out("numbers") / "big.npy", np.ones(ctx.params["bytes"], dtype=np.uint8))


def resume_counting(ctx) -> None:
    """Count the attempts in a file that a resumed step finds; fail until there were enough."""
    attempts = ctx.out("numbers") / "attempts"
    with open(attempts, "a") as stream:
        stream.write("x")
    if (n := len(attempts.read_text())) < ctx.params["needed"]:
        raise RuntimeError(f"attempt {n}")


def matmul_bits(ctx) -> None:
    """What torch makes of a long sum, and with how many threads."""
    import torch

    torch.manual_seed(0)
    np.save(ctx.out("numbers") / "sum.npy", (torch.randn(64, 4096) @ torch.randn(4096, 64)).numpy())
    (ctx.out("numbers") / "threads.txt").write_text(str(torch.get_num_threads()))


def import_transformers(ctx) -> None:
    """Where `datasets` comes from on this worker, and whether transformers imports."""
    import importlib.util

    import transformers

    found = importlib.util.find_spec("datasets")
    (ctx.out("numbers") / "seen.txt").write_text(
        f"{found.origin if found else None} {transformers.utils.import_utils.is_datasets_available()}"
    )


def single(function, name: str = "single", **params) -> Step:
    """A step of its own with the output "numbers"."""
    return Step(name, function, params, {}, {"numbers": None})


def contents(store, steps) -> dict[str, str]:
    """sha256 of every file of every output of the steps."""
    found = {}
    for step in steps:
        for output, key in step.keys.items():
            for name, file in store.manifest(key)["files"].items():
                found[f"{step} {output} {name}"] = file["sha256"]
    return found


def ancestry(step: Step) -> list[Step]:
    """The step and all before it."""
    return [*(s for ref in step.inputs.values() for s in ancestry(ref.step)), step]
