"""The truth of a submission: read from the file, and how much of it is known here without the file.

Labels are always made anew from the data set and the plan. What took training (tables, losses of retrained models) is
known here only if the verifier keeps it: then it must be the same, bit for bit. The rest is the submitter's word, and so
are the numbers that rest on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from attribench.errors import UsageError
from attribench.measurement import Retrained, Truth
from attribench.measurement.arrays import TABLE, arrays_of, truth_from
from attribench.protocols.protocol import Protocol
from attribench.run.experiment import Planned
from attribench.study.plan import StudyPlan
from attribench.submissions.container import MEMBER_LIMIT, Refused
from attribench.submissions.parsing import tensors_of

SUBSETS_LIMIT = 100_000
SEEDS_LIMIT = 64
BY_LOOK = ("losses", "squared_errors", "similarities")
"""What is known of each query under each model; NaN where nobody looked."""
OTHER = "import the board's truth (attribench truth import; leaderboards/exports) and run again"


def digest_of(truth: Truth) -> str:
    """sha256 over the ids and arrays of a truth."""
    arrays, about = arrays_of(truth)
    digest = hashlib.sha256(repr(sorted(about.items())).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def read_truth(data: bytes, planned: Planned, plan: StudyPlan) -> Truth:
    """The truth of a study's queries. Raises Refused unless it can be that of the plan, labels and subsets included."""
    what = f"the truth of {plan.id}"
    arrays, about = tensors_of(data, what, undefined=BY_LOOK)
    _require_form(arrays, about, plan, what)
    truth = replace(truth_from(arrays, about), concepts=planned.protocol.concepts(plan))
    if not _same(truth.relevant, planned.protocol.relevant(plan)):
        raise Refused(f"{what} has labels that are not those of the data set")
    if truth.retrained is not None:
        _require_subsets(truth.retrained, planned, plan, what)
    return truth


def _require_form(arrays: Mapping[str, np.ndarray], about: Mapping[str, object], plan: StudyPlan, what: str) -> None:
    queries, images = [case.id for case in plan.roles("query")], [image.id for image in plan.rows]
    if about.get("query_ids") != queries or about.get("train_ids") != images:
        raise Refused(f"{what} is of other queries or images, or in another order, than the plan's")
    n_query, n_train = len(queries), len(plan.training.images)
    masks, seeds = arrays.get("masks", np.zeros((0, n_train))), arrays.get("seeds", np.zeros(0))
    tables = {name for name in arrays if name.startswith(TABLE)}
    expected = {
        "relevant": (np.uint8, (n_query, len(images))),
        "masks": (np.uint8, (len(masks), n_train)),
        "seeds": (np.int64, (len(seeds),)),
        "full": (np.float64, (n_query,)),
        "drawn": (np.uint8, (len(masks),)),
        **dict.fromkeys(BY_LOOK, (np.float64, (n_query, len(masks), len(seeds)))),
        **dict.fromkeys(tables, (np.float64, (n_query, len(images)))),
    }
    for name, array in arrays.items():
        kind, shape = expected.get(name, (None, None))
        if kind is None or array.dtype != kind or array.shape != shape:
            raise Refused(f"{what}: {name[:60]!a} is {array.dtype} {array.shape}, which no such truth has")
        if kind is np.uint8 and (array > 1).any():
            raise Refused(f"{what}: {name} holds what is neither 0 nor 1")
    retrained = set(arrays) - {"relevant"} - tables
    if retrained and not retrained >= {"masks", "seeds", "losses", "full"}:
        raise Refused(f"{what} holds a part only of what retraining gives")
    if retrained and type(about.get("own_seed")) is not int:
        raise Refused(f"{what} does not say the seed of the attributed model")
    if len(masks) > SUBSETS_LIMIT or len(seeds) > SEEDS_LIMIT:
        raise Refused(f"{what} has {len(masks):,} subsets and {len(seeds):,} seeds, more than allowed")


def _require_subsets(known: Retrained, planned: Planned, plan: StudyPlan, what: str) -> None:
    """What the protocol draws beforehand is there, and is all where nothing depends on scores; each subset comes once."""
    if known.own_seed != plan.training.seed:
        raise Refused(f"{what} is of a model trained with seed {known.own_seed}, the plan's is {plan.training.seed}")
    rows = [tuple(np.flatnonzero(mask).tolist()) for mask in known.masks]
    if len(set(rows)) != len(rows) or len(set(known.seeds)) != len(known.seeds):
        raise Refused(f"{what} holds a subset or a seed twice")
    request = next((r for r in planned.protocol.retrainings(plan) if r.role == "query"), None)
    asked = set() if request is None else set(request.subsets)
    on_scores = type(planned.protocol).further_retrainings is not Protocol.further_retrainings
    if not asked <= set(rows) or (not on_scores and asked != set(rows)):
        raise Refused(f"{what} has other subsets than {planned.protocol.name} draws")
    if not on_scores and np.isnan(known.losses).any():
        raise Refused(f"{what} lacks losses that {planned.protocol.name} asks for")
    seeds = set() if request is None else set(request.seeds)
    if not seeds <= set(known.seeds) or (seeds and not on_scores and seeds != set(known.seeds)):
        raise Refused(f"{what} has other seeds than {planned.protocol.name} asks for")
    if known.drawn is not None and {own for own, drawn in zip(rows, known.drawn, strict=True) if drawn} != asked:
        raise Refused(f"{what} says of other subsets than the protocol's that they were drawn at random")


