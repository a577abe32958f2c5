"""What attribution by unlearning costs: the loss sweep beside a bare forward pass, several queries, its first order.

    python benchmarks/unlearning.py                                  # the tiny model, one thread: minutes
    python benchmarks/unlearning.py --part throughput --seconds 10   # or queries, or first-order: about a minute each
    python benchmarks/unlearning.py --choose             # step sizes on the dev queries of customconcept101: half an hour
    python benchmarks/unlearning.py --model ~/models/stable-diffusion-v1-4 --device cuda --precision bfloat16

    throughput      rows a second of the sweep, and of the UNet alone on the same rows in the same batches, with noise, timesteps
                    and prompts made ready beforehand; the sweep has to reach 85 %
    queries         several queries in one sweep, and in a sweep for each; what the base losses add
    first-order     how far first-order scores order the training images as the full sweep does, by the size of the step

CPU seconds of interleaved turns (seconds by the clock on an accelerator); intervals are scipy's bootstrap over turns, or over
queries for agreement. One table at the end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from attribench.datasets.customconcept101 import CustomConcept101
from attribench.methods.unlearning import Unlearning
from attribench.methods.unlearning.sweep import ROWS, Sweep
from machine import describe
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scipy import stats

import attribench
from attribench.data import GenerationCase, Queries, TrainImage, TrainingImages
from attribench.diffusion import noise
from attribench.diffusion.model import DiffusionModel
from attribench.engine.listener import Listener
from attribench.files.state import State
from attribench.gradients.diffusion import GradientReader
from attribench.interface import Study
from attribench.run.config import RunConfig
from attribench.run.execute import execute
from attribench.run.places import tiny_model
from attribench.run.prepare import prepare

CONCEPTS, PICTURES_OF_A_PROMPT = 5, 2
MOST_TOGETHER = 4
"""Queries in the comparison of one sweep for several with a sweep for each."""
ASKED = 0.85
FEWEST_TURNS = 3

Rows = list[tuple[str, str, str]]
"""What, its cost, and how it compares with another, for the table."""
Report = Callable[[str], None]


@dataclass(frozen=True)
class Ready:
    """What the parts are measured on."""

    of: Unlearning
    study: World
    state: State
    queries: Queries
    changes: list[dict]
    """Of each query, by one step of relative size 1."""
    options: argparse.Namespace

    def sweep(self) -> Sweep:
        return Sweep(self.study, self.state["latents"], self.of.timesteps, self.of.group, self.options.rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=list(PARTS), nargs="+", default=list(PARTS), help="default: all")
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--seconds", type=float, default=30, help=f"of turns in each part; {FEWEST_TURNS} turns at least")
    parser.add_argument("--pictures", type=int, default=4, help="training images of each of five objects")
    parser.add_argument("--rows", type=int, default=ROWS, help="(image, timestep) rows in a pass")
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.01, 0.1, 1, 10], help="of first-order: relative step sizes")
    parser.add_argument("--choose", action="store_true", help="step sizes on dev queries, and nothing else")
    parser.add_argument("--store", type=Path, default=None, help="of --choose; default: a temporary one")
    parser.add_argument("--protocol", choices=list(WORTH), nargs="+", default=list(WORTH), help="of --choose")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 5], help="of --choose")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=130)
    console.print(describe() + f"; one thread, {options.device}, {options.precision}")
    if options.choose:
        choose(options, console)
        return
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status("pictures") as status:
        ready = _ready(options, Path(folder), status.update)
        found = {name: PARTS[name](ready, lambda text, name=name: status.update(f"{name}: {text}")) for name in options.part}
    images, of = len(ready.study.train), ready.of
    title = f"{images} images × {of.timesteps} timesteps of {of.group}, {options.rows} rows in a pass"
    table = Table(title=title, box=SIMPLE_HEAD)
    for column in ("part", "what", "cost", "beside it [95 %]"):
        table.add_column(column, justify="left" if column in ("part", "what") else "right")
    for name, rows in found.items():
        for number, row in enumerate(rows):
            table.add_row("" if number else name, *row, end_section=number == len(rows) - 1)
    console.print(table)


def _ready(options: argparse.Namespace, folder: Path, report: Report) -> Ready:
    study, queries = _world(options, folder)
    of, state = Unlearning(step_size=1.0).resolve("mini"), State(folder / "state")
    report("base losses")
    of.fit(study, state)
    report("Fisher, and a step for each query")
    ascent = of._ascent(study, GradientReader(study.model, of.group, "loss"))
    return Ready(of, study, state, queries, [ascent.change(queries, i) for i in range(len(queries))], options)


# ------------------------------------------------------------------------------------------ a world


class World(Study):
    """Pictures of some objects, and the model that is asked about them."""

    id, edition, seed, flips, prompts = "benchmark", "mini", 0, False, ()
    generations = observation = trajectory = None
    model = None

    def __init__(self, model: DiffusionModel, images: list[TrainImage], load: Callable, folder: Path) -> None:
        self.model, self.device, self.train = model, model.device, TrainingImages(images, load)
        self._folder, self._read = folder, {}

    @property
    def models(self) -> Iterator[DiffusionModel]:
        return iter([self.model])

    def features(self, features, queries=None) -> State:
        if features not in self._read:
            self._read[features] = State(self._folder / str(len(self._read)))
            features.of_training(self, self._read[features])
        return self._read[features]


def _world(options: argparse.Namespace, folder: Path) -> tuple[World, Queries]:
    """Pictures of five objects of the mini edition's dev split, and two that the model makes for each of their prompts."""
    model = DiffusionModel.load(options.model or tiny_model(), options.device)
    dataset = CustomConcept101(Path(attribench.__file__).parent / "assets" / "editions" / "customconcept101", "mini")
    concepts = [concept for concept in dataset.concepts if concept.split == "dev"][:CONCEPTS]
    images = [
        TrainImage(id=record.id, prompt=f"photo of a {concept.class_word}", caption=record.caption, concept=concept.name)
        for concept in concepts for record in dataset.images(concept.name)[: options.pictures]
    ]  # fmt: skip
    asked = [(f"photo of a {concept.class_word}", seed) for seed in range(PICTURES_OF_A_PROMPT) for concept in concepts]
    cases = [
        GenerationCase(
            id=f"{prompt}/{seed}", prompt=prompt, plain_prompt=prompt, seed=seed, concepts=(), modifiers=(), variant="",
            role="query",
        )
        for prompt, seed in asked
    ]  # fmt: skip
    drawn = torch.stack([noise.normal(model.latent_shape, "benchmark", case.id) for case in cases])
    pictures = model.sample([case.prompt for case in cases], drawn, steps=25, guidance=3.5)
    made = {case.id: picture for case, picture in zip(cases, pictures, strict=True)}
    if options.precision == "bfloat16":
        model.unet.to(torch.bfloat16), model.text_encoder.to(torch.bfloat16)
    return World(model, images, dataset.load, folder / "features"), Queries(cases, made.__getitem__)


