"""What attribution by unlearning costs: the loss sweep beside a bare forward pass, several queries, its first order.

    python benchmarks/unlearning.py                      # the tiny model, one thread: two to three minutes
    python benchmarks/unlearning.py --choose             # step sizes on the dev queries of customconcept101: half an hour
    python benchmarks/unlearning.py --model ~/models/stable-diffusion-v1-4 --device cuda --precision bfloat16

The sweep has to reach 85 % of the throughput of a bare batched forward pass over the same latents: the same rows of the
UNet in the same batches, with noise, timesteps and prompts made ready beforehand. CPU seconds of interleaved repetitions
(seconds by the clock on an accelerator); intervals are scipy's bootstrap over repetitions, or over queries for agreement.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from attribench.datasets.customconcept101 import CustomConcept101
from attribench.methods.unlearning import STEP_SIZES, Unlearning
from attribench.methods.unlearning.sweep import ROWS, Sweep
from machine import describe
from rich.console import Console
from rich.table import Table
from scipy import stats

from attribench import job
from attribench.diffusion import noise
from attribench.diffusion.model import DiffusionModel
from attribench.engine.progress import Listener
from attribench.gradients.diffusion import GradientReader
from attribench.interface import GenerationCase, Queries, State, Study, TrainImage, TrainingImages
from attribench.run_config import RunConfig

CONCEPTS, N_QUERIES = 5, 5
MOST_TOGETHER = 4
"""Queries in the comparison of one sweep for several with a sweep for each."""
ASKED = 0.85


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--pictures", type=int, default=8, help="training images of each of five objects")
    parser.add_argument("--rows", type=int, default=ROWS, help="(image, timestep) rows in a pass")
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
    study, queries = _world(options)
    with tempfile.TemporaryDirectory() as folder:
        of, state = Unlearning().resolve("mini"), State(Path(folder))
        of.fit(study, state)
        changes = _changes(of, study, queries)
        console.print(throughput(of, study, state, changes, options))
        console.print(several_queries(of, study, state, changes, options))
        console.print(first_order(of, study, state, queries, changes, options))


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


def _world(options: argparse.Namespace) -> tuple[World, Queries]:
    """Forty pictures of five objects of the mini edition's dev split, and pictures that the model makes for their prompts."""
    model = DiffusionModel.load(options.model or job.tiny_model(), options.device)
    dataset = CustomConcept101(Path(job.__file__).parent / "assets" / "editions" / "customconcept101", "mini")
    concepts = [concept for concept in dataset.concepts if concept.split == "dev"][:CONCEPTS]
    images = [
        TrainImage(id=record.id, prompt=f"photo of a {concept.class_word}", caption=record.caption, concept=concept.name)
        for concept in concepts for record in dataset.images(concept.name)[: options.pictures]
    ]  # fmt: skip
    prompts = [f"photo of a {concept.class_word}" for concept in concepts][:N_QUERIES]
    drawn = torch.stack([noise.normal(model.latent_shape, "benchmark", prompt) for prompt in prompts])
    made = dict(zip(prompts, model.sample(prompts, drawn, steps=25, guidance=3.5), strict=True))
    if options.precision == "bfloat16":
        model.unet.to(torch.bfloat16), model.text_encoder.to(torch.bfloat16)
    cases = [
        GenerationCase(id=prompt, prompt=prompt, plain_prompt=prompt, seed=0, concepts=(), modifiers=(), variant="", role="query")
        for prompt in prompts
    ]
    study = World(model, images, dataset.load, Path(tempfile.mkdtemp(prefix="unlearning-")))
    return study, Queries(cases, made.__getitem__)


def _changes(of: Unlearning, study: World, queries: Queries) -> list[dict]:
    ascent = of._ascent(study, GradientReader(study.model, of.group, "loss"))
    return [ascent.change(queries, i) for i in range(len(queries))]


# --------------------------------------------------------------------------------------- throughput


def throughput(of: Unlearning, study: World, state: State, changes: list[dict], options: argparse.Namespace) -> Table:
    """Rows a second of the sweep, and of the UNet alone on the same rows in batches of the same size."""
    sweep = Sweep(study, state["latents"], of.timesteps, of.group, options.rows)
    batches = _ready(sweep)
    unet = study.model.unet

    def bare() -> None:
        with torch.no_grad():
            for noisy, steps, context in batches:
                unet(noisy, steps, encoder_hidden_states=context)

    def swept() -> None:
        for _ in sweep.losses(changes[:1]):
            pass

    times = _interleaved({"bare forward": bare, "sweep": swept}, options)
    rows = sum(len(noisy) for noisy, _, _ in batches)
    table = Table(title=f"throughput: {len(study.train)} images × {of.timesteps} timesteps, {options.rows} rows in a pass")
    for column in ("path", "ms a row", "rows a second", "share of the bare forward [95 %]"):
        table.add_column(column, justify="left" if column == "path" else "right")
    for name, found in times.items():
        share = _ratio(times["bare forward"], found) if name == "sweep" else ""
        table.add_row(name, f"{1000 * np.median(found) / rows:.2f}", f"{rows / np.median(found):.0f}", share)
    table.add_row("asked", "", "", f"≥ {ASKED}", style="dim")
    return table