# ---------------------------------------------------------------------------------------- trust


def known_part(truth: Truth, planned: Planned, plan: StudyPlan, kept: Truth | None) -> Truth:
    """As much of a submission's truth as labels give, and what the truth that is `kept` of the study knows in its place.

    Where the kept one holds all that the submission's does it takes its place: it may know more.
    """
    tables, retrained = {}, None
    if kept is not None:
        tables = {name: table for name, table in truth.tables.items() if _same(kept.tables.get(name), table)}
        if kept.retrained is not None and truth.retrained is not None and _holds(kept.retrained, truth.retrained):
            retrained = kept.retrained
    return replace(truth, relevant=planned.protocol.relevant(plan), tables=tables, retrained=retrained)


def _same(own: np.ndarray | None, theirs: np.ndarray | None) -> bool:
    return own is theirs if own is None or theirs is None else np.array_equal(own, theirs)


def _holds(kept: Retrained, claimed: Retrained) -> bool:
    """Whether everything that `claimed` knows is in `kept`, bit for bit."""
    same_model = kept.own_seed == claimed.own_seed and np.array_equal(kept.full, claimed.full)
    if not same_model or not set(claimed.seeds) <= set(kept.seeds):
        return False
    subsets = _places(kept.masks, claimed.masks)
    if None in subsets:
        return False
    seeds = [kept.seeds.index(seed) for seed in claimed.seeds]
    for name in BY_LOOK:
        own, theirs = getattr(kept, name), getattr(claimed, name)
        if theirs is not None and (own is None or not _agree(own[:, subsets][:, :, seeds], theirs)):
            return False
    return _same(None if kept.drawn is None else kept.drawn[subsets], claimed.drawn)


def _agree(own: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal wherever `theirs` is known."""
    return bool(((own == theirs) | np.isnan(theirs)).all())


def _places(masks: np.ndarray, wanted: np.ndarray) -> list[int | None]:
    number = {mask.tobytes(): m for m, mask in enumerate(masks)}
    return [number.get(mask.tobytes()) for mask in wanted]


def merged(first: Truth | None, second: Truth) -> Truth:
    """What two truths of one study know together. Raises UsageError where they contradict each other."""
    if first is None:
        return second
    for name in first.tables.keys() & second.tables.keys():
        if not np.array_equal(first.tables[name], second.tables[name]):
            raise UsageError(f"this truth has another {name!r} than the board's: it is of another training; {OTHER}")
    a, b = first.retrained, second.retrained
    retrained = a or b if a is None or b is None else _merged(a, b)
    return replace(first, tables={**first.tables, **second.tables}, retrained=retrained)


def _merged(a: Retrained, b: Retrained) -> Retrained:
    if a.seeds != b.seeds or a.own_seed != b.own_seed or not np.array_equal(a.full, b.full):
        raise UsageError(f"this truth has losses of other models than the board's; {OTHER}")
    places = _places(a.masks, b.masks)
    shared = [m for m, place in enumerate(places) if place is not None]
    further = [m for m, place in enumerate(places) if place is None]
    there = [places[m] for m in shared]
    arrays = {}
    for name in BY_LOOK:
        own, theirs = getattr(a, name), getattr(b, name)
        if own is None or theirs is None:
            if own is not theirs:
                raise UsageError(f"this truth and the board's do not both have {name}; {OTHER}")
            continue
        both = np.where(np.isnan(own[:, there]), theirs[:, shared], own[:, there])
        if not _agree(both, theirs[:, shared]):
            raise UsageError(f"this truth has other {name} than the board's; {OTHER}")
        own = own.copy()
        own[:, there] = both
        arrays[name] = np.concatenate([own, theirs[:, further]], axis=1)
    drawn = None if a.drawn is None or b.drawn is None else np.concatenate([a.drawn, b.drawn[further]])
    return replace(a, masks=np.concatenate([a.masks, b.masks[further]]), drawn=drawn, **arrays)


def kept_truths(folder: Path, planned: Planned) -> dict[str, Truth]:
    """The truths below a run folder, or a folder of such files, by study id. Raises UsageError for one that does not fit."""
    found = {}
    for plan in planned.plans:
        for path in (folder / "truth" / f"{plan.id}-query.safetensors", folder / f"{plan.id}-query.safetensors"):
            if path.is_file():
                try:
                    if path.stat().st_size > MEMBER_LIMIT:
                        raise Refused(f"has {path.stat().st_size:,} bytes")
                    found[plan.id] = read_truth(path.read_bytes(), planned, plan)
                except Refused as error:
                    raise UsageError(f"{path}: {error}; keep only truths that `attribench run` wrote") from error
    return found