# --------------------------------------------------------------------------------------- throughput


def throughput(ready: Ready, report: Report) -> Rows:
    """Rows a second of the sweep, and of the UNet alone on the same rows in batches of the same size."""
    sweep = ready.sweep()
    batches = _batches(sweep)
    unet = ready.study.model.unet

    def bare() -> None:
        with torch.no_grad():
            for noisy, steps, context in batches:
                unet(noisy, steps, encoder_hidden_states=context)

    def swept() -> None:
        for _ in sweep.losses(ready.changes[:1]):
            pass

    times = _interleaved({"bare forward": bare, "sweep": swept}, ready.options, report)
    rows = sum(len(noisy) for noisy, _, _ in batches)
    share = _ratio(times["bare forward"], times["sweep"])
    return [
        (name, f"{1000 * np.median(found) / rows:.2f} ms a row, {rows / np.median(found):.0f} rows/s",
         f"{share} of the bare rate (asked: ≥ {ASKED})" if name == "sweep" else "")
        for name, found in times.items()
    ]  # fmt: skip


def _batches(sweep: Sweep) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Noisy latents, timesteps and hidden states of all rows, in the sweep's batches."""
    model, batches = sweep.model, []
    for rows in sweep._blocks(0):
        samples = [sample for row in range(rows.start, rows.stop) for sample in sweep.samples(row)]
        latents, drawn = (torch.cat([getattr(s, name) for s in samples]).to(model.device) for name in ("latents", "noise"))
        steps = torch.tensor(sweep.steps, device=model.device).repeat(len(samples))
        with torch.no_grad():
            context = model.encode_prompts([s.prompt for s in samples]).repeat_interleave(len(sweep.steps), dim=0)
        noisy = model.scheduler.add_noise(latents, drawn, steps)
        batches += list(zip(*(tensor.split(sweep.at_once) for tensor in (noisy, steps, context)), strict=True))
    return batches


