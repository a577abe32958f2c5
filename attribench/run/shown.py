"""The queries that a run shows: what each method found for them, and what models make of them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from attribench.study.retrainings import Part
from attribench.truth.regeneration import regenerated

SHOWN_QUERIES = 6


def shown_queries(
    prepared: Prepared, contenders: Sequence[Contender], labels: Mapping[str, str], outcomes: Outcomes
) -> list[Shown]:
    """Some queries of every variant, from different studies, with each method's first five training images."""
    shown = []
    plans = [plan for plan in prepared.plans if is_trained(prepared, plan, outcomes)]
    variants = variants_of(plans)
    for i in range(SHOWN_QUERIES):
        plan, variant = plans[i % len(plans)], variants[i % len(variants)]
        numbers = by_variant(plan).get(variant, [])
        if numbers:
            shown.append(_shown(prepared, contenders, labels, plan, numbers[(i * 7) % len(numbers)]))
    return shown


def _shown(prepared: Prepared, contenders: Sequence[Contender], labels: Mapping[str, str], plan: StudyPlan, number: int) -> Shown:
    generated = prepared.studies[plan.id].pictures.keys["pictures"]
    folder = prepared.store.path(generated) if plan.given is None else None
    case = plan.roles("query")[number]
    relevant = prepared.protocol.relevant(plan)
    framed = [image.concept in case.concepts for image in plan.rows] if relevant is None else relevant[number]
    marks = prepared.protocol.marks if relevant is not None or case.concepts else ""
    top: dict[str, list[tuple[Image.Image, bool]]] = {}
    for contender in contenders:
        run = next(run for run in contender.entry.runs if run.plan.id == plan.id)
        scores = scores_of(prepared, run, "query", contender.candidate).values[number]
        if (scores == scores[0]).all():  # it ranks nothing, and five pictures would be those of the array's order
            continue
        top[labels[contender.entry.plugin.name]] = [
            (prepared.dataset.load(plan.rows[i].id), bool(framed[i])) for i in np.argsort(-scores, kind="stable")[:5]
        ]
    queries = queries_of(plan, "query", folder, prepared.dataset.load)
    return Shown(
        prompt=case.prompt,
        picture=queries[number],
        title=" + ".join(case.concepts),
        marks=marks,
        region=queries.regions[number],
        top=top,
    )


def shown_again(
    prepared: Prepared, contenders: Sequence[Contender], labels: Mapping[str, str], studies: Sequence[str]
) -> list[Regenerated]:
    """The first query of each study, by id, as far as the protocol has pictures generated again and they are in the store:
    an imported truth has those that the run which made it has shown."""
    shown = []
    for plan in (plan for plan in prepared.plans if plan.id in studies):
        taken = prepared.truths[plan.id].get("query")
        if taken is None or not taken.pictures:
            continue
        again: dict[str, dict[str, Image.Image]] = {}
        there = {look: ref for look, ref in taken.pictures.items() if 0 in look.queries and prepared.store.has(ref.key)}
        looks = {look.part: (look, ref) for look, ref in there.items()}

        def pictures(parts: Mapping[str, Part], looks=looks) -> dict[str, Image.Image]:
            found = {name: looks[part] for name, part in parts.items() if part in looks}
            return {
                name: regenerated(prepared.store.path(ref.key), len(look.queries))[look.queries.index(0)]
                for name, (look, ref) in found.items()
            }

        for contender in contenders:
            run = next(run for run in contender.entry.runs if run.plan.id == plan.id)
            scores = scores_of(prepared, run, "query", contender.candidate).values[0]
            if own := pictures(prepared.protocol.shown_again(scores)):
                again[labels[contender.entry.plugin.name]] = own
        if drawn := pictures(prepared.protocol.shown_at_random(plan)):
            again["at random"] = drawn
        folder = prepared.store.path(prepared.studies[plan.id].pictures.keys["pictures"])
        shown.append(Regenerated(prompt=plan.roles("query")[0].prompt, picture=generated(plan, folder, "query")[0], again=again))
    return shown
