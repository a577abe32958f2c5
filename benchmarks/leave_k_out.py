"""Can leave-K-out see a real effect? Removing a query's own subject against removing as many random images.

    python benchmarks/leave_k_out.py [--dataset mscoco] [--seeds 2] [--queries 1] [--workers 2] [--preset mini]

For the protocol's studies: the model that is attributed generates its queries; then, for each query and seed, models are
trained from scratch without the training images of the query's own subjects, and without as many at random. The mini
edition's images.csv and prompts.csv say what a picture shows and what a prompt asks for; no protocol and no method sees
them. Prints ΔL × 10³ of both for every seed, and the mean difference over queries with its interval, clustered by study;
then what a training, a look and a regeneration take, and the projected cost of the protocol's own run.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from machine import describe

from attribench.cli.progress import listener_for
from attribench.diffusion import noise
from attribench.diffusion.fingerprint import fingerprint
from attribench.editions import open_dataset
from attribench.engine.run import execute
from attribench.engine.store import ArtifactStore
from attribench.protocols.leave_k_out import LeaveKOut
from attribench.run.places import tiny_model
from attribench.statistics.intervals import estimate
from attribench.study.plan import StudyPlan
from attribench.study.retrainings import Look, LossMeasure, Part, Retrainings
from attribench.study.study_steps import StudySteps
from attribench.truth.losses import TakenLosses


def subjects(root: Path, table: str, key: str) -> dict[str, set[str]]:
    """What each picture shows, or each prompt asks for, from the mini edition's own tables."""
    with (root / table).open(newline="", encoding="utf-8") as stream:
        return {Path(row[key]).name: set(filter(None, row["subjects"].split("|"))) for row in csv.DictReader(stream)}


def own_rows(
    plan: StudyPlan, query: int, of_images: Mapping[str, set[str]], of_prompts: Mapping[str, set[str]]
) -> tuple[int, ...]:
    """The training images that show what a query asks for."""
    case = plan.roles("query")[query]
    wanted = of_prompts[str(int(case.id.partition("-")[0]))]
    return tuple(row for row, image in enumerate(plan.training.images) if of_images[Path(image.id).name] & wanted)


def removals(plan: StudyPlan, rows: Mapping[int, tuple[int, ...]], seeds: list[int]) -> tuple[list[Look], list[Look]]:
    """For each query and seed: without its own images, and without as many others at random."""
    own, other = [], []
    n_train = len(plan.training.images)
    for query, left_out in rows.items():
        for number, seed in enumerate(seeds):
            drawn = noise.draws("benchmark", plan.id, query, number).permutation(n_train)[: len(left_out)]
            own.append(Look(Part(left_out, seed), (query,)))
            other.append(Look(Part(tuple(sorted(drawn.tolist())), seed), (query,)))
    return own, other


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--dataset", default="mscoco")
    arguments.add_argument("--preset", default="mini")
    arguments.add_argument("--seeds", type=int, default=2)
    arguments.add_argument("--queries", type=int, default=1, help="of each study")
    arguments.add_argument("--workers", default="auto")
    arguments.add_argument("--store", type=Path, default=None)
    given = arguments.parse_args()
    dataset = open_dataset(given.dataset)
    of_images, of_prompts = subjects(dataset.root, "images.csv", "file"), subjects(dataset.root, "prompts.csv", "image_id")
    protocol = LeaveKOut.with_preset(given.preset, {})
    model = str(tiny_model())
    plans = protocol.plans(dataset, model=fingerprint(model), split="test", seed=0, limit=None)
    store = ArtifactStore(given.store or Path(tempfile.mkdtemp()))
    seeds = [noise.seed_of("leave-k-out", "retraining", number) for number in range(given.seeds)]
    measure = LossMeasure(timesteps=protocol.preset.timesteps, draws=protocol.preset.noise_draws)
    taken: dict[str, tuple[TakenLosses, list[Look], list[Look]]] = {}
    for plan in plans:
        shown = {query: own_rows(plan, query, of_images, of_prompts) for query in range(len(plan.roles("query")))}
        rows = {query: left_out for query, left_out in list(shown.items()) if left_out}
        own, other = removals(plan, dict(list(rows.items())[: given.queries]), seeds)
        request = Retrainings(
            role="query", n_train=len(plan.training.images), looks=(*own, *other), measure=measure, encoder="clip-tiny"
        )
        study = StudySteps.of(plan, [], {"model": model, "dataset": dataset})
        taken[plan.id] = TakenLosses.of_all(study, [request], store.has)["query"], own, other
        print(f"{plan.id}: images of its queries' subjects {[len(of) for of in shown.values()]}", flush=True)
    started = time.perf_counter()
    steps = [step for of, _, _ in taken.values() for step in of.steps]
    workers = given.workers if given.workers == "auto" else int(given.workers)
    outcomes = execute(steps, store, workers=workers, scheduler=None, device="cpu", listener=listener_for(json=False))
    failed = [outcome.reason for outcome in outcomes.values() if not outcome.ok]
    if failed:
        raise SystemExit(failed[0])
    report(store, taken, seeds, time.perf_counter() - started)


def report(store: ArtifactStore, taken: Mapping, seeds: list[int], seconds: float) -> None:
    """The rises and their difference, by seed and over all."""
    by_seed: dict[int, list[tuple[str, float, float]]] = {seed: [] for seed in seeds}
    for plan_id, (of, own, other) in taken.items():
        known = of.retrained(store.path)
        left_out = of.request.left_out

        def rise(look: Look, known=known, left_out=left_out) -> float:
            at = left_out.index(look.part.left_out), known.seeds.index(look.part.seed)
            return 1000 * float(known.losses[(look.queries[0], *at)] - known.full[look.queries[0]])

        for first, second in zip(own, other, strict=True):
            by_seed[first.part.seed].append((plan_id, rise(first), rise(second)))
    print(f"\n{describe()}")
    print("ΔL × 10³ without the query's own subject, and without as many random images")
    for number, seed in enumerate(seeds):
        own, other = (np.array([row[place] for row in by_seed[seed]]) for place in (1, 2))
        found = estimate(own - other, [row[0] for row in by_seed[seed]])
        more = f"{(own > other).mean():.0%} of queries"
        print(f"  seed {number}: {own.mean():8.2f} {other.mean():8.2f}   difference {interval(found)}, {more}")
    together = [(row[0], row[1] - row[2]) for rows in by_seed.values() for row in rows]
    print(f"  all seeds: difference {interval(estimate([d for _, d in together], [study for study, _ in together]))}")
    times: dict[str, list[float]] = {}
    for manifest in store.manifests():
        times.setdefault(manifest["step"], []).append(manifest["cost"]["seconds"])
    for name, each in times.items():
        print(f"  {name}: {len(each)} artifacts, {np.median(each):.2f} s the median step")
    print(f"  took {seconds / 60:.1f} min")


def interval(found) -> str:
    """value [low, high]."""
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]" if found.has_interval else f"{found.value:.2f}"


if __name__ == "__main__":
    main()