def several_queries(ready: Ready, report: Report) -> Rows:
    """Rows that pass the UNet and seconds for several queries: base losses once, all queries in one sweep or each in its own."""
    some = ready.changes[:MOST_TOGETHER]

    def together() -> None:
        for _ in ready.sweep().losses(some):
            pass

    def each() -> None:
        for change in some:
            for _ in ready.sweep().losses([change]):
                pass

    def base() -> None:
        for _ in ready.sweep().losses([{}]):
            pass

    one = f"{len(some)} queries, one sweep"
    paths = {f"{len(some)} queries, a sweep each": each, one: together, "base losses, once for all": base}
    rows = {name: _rows_of(ready.study.model.unet, run) for name, run in paths.items()}
    times = _interleaved(paths, ready.options, report)
    beside = {name: "" if name == one else f"× {_ratio(found, times[one])} of one sweep" for name, found in times.items()}
    return [(name, f"{rows[name]:,} rows, {np.median(found):.2f} s", beside[name]) for name, found in times.items()]


def _rows_of(unet: torch.nn.Module, run: Callable[[], None]) -> int:
    seen: list[int] = []
    handle = unet.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    run()
    handle.remove()
    return sum(seen)


# -------------------------------------------------------------------------------------- first order


def first_order(ready: Ready, report: Report) -> Rows:
    """How far the first-order scores order training images as the full sweep does, by the size of the step; what each costs."""
    sweep, queries, prompts = ready.sweep(), ready.queries, ready.study.train.prompts
    own = np.array([[prompt == query for prompt in prompts] for query in queries.prompts])
    report("first order of all queries")
    with _timed(ready.options.device) as seconds:
        reference = _swept(sweep.first_order(ready.changes))  # steps of other sizes are multiples of these
    linear = seconds() / len(queries)
    rows, costs = [], []
    for number, size in enumerate(ready.options.sizes):
        report(f"a sweep of all {len(queries)} queries with steps of {size:g}, {number + 1} of {len(ready.options.sizes)}")
        scaled = [{name: size * part for name, part in change.items()} for change in ready.changes]
        with _timed(ready.options.device) as seconds:
            rises = _swept(sweep.losses(scaled)) - ready.state["base"]
        costs.append(seconds() / len(queries))
        agreement = np.array([stats.spearmanr(a, b).statistic for a, b in zip(rises, reference, strict=True)])
        rows.append((f"sweep, step of {size:g}", f"{costs[-1]:.2f} s a query",
                     f"Spearman {_mean(agreement)}, own images first {_precision(rises, own):.2f}"))  # fmt: skip
    first = (f"first order, {len(queries)} queries", f"{linear:.2f} s a query",
             f"× {np.median(costs) / linear:.1f} for a sweep, own images first {_precision(reference, own):.2f}")  # fmt: skip
    return [first, *rows]


def _swept(parts) -> np.ndarray:
    return torch.cat([part for _, part in parts], dim=1).double().cpu().numpy()


def _precision(scores: np.ndarray, own: np.ndarray) -> float:
    """Share of images of the query's prompt among the first as many, mean over queries."""
    first = [np.argsort(-row, kind="stable")[: mine.sum()] for row, mine in zip(scores, own, strict=True)]
    return float(np.mean([mine[found].mean() for found, mine in zip(first, own, strict=True)]))


