"""Checks of what a method says of itself: who it is, what it touches, what it takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
from safetensors import safe_open

from attribench.conformance.subject import Subject
from attribench.conformance.verdict import Failed
from attribench.engine.identity import NotHashable, token
from attribench.errors import AccessError
from attribench.interface import Access, AttributionMethod


def identity(subject: Subject) -> str:
    """A frozen dataclass with a name and a docstring of its own. Its fields are all that it holds, before and after it has
    worked; its key is the same each time; what `resolve` has made concrete stays as it is."""
    method, cls = subject.asked, type(subject.asked)
    parameters = vars(cls).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        raise Failed(f"{cls.__name__} is not decorated with @dataclass(frozen=True, kw_only=True); its fields are no identity")
    if not isinstance(getattr(cls, "name", None), str) or not cls.name:
        raise Failed(f"{cls.__name__} has no `name`; give the class one")
    if subject.name is not None and cls.name != subject.name:
        raise Failed(f"its class is called {cls.name!r} and its entry point {subject.name!r}; give both the same name")
    written = vars(cls).get("__doc__") or ""
    if not written.strip() or written.startswith(f"{cls.__name__}("):  # what @dataclass puts there
        raise Failed(f"{cls.__name__} has no docstring; say in its first line what it is, then the paper, its needs, its cost")
    fields = {field.name for field in dataclasses.fields(method)}
    for instance in (method, subject.method, *([] if subject.fault else subject.straight.method.candidates())):
        beside = sorted(vars(instance).keys() - fields)
        if beside:
            raise Failed(f"the instance holds {', '.join(beside)} beside its fields; keep arrays in `state`, not on the instance")
    try:
        if token(method, cls.name) != token(dataclasses.replace(method), cls.name):
            raise Failed("two instances with equal fields have different keys; use plain values as fields")
    except NotHashable as error:
        raise Failed(f"it has no key: {error}") from error
    for edition in ("mini", "paper"):
        once = method.resolve(edition)
        if type(once) is not cls or once.resolve(edition) != once:
            raise Failed(f"resolve({edition!r}) called twice is not what it is called once; leave what is concrete as it is")
    _require_smaller_counts(subject.asked)
    return f"{len(fields)} fields, which are all that it holds"


def _require_smaller_counts(method: AttributionMethod) -> None:
    """`checked_with` may make a slow method quick and nothing else."""
    by_default = {field.name: field.default for field in dataclasses.fields(method)}
    usual = dataclasses.replace(method, **{name: by_default.get(name) for name in method.checked_with}).resolve("mini")
    for name, count in method.checked_with.items():
        own = getattr(usual, name)
        if type(count) is not int or (isinstance(own, int) and count > own):
            raise Failed(f"checked_with sets {name} to {count!r}, and it is {own!r} in a run; name smaller counts alone")


def needs(subject: Subject) -> str:
    """What it declares in `needs` is enough: it runs behind the grant of just that. What it declares and did not use
    here is told."""
    if isinstance(subject.fault, AccessError):
        raise Failed(str(subject.fault))
    used, declared = subject.straight.used, list(subject.method.needs)
    idle = [access.name for access in declared if access not in used]
    granted = " and ".join(access.name for access in declared) or "pictures, prompts and captions alone"
    return f"runs with {granted}" + (f"; did not use {', '.join(idle)} here" if idle else "")


def hyper_parameters(subject: Subject) -> str:
    """The fields are the identity: every one of them changes the key, and nothing else changes a score: not the global
    random numbers of Python, numpy or torch."""
    subject.require_scores()
    method = subject.method
    before = token(method, method.name)
    varied = 0
    for field in dataclasses.fields(method):
        for other in _others(method, field):
            varied += 1
            if token(other, method.name) == before:
                raise Failed(
                    f"{field.name}={getattr(other, field.name)!r} and {field.name}={getattr(method, field.name)!r} have the same "
                    "key, so that one would be taken for the other; declare the field without compare=False"
                )
            break
    subject.require_repeats()
    if not np.array_equal(subject.elsewhere, subject.expected):
        raise Failed(
            "its scores change with the global random numbers; draw from study.seed alone (attribench.diffusion.noise, or a "
            "generator of your own)"
        )
    n_fields = len(dataclasses.fields(method))
    return f"{varied} of {n_fields} fields varied, each changes the key; global random numbers change nothing"


def _others(method: AttributionMethod, field: dataclasses.Field) -> Iterator[AttributionMethod]:
    """The method with other values of a field, as far as it takes them."""
    value = getattr(method, field.name)
    tries: list[Any] = []
    if isinstance(value, bool):
        tries = [not value]
    elif isinstance(value, (int, float)):
        tries = [value + 1, value * 2 + 1, value / 2]
    elif isinstance(value, str):
        tries = [*(other for other in _words(type(method), field.name) if other != value), f"{value}-"]
    elif value is None:
        tries = [1, "x"]
    for other in tries:
        try:
            yield dataclasses.replace(method, **{field.name: other})
        except Exception:  # not a value that it takes
            continue


def _words(cls: type, name: str) -> list[str]:
    """The words of a field that is declared as a Literal."""
    try:
        hint = get_type_hints(cls)[name]
    except Exception:  # a hint that cannot be evaluated
        return []
    hints = [hint, *get_args(hint)]
    return [word for one in hints if get_origin(one) is Literal for word in get_args(one) if isinstance(word, str)]


def memory(subject: Subject) -> str:
    """Fitting and scoring take no more memory beyond the trained model than the class declares in `memory`."""
    subject.require_scores()
    limit, peak = subject.method.memory, max(0, subject.apart.peak_bytes - _model_bytes(subject))
    if peak > limit:
        took = f"it took {peak / 1e6:,.0f} MB beyond the model and declares {limit / 1e6:,.0f}"
        raise Failed(f"{took}; work in blocks, or raise `memory`")
    return f"took {peak / 1e6:,.0f} MB beyond the model, declares {limit / 1e6:,.0f}"


def _model_bytes(subject: Subject) -> int:
    """What the parameters of the model take once it is loaded; 0 for a method that does not load it."""
    if not subject.straight.used & {Access.GRADIENTS, Access.CHECKPOINTS}:
        return 0
    n_parameters = 0
    for path in Path(subject.world.model).rglob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            n_parameters += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return 4 * n_parameters


def writes(subject: Subject) -> str:
    """It writes, makes, renames and removes no file outside its state (caches are read alone)."""
    subject.require_scores()
    outside = subject.apart.written
    if outside:
        more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        raise Failed(f"it wrote {outside[0]}{more}, outside its state; keep arrays in `state`")
    return "no file outside its state"
