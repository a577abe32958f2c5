"""How fast submissions are verified, how fast a board of a thousand of them is built, and how fast its page sorts.

    python benchmarks/leaderboard.py [--submissions 1000] [--folder FOLDER] [--dataset customconcept101] [--protocol …]

Submissions are synthetic and valid: scores of known quality on the real studies of a mini edition, with every number
recomputed from them. Twenty differ in their scores; the others carry the scores of one of these under another method's
name, with other hyper-parameters, costs and dates, so that a thousand need no hours to be made. All are read, ranked and
shown as any submission is. The time of making them is no part of what is measured. The browser is a headless Chromium.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from machine import describe

from attribench import __version__
from attribench.boards.board import Board, Leaderboards, default_experiment
from attribench.boards.entry import Entry, entry_bytes, entry_of
from attribench.boards.site import build_site
from attribench.measurement import Retrained, Truth
from attribench.report.record import Row
from attribench.run.experiment import Planned
from attribench.submissions.container import pack
from attribench.submissions.numbers import numbers, values
from attribench.submissions.pack import members_of
from attribench.submissions.statement import FORMAT, Method, Statement, Study
from attribench.submissions.truths import digest_of as truth_digest
from attribench.submissions.verify import Verdict, verify

DISTINCT = 20
CONTROLS = ("random", "constant")
NEEDS = ((), ("gradients",), ("training",), ("gradients", "checkpoints"), ())


def synthetic_truth(planned: Planned, plan) -> Truth:
    """Labels as they are; tables and losses that hold what they must, drawn at random."""
    random = np.random.default_rng(len(plan.id))
    queries, images = plan.roles("query"), plan.rows
    shape = (len(queries), len(images))
    request = next((r for r in planned.protocol.retrainings(plan) if r.role == "query"), None)
    retrained = None
    if request is not None:
        masks = np.zeros((len(request.subsets), len(images)), dtype=bool)
        for mask, rows in zip(masks, request.subsets, strict=True):
            mask[list(rows)] = True
        effect = np.array([[image.concept in case.concepts for image in images] for case in queries]) + random.random(shape)
        noise = 0.02 * random.normal(size=(len(queries), len(masks), len(request.seeds)))
        losses = 1 - 0.01 * (effect @ masks.T)[:, :, None] + noise
        full = losses.mean((1, 2))
        retrained = Retrained(masks=masks, seeds=request.seeds, losses=losses, full=full, own_seed=plan.training.seed)
    relevant = planned.protocol.relevant(plan)
    tables = {} if relevant is None else {"table": relevant + random.random(shape)}
    return Truth(
        query_ids=tuple(c.id for c in queries), train_ids=tuple(i.id for i in images), relevant=relevant, tables=tables,
        retrained=retrained,
    )  # fmt: skip


def synthetic_verdict(planned: Planned, truths: dict[str, Truth], number: int) -> Verdict:
    """An accepted submission of one method and two controls: what `verify` gives for its file."""
    random = np.random.default_rng(number)
    quality = random.beta(2, 2)
    seeds = tuple(sorted(planned.protocol.preset.method_seeds))
    methods = (
        Method(
            name=f"method-{number:04d}", params={"quality": round(quality, 3), "size": int(random.integers(8, 512))},
            control=False, needs=NEEDS[number % len(NEEDS)], plugin=f"method-{number:04d} 1.0.{number % 7}", seeds=(0,),
            summary="A synthetic method for the benchmark of the board.",
        ),
        Method(name="random", params={}, control=True, plugin=f"attribench-diffusion {__version__}", seeds=seeds),
        Method(name="constant", params={}, control=True, plugin=f"attribench-diffusion {__version__}", seeds=(0,)),
    )  # fmt: skip
    scores = {}
    for plan in planned.plans:
        truth = truths[plan.id]
        shape = (len(truth.query_ids), len(truth.train_ids))
        signal = np.array([[i.concept in c.concepts for i in plan.rows] for c in plan.roles("query")])
        scores[methods[0].name, plan.id, 0] = (quality * 2 * signal + random.normal(size=shape)).astype(np.float32)
        scores["constant", plan.id, 0] = np.zeros(shape, dtype=np.float32)
        for seed in seeds:
            scores["random", plan.id, seed] = np.random.default_rng([seed, len(plan.id)]).random(shape).astype(np.float32)
    experiment = planned.experiment
    statement = Statement(
        format=FORMAT, attribench=__version__, finished=finished(number), seconds=60.0, experiment=experiment,
        submitter=f"Group {number % 17}", links={"code": f"https://example.org/{number}"},
        studies={n: Study(plan=d, truth=truth_digest(truths[n])) for n, d in planned.digests.items()}, methods=methods,
        machine={"platform": "benchmark", "cores": 2, "device": "cpu"}, packages={},
    )  # fmt: skip
    found = values(planned, methods, scores, truths)
    of_method = {method.name: (method, costs(random)) for method in methods}
    rows = [
        Row(
            **number_of | {"tuning": None}, **of_method[number_of["method"]][1], params=of_method[number_of["method"]][0].params,
            control=number_of["method"] in CONTROLS, plugin=of_method[number_of["method"]][0].plugin,
            dataset=experiment.dataset, edition=experiment.edition, protocol=experiment.protocol, split=experiment.split,
            seed=experiment.seed, device="cpu", status="ok", n_concepts=len(planned.plans[0].concepts) or None,
        )
        for number_of in numbers(planned, found).to_dict("records")
    ]  # fmt: skip
    verified = {(row.variant, row.metric) for row in rows}
    return Verdict([], statement, planned, rows, found, scores, truths, verified)


def finished(number: int) -> str:
    """A date for each submission."""
    return f"2026-{1 + number % 12:02d}-{1 + number % 28:02d}T{number % 24:02d}:00:00Z"


def costs(random: np.random.Generator) -> dict[str, float]:
    """From hundredths to thousands of seconds and bytes."""
    names = ("fit_seconds", "query_seconds", "bytes_per_train_image")
    return dict(zip(names, (10 ** random.uniform(-2, 3, 3)).tolist(), strict=True))


def renamed(verdict: Verdict, entry: Entry, number: int) -> tuple[Verdict, Entry]:
    """The same scores as another submission's method."""
    stated = costs(np.random.default_rng(number))
    old, *controls = verdict.statement.methods
    changed = {"name": f"method-{number:04d}", "params": old.params | {"size": number}, "needs": NEEDS[number % len(NEEDS)]}
    new = old.model_copy(update=changed)
    own = {"method": new.name, "params": new.params, **stated}
    rows = [row.model_copy(update=own) if row.method == old.name else row for row in verdict.rows]
    statement = verdict.statement.model_copy(update={"methods": (new, *controls), "finished": finished(number)})
    per_query = verdict.values.per_query.replace({"method": {old.name: new.name}})
    scores = {(new.name if m == old.name else m, s, n): own for (m, s, n), own in verdict.scores.items()}

    def names(of: dict) -> dict:
        return {(new.name if key[0] == old.name else key[0], *key[1:]): array for key, array in of.items()}

    as_entry = replace(
        entry, statement=statement, rows=tuple(rows), values=names(entry.values), means=names(entry.means),
        shown={new.name if name == old.name else name: shown for name, shown in entry.shown.items()},
    )  # fmt: skip
    found = replace(verdict.values, per_query=per_query)
    return replace(verdict, statement=statement, rows=rows, values=found, scores=scores), as_entry


