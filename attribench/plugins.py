"""Finding plugins: entry points, `--plugin FILE`, near misses, and where each came from.

Our own methods, data sets, metrics and protocols come in by the same entry-point groups as a stranger's
(`attribench.methods`, `attribench.datasets`, `attribench.metrics`, `attribench.protocols`). Names are
matched without case and punctuation, so `CustomConcept101`, `custom-concept-101` and the common plural
`CustomConcepts101` find the same plugin.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import inspect
import re
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from attribench.errors import MethodError, UnknownName, UsageError

Kind = Literal["method", "dataset", "metric", "protocol"]
KINDS: tuple[Kind, ...] = ("method", "dataset", "metric", "protocol")


@dataclasses.dataclass(frozen=True)
class Plugin:
    """One plugin: its name, how to load it and where it came from."""

    kind: Kind
    name: str
    origin: str
    """"attribench-diffusion 0.1.0", or "file NAME.py sha256:…"."""
    source: EntryPoint | type

    def load(self) -> type:
        """The plugin's class. Raises MethodError, naming the plugin, if importing it raises."""
        if isinstance(self.source, type):
            return self.source
        try:
            return self.source.load()
        except Exception as error:
            raise MethodError(
                f"the {self.kind} plugin {self.name!r} ({self.origin}) cannot be imported: "
                f"{type(error).__name__}: {error}; mend or uninstall it"
            ) from error

    @property
    def summary(self) -> str:
        """First line of the class's docstring."""
        return (inspect.getdoc(self.load()) or "").partition("\n")[0]


_from_files: dict[Kind, dict[str, Plugin]] = {kind: {} for kind in KINDS}


def canonical(name: str) -> str:
    """A name without case, punctuation and plural s inside: `CustomConcepts101` -> `customconcept101`."""
    bare = re.sub(r"[^a-z0-9]", "", name.lower())
    return re.sub(r"s(?=\d|$)", "", bare)


@cache
def _installed(kind: Kind) -> dict[str, Plugin]:
    found: dict[str, Plugin] = {}
    for point in entry_points(group=f"attribench.{kind}s"):
        origin = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
        plugin = Plugin(kind, point.name, origin, point)
        if point.name in found and found[point.name].origin != origin:
            raise UsageError(
                f"two packages provide the {kind} {point.name!r} ({found[point.name].origin} and {origin}); uninstall one"
            )
        found[point.name] = plugin
    return found


def all_plugins(kind: Kind) -> dict[str, Plugin]:
    """Every plugin of a kind by name, those of `--plugin` files last."""
    return {**_installed(kind), **_from_files[kind]}


def find(kind: Kind, name: str) -> Plugin:
    """The plugin that goes by `name`, or UnknownName with the nearest one."""
    plugins = all_plugins(kind)
    by_canonical = {canonical(known): plugin for known, plugin in plugins.items()}
    plugin = plugins.get(name) or by_canonical.get(canonical(name))
    if plugin is None:
        raise UnknownName(kind, name, plugins)
    return plugin


def add_file(path: Path) -> list[Plugin]:
    """Register every plugin class that a Python file defines. The file runs with the user's rights."""
    from attribench.data import Dataset
    from attribench.interface import AttributionMethod

    if not path.is_file():
        raise UsageError(f"--plugin {path}: no such file; give the path of a Python file that defines a plugin class")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    module_name = f"attribench_plugin_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--plugin {path}: not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise MethodError(f"--plugin {path}: importing it raised {type(error).__name__}: {error}; mend the file") from error
    kinds: dict[Kind, type] = {"method": AttributionMethod, "dataset": Dataset}
    added = []
    for kind, base in kinds.items():
        for value in vars(module).values():
            if not (isinstance(value, type) and issubclass(value, base) and value.__module__ == module_name):
                continue
            if inspect.isabstract(value):
                continue
            if not isinstance(getattr(value, "name", None), str):
                raise UsageError(f"--plugin {path}: the {kind} {value.__name__} has no `name`; give the class one")
            if value.name in _installed(kind):
                raise UsageError(f"--plugin {path}: there is already a {kind} called {value.name!r}; give yours another name")
            plugin = Plugin(kind, value.name, f"file {path.name} sha256:{digest}", value)
            _from_files[kind][plugin.name] = plugin
            added.append(plugin)
    if not added:
        raise UsageError(f"--plugin {path}: defines no complete AttributionMethod or Dataset")
    return added


def configure(cls: type, params: dict[str, str | Any]) -> Any:
    """An instance of a plugin dataclass from `name=value` strings, checked against its fields' types."""
    import pydantic

    fields = {f.name for f in dataclasses.fields(cls) if f.init}
    unknown = [key for key in params if key not in fields]
    if unknown:
        raise UnknownName(f"parameter of {getattr(cls, 'name', cls.__name__)}", unknown[0], fields)
    try:
        return pydantic.TypeAdapter(cls).validate_python(params)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"--param {getattr(cls, 'name', cls.__name__)}.{where}={first['input']!r}: {first['msg']}"
        ) from error
