"""What every reader of a study shares: a method, or features."""

from __future__ import annotations

import json
from collections.abc import Callable

from attribench.engine.identity import NotHashable, token
from attribench.engine.measure import Cost, measure
from attribench.engine.steps import StepContext
from attribench.errors import MethodError
from attribench.files.state import State
from attribench.interface import Access, AttributionMethod, Features
from attribench.study.blame import blame

COST = "cost.json"
CHEAP = {"seconds": 0.5, "peak_bytes": 2e8, "bytes": 1e5}
"""What fitting or scoring by features takes at the size of a customization, order of magnitude."""
Reader = AttributionMethod | Features
MODELS = Access.GRADIENTS | Access.CHECKPOINTS


def features_name(features: Features) -> str:
    """A short stable name for the input that holds features."""
    try:
        return f"features-{token(features, type(features).__name__)[:12]}"
    except NotHashable as error:
        raise MethodError(f"features cannot be told from others: {error}") from error


def reader_name(reader: Reader) -> str:
    """What progress and errors call it."""
    return reader.name or type(reader).__name__


def keep_state(ctx: StepContext, reader: Reader, keep: Callable[[State], None]) -> None:
    """Let `keep` write the state of a reader, timed."""
    state, kind = State(ctx.out("state")), "features" if isinstance(reader, Features) else "method"
    with blame(f"the {kind} {reader_name(reader)!r}"), measure(ctx.device) as cost:
        keep(state)
    note_cost(ctx, "state", cost, bytes=state.nbytes)


def note_cost(ctx: StepContext, output: str, cost: Cost, **more: int) -> None:
    known = {"seconds": cost.seconds, "peak_bytes": cost.peak_bytes, **more}
    (ctx.out(output) / COST).write_text(json.dumps(known))