# ------------------------------------------------------------------------------------------- choose


SMALL = {"n_concepts": 3, "n_studies": 2, "templates": 1, "method_seeds": "[4]"}
WORTH = {
    "between-concepts": ("average precision of the prompt's concepts", SMALL),
    "lds": ("LDS on dev subsets", SMALL | {"n_subsets": 4, "n_dev_subsets": 24, "n_seeds": 1}),
}
"""By protocol: what its dev queries say of a candidate, and a preset small enough to be asked often."""


def choose(options: argparse.Namespace, console: Console) -> None:
    """What each size and number of steps is worth on dev queries: never on those that a table reports on.

    Two studies of three concepts of customconcept101's dev split; the worth is the protocol's tuning metric, the mean over
    variants of the mean over queries, as the bench itself tunes.
    """
    for protocol in options.protocol:
        metric, preset = WORTH[protocol]
        console.print(f"customconcept101 mini, dev split, dev queries: {metric}, by relative step size")
        with tempfile.TemporaryDirectory() as folder:
            for steps in options.steps:
                params = {f"{protocol}.{name}": value for name, value in preset.items()} | {
                    "unlearning.step_size": "tuned", "unlearning.steps": steps, "unlearning.timesteps": 5,
                }  # fmt: skip
                config = RunConfig.gather(
                    None, methods=["unlearning"], dataset="customconcept101", protocol=protocol, split="dev", limit=1,
                    device=options.device, workers=0, params=[f"{name}={value}" for name, value in params.items()],
                    store=options.store or Path(folder) / "store", out=Path(folder) / f"steps-{steps}",
                )  # fmt: skip
                result = execute(prepare(config), Listener())
                if result.failure is not None:
                    raise result.failure
                tuning = json.loads((result.folder / "manifest.json").read_text())["tuning"]["unlearning"]
                worth = ", ".join(f"{c['params']['step_size']:g}: {c['dev']:.3f}" for c in tuning)
                console.print(f"{steps} step{'s' if steps > 1 else ''}   {worth}", highlight=False)


# ------------------------------------------------------------------------------------------- timing


def _interleaved(paths: dict[str, Callable[[], None]], options: argparse.Namespace, report: Report) -> dict[str, list[float]]:
    """Seconds of each path, run in turns for `--seconds`; the first turn warms up and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in paths}
    started, turns = time.perf_counter(), 0
    while turns <= FEWEST_TURNS or time.perf_counter() - started < options.seconds:
        for name, run in paths.items():
            report(f"{name}, turn {turns}" if turns else f"{name}, to warm up")
            with _timed(options.device) as seconds:
                run()
            if turns:
                times[name].append(seconds())
        turns += 1
    return times


@contextmanager
def _timed(device: str) -> Iterator[Callable[[], float]]:
    """Seconds: of this process on the CPU, so that other work on the machine does not count; by the clock elsewhere."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    started, ended = clock(), []
    yield lambda: ended[0] - started
    if device != "cpu":
        torch.cuda.synchronize()
    ended.append(clock())


def _ratio(above: list[float], below: list[float]) -> str:
    """Ratio of medians with its bootstrap interval."""
    found = stats.bootstrap(
        (above, below), lambda a, b, axis: np.median(a, axis=axis) / np.median(b, axis=axis),
        paired=False, n_resamples=1000, method="percentile", rng=0,
    ).confidence_interval  # fmt: skip
    return f"{np.median(above) / np.median(below):.2f} [{found.low:.2f}, {found.high:.2f}]"


def _mean(values: np.ndarray) -> str:
    found = stats.bootstrap((values,), np.mean, n_resamples=1000, method="percentile", rng=0).confidence_interval
    return f"{values.mean():.2f} [{found.low:.2f}, {found.high:.2f}]"


PARTS: dict[str, Callable[[Ready, Report], Rows]] = {
    "throughput": throughput,
    "queries": several_queries,
    "first-order": first_order,
}

if __name__ == "__main__":
    main()
