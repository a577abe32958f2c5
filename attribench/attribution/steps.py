"""The steps that attribute: read features, fit, score. What each takes as input is what its reader may see.

    read (training images) ──► fit ──► score                   held-out queries: what the table shows
                          └──────────► score on dev queries    where a method has candidates to choose from
    read (queries) ──────────────────► both

A reader is a method or features. Features are read once for all methods that name them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from attribench.attribution.granted import GrantedStudy, Materials
from attribench.attribution.reading import CHEAP, MODELS, Reader, features_name, keep_state, note_cost, reader_name
from attribench.attribution.scores import SCORES, write_scores
from attribench.attribution.shared import base_step, shared_step
from attribench.data import Queries, Role
from attribench.diffusion.observing import TrainingObserver
from attribench.engine.measure import measure
from attribench.engine.steps import Ref, Step, StepContext
from attribench.errors import MethodError
from attribench.files.state import State
from attribench.interface import Access, AttributionMethod, Features, Scores
from attribench.study.blame import blame
from attribench.study.ensemble import member_inputs, members
from attribench.study.generated import queries_of
from attribench.study.plan import StudyPlan
from attribench.study.steps import observation_name

if TYPE_CHECKING:
    from attribench.study.study_steps import StudySteps


QUERIES: dict[Role, str] = {"query": "queries", "fit": "dev queries"}
"""How the progress display calls them; the pictures to learn from are the dev queries."""


# -------------------------------------------------------------------------------------- building


def read_step(study: StudySteps, features: Features, role: Role | None = None) -> Step:
    """Read features of the training images, or of the queries of one role; shared by all methods that name them.

    Of the training images those alone that `shared_step` does not read.
    """
    if features.of_base():
        return base_step(study, features)
    inputs = _granted_inputs(study, features)
    if role is not None:
        inputs |= _query_inputs(study, features, role)
    return Step(
        name=f"read {reader_name(features)}" + ("" if role is None else f" of {QUERIES[role]}"),
        label=study.plan.id,
        function=read,
        params={"features": features, **_seen(study.plan, features, role)},
        inputs=inputs,
        outputs={"state": None},
        bindings=study.bindings | {"plan": study.plan},
        version=features.version,
        estimate=CHEAP,
        gpu=True,
    )


def fit_step(study: StudySteps, method: AttributionMethod, seed: int) -> Step:
    """`method.fit` with the inputs that its access covers, so that it depends on nothing else."""
    features = {features_name(f): Ref(read_step(study, f), "state") for f in method.features()}
    shared = {f"shared-{features_name(f)}": shared_step(study, f) for f in method.features()}
    features |= {name: Ref(step, "state") for name, step in shared.items() if step is not None}
    features |= {f"query-{features_name(f)}": Ref(read_step(study, f, "fit"), "state") for f in of_generations(method)}
    return Step(
        name=f"fit {method.name}",
        label=f"{study.plan.id} seed {seed}" if method.stochastic else study.plan.id,
        function=fit,
        params={"method": method, "seed": seed, **_seen(study.plan, method, None)},
        inputs=_granted_inputs(study, method) | features,
        outputs={"state": None},
        bindings=study.bindings | {"plan": study.plan},
        version=method.version,
        estimate=CHEAP,
        gpu=True,
    )


def score_step(study: StudySteps, method: AttributionMethod, fitted: Step, role: Role = "query") -> Step:
    """`method.score` for the study's held-out queries or, by role "fit", its dev queries; of every candidate if any."""
    features = {f"query-{features_name(f)}": Ref(read_step(study, f, role), "state") for f in of_queries(method.features())}
    return Step(
        name=f"score {method.name}" + ("" if role == "query" else f" on {QUERIES[role]}"),
        label=fitted.label,
        function=score,
        params={**fitted.params, **_seen(study.plan, method, role), "candidates": method.candidates()},
        inputs={**fitted.inputs, **_query_inputs(study, method, role), **features, "state": Ref(fitted, "state")},
        outputs={"scores": None},
        bindings=fitted.bindings,
        version=fitted.version,
        estimate=CHEAP,
        gpu=True,
    )


def of_queries(features: Iterable[Features]) -> list[Features]:
    """Those that are read of queries too: all but features of the base model."""
    return [one for one in features if not one.of_base()]


def of_generations(method: AttributionMethod) -> list[Features]:
    """Those that a method may ask for in fit of the pictures that it learns from: they read pictures alone."""
    learns = Access.TRAINING in method.needs
    return [one for one in of_queries(method.features()) if learns and not one.needs & (MODELS | Access.TRAJECTORY)]


def _observers(plan: StudyPlan, reader: Reader) -> tuple[TrainingObserver, ...]:
    watches = isinstance(reader, AttributionMethod) and Access.TRAINING in reader.needs
    return tuple(reader.observers(plan.prompts)) if watches else ()


