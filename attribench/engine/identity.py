"""What a key is made of: plain values whose hash is the same in every process, on every machine.

Dask's tokenizer hashes; this module decides what it may see. Left alone it would take a path (which names
a place, not a content), a frozenset (whose pickle follows PYTHONHASHSEED) or any object that happens to
pickle. Here a value is taken apart into plain ones, or refused with the place where it stands.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from dask.tokenize import tokenize

FORMER_MODULES = {
    "attribench.attribution.shared": "attribench.study.shared",
    "attribench.attribution.steps": "attribench.study.attribution",
    "attribench.data.cases": "attribench.interface",
    "attribench.data.region": "attribench.regions",
    "attribench.study.corpus": "attribench.study.encoding",
    "attribench.study.retrainings": "attribench.study.retraining",
    "attribench.truth.losses": "attribench.study.losses",
    "attribench.truth.regeneration": "attribench.study.regeneration",
    "attribench.truth.retraining": "attribench.study.retraining",
}
"""Where what lives in a module lived when keys were first made of its name. A move changes no result, so keys go on holding
the old name, and what is in a store or in an exported truth is found again. Names, and no imports: the engine knows nothing of
what it runs."""


class NotHashable(ValueError):
    """Which value cannot enter a key, and why."""


def token(value: Any, where: str) -> str:
    """A deterministic token of a plain value. Raises NotHashable, naming the place from `where` on."""
    return tokenize(_plain(value, where), ensure_deterministic=True)


def _plain(value: Any, where: str) -> Any:
    """The value as nested tuples of None, bool, int, float, str and bytes.

    Lists and tuples are the same (TOML and JSON know one of them), as are a numpy scalar and its number.
    A frozen dataclass is its name (`key_name`), its version if the class has one (AttributionMethod.version)
    and the fields that take part in ==.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, enum.Enum):
        return ("enum", key_name(type(value)), _plain(value.value, where))
    if isinstance(value, (list, tuple)):
        return ("sequence", *(_plain(item, f"{where}[{i}]") for i, item in enumerate(value)))
    if isinstance(value, (set, frozenset)):
        return ("set", *sorted(token(item, f"{where}{{…}}") for item in value))
    if isinstance(value, Mapping):
        return ("mapping", *_items(value, where))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain_dataclass(value, where)
    if isinstance(value, PurePath):
        raise NotHashable(
            f"{where} is the path {str(value)!r}, and the same path can hold something else tomorrow; "
            "pass what identifies the content (a name, a version, a hash)"
        )
    raise NotHashable(
        f"{where} is a {_place(type(value))}, which cannot be hashed for sure; pass plain values "
        "(numbers, strings, sequences, mappings, enums) or a frozen dataclass of them"
    )


def _items(value: Mapping[Any, Any], where: str) -> list[tuple[str, Any]]:
    for key in value:
        if type(key) is not str:
            raise NotHashable(f"{where} has the key {key!r}; name its entries by strings")
    return [(key, _plain(value[key], f"{where}[{key!r}]")) for key in sorted(value)]


def _plain_dataclass(value: Any, where: str) -> tuple[Any, ...]:
    cls = type(value)
    if not cls.__dataclass_params__.frozen:
        raise NotHashable(f"{where} is a {_place(cls)}, which can change; declare it @dataclass(frozen=True)")
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.compare}
    version = None if "version" in fields else getattr(cls, "version", None)
    contents = [(name, _plain(content, f"{where}.{name}")) for name, content in fields.items()]
    return ("dataclass", key_name(cls), version if type(version) is int else None, *contents)


def key_name(value: Any) -> str:
    """What a key calls a class or function: module and qualified name, as they were before any move (FORMER_MODULES)."""
    return f"{FORMER_MODULES.get(value.__module__, value.__module__)}.{value.__qualname__}"


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
