"""The queries that a run shows: what each method found for them, and what models make of them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from attribench.report.figures.regenerated import Regenerated
from attribench.report.figures.top_five import Shown
from attribench.run.measured import by_variant, variants_of
from attribench.run.outcomes import Outcomes, is_trained, scores_of
from attribench.run.prepared import Prepared
from attribench.run.tuning import Contender
from attribench.study.generated import generated, queries_of
from attribench.study.plan import StudyPlan
from attribench.truth.regeneration import regenerated

SHOWN_QUERIES = 6


def shown_queries(prepared: Prepared, contenders: Mapping[str, Contender], outcomes: Outcomes) -> list[Shown]:
    """Some queries of every variant, from different studies, with the first five training images of each contender, by label."""
    shown = []
    plans = [plan for plan in prepared.plans if is_trained(prepared, plan, outcomes)]
    variants = variants_of(plans)
    for i in range(SHOWN_QUERIES):
        plan, variant = plans[i % len(plans)], variants[i % len(variants)]
        numbers = by_variant(plan).get(variant, [])
        if numbers:
            shown.append(_shown(prepared, contenders, plan, numbers[(i * 7) % len(numbers)]))
    return shown


def _shown(prepared: Prepared, contenders: Mapping[str, Contender], plan: StudyPlan, number: int) -> Shown:
    case = plan.roles("query")[number]
    relevant = prepared.protocol.relevant(plan)
    framed = [image.concept in case.concepts for image in plan.rows] if relevant is None else relevant[number]
    top: dict[str, list[tuple[Image.Image, bool]]] = {}
    for label, contender in contenders.items():
        scores = _scores(prepared, contender, plan)[number]
        if (scores == scores[0]).all():  # it ranks nothing, and five pictures would be those of the array's order
            continue
        best = np.argsort(-scores, kind="stable")[:5]
        top[label] = [(prepared.dataset.load(plan.rows[i].id), bool(framed[i])) for i in best]
    folder = _pictures(prepared, plan) if plan.given is None else None
    queries = queries_of(plan, "query", folder, prepared.dataset.load)
    return Shown(
        prompt=case.prompt,
        picture=queries[number],
        title=" + ".join(case.concepts),
        marks=prepared.protocol.marks if relevant is not None or case.concepts else "",
        region=queries.regions[number],
        top=top,
    )


def shown_again(prepared: Prepared, contenders: Mapping[str, Contender], plans: Sequence[StudyPlan]) -> list[Regenerated]:
    """The first query of each study, as far as the protocol has pictures generated again and they are in the store: an
    imported truth has those that the run which made it has shown."""
    shown = []
    for plan in plans:
        taken = prepared.truths[plan.id].get("query")
        if taken is None or not taken.pictures:
            continue
        there = {look: ref for look, ref in taken.pictures.items() if 0 in look.queries and prepared.store.has(ref.key)}
        looks = {look.part: (look, ref) for look, ref in there.items()}
        named = {
            label: prepared.protocol.shown_again(_scores(prepared, contender, plan)[0]) for label, contender in contenders.items()
        }
        again: dict[str, dict[str, Image.Image]] = {}
        for label, parts in {**named, "at random": prepared.protocol.shown_at_random(plan)}.items():
            found = {name: looks[part] for name, part in parts.items() if part in looks}
            if found:
                again[label] = {
                    name: regenerated(prepared.store.path(ref.key), len(look.queries))[look.queries.index(0)]
                    for name, (look, ref) in found.items()
                }
        picture = generated(plan, _pictures(prepared, plan), "query")[0]
        shown.append(Regenerated(prompt=plan.roles("query")[0].prompt, picture=picture, again=again))
    return shown


def _scores(prepared: Prepared, contender: Contender, plan: StudyPlan) -> np.ndarray:
    """[n_query, n_train] by the first of its seeds."""
    run = next(run for run in contender.entry.runs if run.plan.id == plan.id)
    return scores_of(prepared, run, "query", contender.candidate).values


def _pictures(prepared: Prepared, plan: StudyPlan) -> Path:
    return prepared.store.path(prepared.studies[plan.id].pictures.keys["pictures"])