def _seen(plan: StudyPlan, reader: Reader, role: Role | None) -> dict[str, Any]:
    """What a reader sees of a study beside its inputs; with a role, the queries of that role as well."""
    watches_training = Access.TRAINING in reader.needs
    regions = {} if role is None else plan.regions_of(role)
    seen = {"regions": regions} if regions else {}
    images = plan.own_rows if isinstance(reader, Features) and reader.images_axis else plan.rows
    if plan.pool is not None:
        seen["trained"] = plan.trained_rows if watches_training else ()
    if plan.given is not None and role == "query":
        seen["given"] = plan.given
    return seen | {
        "assets": reader.assets(),
        "study": plan.id,
        "edition": plan.edition,
        "data": plan.training.data if plan.pool is None else plan.pool.data,
        "images": images,
        "flips": plan.training.hyper_parameters.flips,
        "generations": plan.roles("fit") if watches_training else (),
        "prompts": plan.prompts if watches_training else (),
        "observers": _observers(plan, reader),
        "role": role,
        "queries": () if role is None else plan.roles(role),
    }


def _granted_inputs(study: StudySteps, reader: Reader) -> dict[str, Ref]:
    inputs = {}
    if reader.needs & MODELS:
        inputs |= member_inputs(reader.ensemble(), study.trainings)
    if Access.TRAINING in reader.needs:
        inputs["generations"] = Ref(study.pictures, "pictures")
        for observer in _observers(study.plan, reader):
            inputs[observation_name(observer)] = Ref(study.trainings[0], observation_name(observer))
    return inputs


def _query_inputs(study: StudySteps, reader: Reader, role: Role) -> dict[str, Ref]:
    if study.plan.given is not None and role == "query":
        return {}
    inputs = {"pictures": Ref(study.pictures, "pictures")}
    if Access.TRAJECTORY in reader.needs:
        inputs["trajectory"] = Ref(study.pictures, "trajectory")
    return inputs


# --------------------------------------------------------------------------------------- running


def read(ctx: StepContext) -> None:
    """`features.of_training` or `features.of_queries`, timed."""
    features: Features = ctx.params["features"]
    study, queries = _study(ctx, features, seed=0)
    if queries is None:
        keep_state(ctx, features, lambda state: features.of_training(study, state))
    else:
        keep_state(ctx, features, lambda state: features.of_queries(study, state, queries))


def fit(ctx: StepContext) -> None:
    """`method.fit`, timed."""
    method: AttributionMethod = ctx.params["method"]
    study, _ = _study(ctx, method, ctx.params["seed"])
    keep_state(ctx, method, lambda state: method.fit(study, state))


def score(ctx: StepContext) -> None:
    """`method.score`, or `method.score_candidates`, on the queries; timed and checked."""
    method: AttributionMethod = ctx.params["method"]
    candidates = ctx.params["candidates"]
    study, queries = _study(ctx, method, ctx.params["seed"])
    state = State(ctx.input("state"))
    with blame(f"the method {method.name!r}"), measure(ctx.device) as cost:
        found = method.score_candidates(study, state, queries) if candidates else [method.score(study, state, queries)]
    if len(found) != max(len(candidates), 1):
        raise MethodError(
            f"{method.name}.score_candidates returned {len(found)} scores for {len(candidates)} candidates; mend the plugin"
        )
    for scores in found:
        if not isinstance(scores, Scores) or scores.query_ids != queries.ids or scores.train_ids != study.train.ids:
            raise MethodError(f"{method.name}.score must return Scores.of(queries, study.train, values); mend the plugin")
    write_scores(ctx.out("scores") / SCORES, found if candidates else found[0])
    note_cost(ctx, "scores", cost)


def _study(ctx: StepContext, reader: Reader, seed: int) -> tuple[GrantedStudy, Queries | None]:
    """What the reader sees of the study, and the queries that it is asked about, if any."""
    plan, role, ensemble = ctx.bindings["plan"], ctx.params["role"], reader.ensemble()
    folders = {name: ctx.input(name) for name in ctx.inputs}
    queries = None if role is None else queries_of(plan, role, folders.get("pictures"), ctx.bindings["dataset"].load)
    named = {f: features_name(f) for f in reader.features()} if isinstance(reader, AttributionMethod) else {}
    materials = Materials(
        plan=plan,
        dataset=ctx.bindings["dataset"],
        base_model=ctx.bindings["model"],
        ensemble=ensemble,
        members=members(ensemble, ctx.input) if reader.needs & MODELS else (),
        generations=folders.get("generations"),
        observations={observer: folders[observation_name(observer)] for observer in ctx.params["observers"]},
        images=ctx.params["images"],
        features={f: folders[name] for f, name in named.items()},
        shared_features={f: folders[f"shared-{name}"] for f, name in named.items() if f"shared-{name}" in folders},
        query_features={f: folders[f"query-{name}"] for f, name in named.items() if f"query-{name}" in folders},
        queries=queries,
        trajectory=folders.get("trajectory"),
    )
    return GrantedStudy(materials, reader.needs, reader_name(reader), seed, ctx.device), queries