def put(board: Board, verdict: Verdict, entry: Entry) -> Path:
    """A submission's file and entry on the board, as `attribench leaderboard add` leaves them."""
    data = pack(members_of(verdict.statement, verdict.rows, verdict.values.per_query, verdict.scores, verdict.truths))
    digest = hashlib.sha256(data).hexdigest()
    path = board.root / "submissions" / board.name / f"{digest[:16]}.submission.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    board.entry_path(digest).parent.mkdir(parents=True, exist_ok=True)
    board.entry_path(digest).write_bytes(entry_bytes(replace(entry, digest=digest)))
    return path


def populate(root: Path, dataset: str, protocol: str | None, count: int) -> Iterator[Path]:
    """A board with so many submissions."""
    board = Leaderboards(root).define(default_experiment(dataset, protocol, None))
    planned = board.planned()
    truths = {plan.id: synthetic_truth(planned, plan) for plan in planned.plans}
    originals: list[tuple[Verdict, Entry]] = []
    for number in range(count):
        if number < DISTINCT:
            verdict = synthetic_verdict(planned, truths, number)
            originals.append((verdict, entry_of(verdict, "")))
        yield put(board, *(originals[number] if number < DISTINCT else renamed(*originals[number % DISTINCT], number)))


def work(meter) -> float:
    """Milliseconds of script, style and layout that the page's thread has spent computing, whatever else the machine did."""
    found = {metric["name"]: metric["value"] for metric in meter.send("Performance.getMetrics")["metrics"]}
    return 1000 * sum(found[name] for name in ("ScriptDuration", "RecalcStyleDuration", "LayoutDuration"))


