"""How much of an encoder's own speed is left when it reads pictures from disk, in one run.

    python benchmarks/features.py                        # clip-tiny and dino-tiny on the mini editions, one torch thread
    python benchmarks/features.py --encoder ViT-B-32/openai --device cuda --data-root ~/data/customconcept101

Extraction is `EncoderFeatures.of_training`: decode, resize, encode, check, write to disk. The bare loop is the encoder over
the same pictures, ready as batches of tensors in memory. Seconds by the clock, since reading overlaps with encoding on
another core; repetitions are interleaved, and the interval of the ratio is a bootstrap over them. ≥ 90 % is asked. Beside
it what the same costs without overlap (a batch is read, then encoded, then the next), and the ratio of the seconds that the
encoding thread itself computes: on a processor that other work shares, the clock counts that work too, and this does not.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from machine import describe
from rich.console import Console
from rich.table import Table
from scipy import stats

from attribench import encoders
from attribench.data import Pictures
from attribench.editions import open_dataset
from attribench.encoders.encoder import BATCH, READERS, Encoder
from attribench.encoders.features import EncoderFeatures
from attribench.files.state import State

ASKED = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--encoder", action="append", default=[])
    parser.add_argument("--dataset", default="customconcept101")
    parser.add_argument("--data-root", type=Path, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pictures", type=int, default=640)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=130)
    console.print(describe() + f"; one torch thread, {READERS} readers, {options.device}")
    dataset = open_dataset(options.dataset, "paper" if options.data_root else "mini", options.data_root)
    ids = [image.id for concept in dataset.concepts for image in dataset.images(concept.name)][: options.pictures]
    pictures = Pictures(ids, dataset.load)
    table = Table(title=f"features of {len(ids)} pictures of {options.dataset}, batches of {BATCH}")
    for column in (
        "encoder",
        "bare loop, ms a picture",
        "extraction",
        "no overlap",
        "bare / extraction [95 %]",
        "by the encoding thread [95 %]",
    ):
        table.add_column(column, justify="left" if column == "encoder" else "right")
    for name in options.encoder or [name for name in encoders.SHIPPED if encoders.available(name) is None]:
        table.add_row(name, *measured(name, pictures, options))
    console.print(table)
    console.print(f"asked: ≥ {ASKED:.0%}")


def measured(name: str, pictures: Pictures, options: argparse.Namespace) -> list[str]:
    """The row of one encoder."""
    encoder = encoders.load_encoder(name, options.device)
    ready = [batch.to(options.device) for batch in torch.stack([encoder.pixels(picture) for picture in pictures]).split(BATCH)]
    paths: dict[str, Callable[[], object]] = {
        "bare": lambda: [encoder._features(batch) for batch in ready],
        "extraction": lambda: extract(name, pictures, options.device),
        "apart": lambda: apart(encoder, pictures),
    }
    times: dict[str, list[tuple[float, float]]] = {path: [] for path in paths}
    for repetition in range(options.repetitions + 1):
        for path, run in paths.items():
            seconds = timed(run, options.device)
            if repetition:  # the first warms up
                times[path].append(seconds)
    by_clock, by_thread = ({path: [pair[k] for pair in pairs] for path, pairs in times.items()} for k in range(2))
    milliseconds = [f"{1000 * np.median(by_clock[path]) / len(pictures):.2f}" for path in paths]
    return [*milliseconds, *(ratio(found["bare"], found["extraction"]) for found in (by_clock, by_thread))]


def extract(name: str, pictures: Pictures, device: str) -> None:
    """What a run does."""
    with tempfile.TemporaryDirectory() as folder:
        study = SimpleNamespace(train=pictures, flips=False, device=device)
        EncoderFeatures(encoder=name).of_training(study, State(Path(folder)))


def apart(encoder: Encoder, pictures: Pictures) -> None:
    """Without overlap and with one reader."""
    for start in range(0, len(pictures), BATCH):
        part = [pictures[i] for i in range(start, min(start + BATCH, len(pictures)))]
        encoder._features(torch.stack([encoder.pixels(picture) for picture in part]).to(encoder.device))


def timed(run: Callable[[], object], device: str) -> tuple[float, float]:
    """Seconds by the clock, and those that this thread computed."""
    started = time.perf_counter(), time.thread_time()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started[0], time.thread_time() - started[1]


def ratio(above: list[float], below: list[float]) -> str:
    """Ratio of medians with its bootstrap interval over repetitions, which are pairs."""
    value = np.median(above) / np.median(below)
    found = stats.bootstrap(
        (above, below), lambda a, b, axis: np.median(a, axis=axis) / np.median(b, axis=axis),
        paired=True, n_resamples=1000, method="percentile", rng=0,
    ).confidence_interval  # fmt: skip
    return f"{value:.0%} [{found.low:.0%}, {found.high:.0%}]"


if __name__ == "__main__":
    main()