def _ready(sweep: Sweep) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
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


def several_queries(of: Unlearning, study: World, state: State, changes: list[dict], options: argparse.Namespace) -> Table:
    """Rows that pass the UNet and seconds for several queries: base losses once, all queries in one sweep or each in its own."""
    sweep = Sweep(study, state["latents"], of.timesteps, of.group, options.rows)
    some = changes[:MOST_TOGETHER]

    def together() -> None:
        for _ in sweep.losses(some):
            pass

    def each() -> None:
        for change in some:
            for _ in Sweep(study, state["latents"], of.timesteps, of.group, options.rows).losses([change]):
                pass

    def base() -> None:
        for _ in sweep.losses([{}]):
            pass

    paths = {"base losses": base, f"{len(some)} queries, a sweep for each": each, f"{len(some)} queries, one sweep": together}
    rows = {name: _rows_of(study.model.unet, run) for name, run in paths.items()}
    times = _interleaved(paths, options)
    table = Table(title="several queries: the base losses are taken once, in fit, whatever the number of queries")
    for column in ("path", "rows through the UNet", "seconds", "× one sweep for all [95 %]"):
        table.add_column(column, justify="left" if column == "path" else "right")
    for name, found in times.items():
        beside = _ratio(found, times[f"{len(some)} queries, one sweep"]) if name.endswith("each") else ""
        table.add_row(name, f"{rows[name]:,}", f"{np.median(found):.2f}", beside)
    return table


def _rows_of(unet: torch.nn.Module, run: Callable[[], None]) -> int:
    seen: list[int] = []
    handle = unet.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    run()
    handle.remove()
    return sum(seen)


# -------------------------------------------------------------------------------------- first order


def first_order(
    of: Unlearning, study: World, state: State, queries: Queries, changes: list[dict], options: argparse.Namespace
) -> Table:
    """How far the first-order scores order training images as the full sweep does, by the size of the step; what each costs."""
    sweep = Sweep(study, state["latents"], of.timesteps, of.group, options.rows)
    reference = _swept(sweep.first_order(changes))  # steps of other sizes are multiples of these
    cost: dict[str, float] = {}
    for name, run in (("losses", lambda: sweep.losses(changes)), ("first-order", lambda: sweep.first_order(changes))):
        with _timed(options.device) as seconds:
            for _ in run():
                pass
        cost[name] = seconds() / len(changes)
    table = Table(
        title=f"first order beside the full sweep, {len(queries)} queries: seconds a query {cost['losses']:.2f} for the sweep, "
        f"{cost['first-order']:.2f} for its first order"
    )
    for column in ("relative size of one step", "Spearman with first order [95 % over queries]", "share of own images first"):
        table.add_column(column, justify="right")
    own = np.array([[prompt == query for prompt in study.train.prompts] for query in queries.prompts])
    table.add_row("→ 0 (first order)", "1", f"{_precision(reference, own):.2f}")
    for size in (0.01, *STEP_SIZES):
        scaled = dataclasses.replace(of, steps=1, step_size=float(size))
        rises = _swept(sweep.losses(_changes(scaled, study, queries))) - state["base"]
        agreement = np.array([stats.spearmanr(a, b).statistic for a, b in zip(rises, reference, strict=True)])
        table.add_row(f"{size:g}", _mean(agreement), f"{_precision(rises, own):.2f}")
    return table


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
                result = job.run(job.prepare(config), Listener())
                if result.failure is not None:
                    raise result.failure
                tuning = json.loads((result.folder / "manifest.json").read_text())["tuning"]["unlearning"]
                worth = ", ".join(f"{c['params']['step_size']:g}: {c['dev']:.3f}" for c in tuning)
                console.print(f"{steps} step{'s' if steps > 1 else ''}   {worth}", highlight=False)


# ------------------------------------------------------------------------------------------- timing


def _interleaved(paths: dict[str, Callable[[], None]], options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each path, run in turns; the first turn warms up and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in paths}
    for repetition in range(options.repetitions + 1):
        for name, run in paths.items():
            with _timed(options.device) as seconds:
                run()
            if repetition:
                times[name].append(seconds())
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


if __name__ == "__main__":
    main()