def sort_milliseconds(page: Path) -> tuple[list[tuple[float, float, float]], int] | None:
    """For several headings: from a click to rows that are laid out anew, to the next frame, and the thread's own time; and
    the number of methods. None without a browser."""
    import shutil

    if not (chromium := shutil.which("chromium")):
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            view = browser.new_page(viewport={"width": 1280, "height": 900})
            view.goto(page.resolve().as_uri())
            meter = view.context.new_cdp_session(view)
            meter.send("Performance.enable", {"timeDomain": "threadTicks"})
            took = []
            for column in (3, 1, 4, 7, 3):
                before = work(meter)
                laid_out, frame = (view.evaluate(
                    """column => new Promise(done => {
                        const button = document.querySelectorAll("table.board thead tr")[0].cells[column].querySelector("button");
                        const started = performance.now();
                        button.click();
                        document.body.getBoundingClientRect();
                        const laidOut = performance.now() - started;
                        requestAnimationFrame(() => setTimeout(() => done([laidOut, performance.now() - started])));
                    })""", column))  # fmt: skip
                took.append((laid_out, frame, work(meter) - before))
            return took, int(view.locator("[role=status]").inner_text().split()[2])
        finally:
            browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--submissions", type=int, default=1000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--dataset", default="customconcept101")
    parser.add_argument("--protocol")
    options = parser.parse_args()
    print(describe())
    root = options.folder or Path(tempfile.mkdtemp()) / "leaderboards"
    started = time.perf_counter()
    paths = list(populate(root, options.dataset, options.protocol, options.submissions))
    print(f"made {len(paths)} submissions in {time.perf_counter() - started:.1f} s ({paths[0].stat().st_size:,} bytes each)")
    leaderboards = Leaderboards(root)
    (board,) = leaderboards.boards
    started, processor = time.perf_counter(), time.process_time()
    verdict = verify(paths[0])
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    said = "accepted" if verdict.accepted else "; ".join(verdict.reasons)
    print(f"verify: {seconds:.2f} s ({processor:.2f} s of one core), {said}")
    started, processor = time.perf_counter(), time.process_time()
    built = build_site(leaderboards, root / "site")
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    print(f"build: {built.n_submissions} submissions, {built.n_files} files in {seconds:.1f} s ({processor:.1f} s of one core)")
    page = root / "site" / "boards" / f"{board.name}.html"
    print(f"page: {page} {page.stat().st_size:,} bytes")
    measured = sort_milliseconds(page)
    if measured is None:
        print("sort: no chromium on the path, not measured")
    else:
        took, n_rows = measured
        for name, of in (("to rows laid out anew", 0), ("to the next frame", 1), ("the thread's own time", 2)):
            times = [one[of] for one in took]
            print(f"sort of {n_rows} methods, {name}: {', '.join(f'{t:.0f}' for t in times)} ms")


if __name__ == "__main__":
    main()
