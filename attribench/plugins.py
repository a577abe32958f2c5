"""Finding plugins: entry points, `--plugin FILE`, near misses, and where each came from.

Our own methods, data sets, metrics and protocols come in by the same entry-point groups as a stranger's
(`attribench.methods`, `attribench.datasets`, `attribench.metrics`, `attribench.protocols`). Names are
matched without case and punctuation, so `CustomConcept101`, `custom-concept-101` and the common plural
`CustomConcepts101` find the same plugin. Two names that match each other clash: ours wins over a stranger's, and
of two strangers neither can be used until one is uninstalled; whoever asks for such a name is warned.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import inspect
import re
import sys
import warnings
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from attribench.data import Dataset
from attribench.errors import MethodError, NameClash, UnknownName, UsageError
from attribench.interface import AttributionMethod
from attribench.measurement import Metric

Kind = Literal["method", "dataset", "metric", "protocol"]
KINDS: tuple[Kind, ...] = ("method", "dataset", "metric", "protocol")
OURS = "attribench-diffusion"
"""The distribution whose plugins win."""


@dataclasses.dataclass(frozen=True)
class Plugin:
    """One plugin: its name, how to load it and where it came from."""

    kind: Kind
    name: str
    origin: str
    """"attribench-diffusion 0.1.0", or "file NAME.py sha256:…"."""
    source: EntryPoint | type
    file: Path | None = None
    """Of a plugin that `--plugin` names."""

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
        return (inspect.getdoc(self.load()) or "").partition("\n")[0]

    @property
    def distribution(self) -> Distribution | None:
        """The installed package that it came with."""
        return getattr(self.source, "dist", None)

    @property
    def built_in(self) -> bool:
        return self.distribution is not None and self.distribution.name == OURS

    @property
    def licence(self) -> str | None:
        """As the metadata of its package states it: an SPDX expression, or the classifier, or the first line of a text."""
        metadata: Any = self.distribution.metadata if self.distribution else {}
        classifiers = [value for key, value in metadata.items() if key == "Classifier"] if metadata else []
        named = [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License :: ")]
        stated = [metadata.get("License-Expression"), ", ".join(named), (metadata.get("License") or "").partition("\n")[0]]
        return next((text.strip() for text in stated if text and text.strip()), None)

    @property
    def place(self) -> str:
        """Where its code is: "module:Class" of an installed package, or the file."""
        return str(self.file) if self.file else getattr(self.source, "value", "")


@dataclasses.dataclass(frozen=True)
class Clash:
    """A plugin that its name does not lead to, since another has that name or one that is matched with it."""

    plugin: Plugin
    rival: Plugin
    """It wins if it is built in; of two strangers neither does."""

    def __str__(self) -> str:
        kind, name = self.plugin.kind, self.plugin.name
        two = f"two {kind}s are called {name!r}: that of {self.rival.origin} and that of {self.plugin.origin}"
        if self.rival.built_in:
            return f"{two}; the first, which is built in, is used: the other needs another name"
        return f"{two}; neither is used: uninstall one"


_from_files: dict[Kind, dict[str, Plugin]] = {kind: {} for kind in KINDS}


def canonical(name: str) -> str:
    """A name without case, punctuation and plural s inside: `CustomConcepts101` -> `customconcept101`."""
    bare = re.sub(r"[^a-z0-9]", "", name.lower())
    return re.sub(r"s(?=\d|$)", "", bare)


@cache
def _installed(kind: Kind) -> tuple[dict[str, Plugin], tuple[Clash, ...]]:
    """Ours, then those of strangers in the order of their packages, each name once; and the clashes among them all."""
    points = entry_points(group=f"attribench.{kind}s")
    plugins = [Plugin(kind, p.name, f"{p.dist.name} {p.dist.version}" if p.dist else "unknown", p) for p in points]
    ours = {plugin.name: plugin for plugin in plugins if plugin.built_in}
    taken = {canonical(name): plugin for name, plugin in ours.items()}
    clashes: dict[tuple[str, str], Clash] = {}
    strangers: dict[str, Plugin] = {}
    for plugin in sorted(plugins, key=lambda plugin: (plugin.origin, plugin.name)):
        rival = taken.setdefault(canonical(plugin.name), plugin)
        if plugin.built_in:
            continue
        if rival.built_in:
            clashes[plugin.origin, plugin.name] = Clash(plugin, rival)
        elif rival.origin != plugin.origin:
            clashes[rival.origin, rival.name] = Clash(rival, plugin)
            clashes[plugin.origin, plugin.name] = Clash(plugin, rival)
            strangers.pop(rival.name, None)
        else:
            strangers[plugin.name] = plugin
    return ours | strangers, tuple(clashes.values())


def all_plugins(kind: Kind) -> dict[str, Plugin]:
    """Every plugin of a kind that its name leads to, those of `--plugin` files last."""
    return _installed(kind)[0] | _from_files[kind]


def clashes(*kinds: Kind) -> tuple[Clash, ...]:
    """The installed plugins that their names do not lead to; of all kinds, if none is given."""
    return tuple(clash for kind in kinds or KINDS for clash in _installed(kind)[1])


def find(kind: Kind, name: str) -> Plugin:
    """The plugin that goes by `name`, or UnknownName with the nearest one.

    Warns (NameClash) where a stranger's plugin has the name of a built-in one. Raises UsageError where two have it.
    """
    plugins = all_plugins(kind)
    by_canonical = {canonical(known): plugin for known, plugin in plugins.items()}
    for clash in clashes(kind):
        if canonical(clash.plugin.name) == canonical(name):
            if not clash.rival.built_in:
                raise UsageError(str(clash))
            warnings.warn(str(clash), NameClash, stacklevel=1)  # one place, so that one use of many tells it once
    plugin = plugins.get(name) or by_canonical.get(canonical(name))
    if plugin is None:
        raise UnknownName(kind, name, plugins)
    return plugin


def add_file(path: Path) -> list[Plugin]:
    """Register every plugin class that a Python file defines, but for those whose names begin with an underscore.

    The file runs with the user's rights. The same file may be added again after a change.
    """
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
    kinds: dict[Kind, type] = {"method": AttributionMethod, "dataset": Dataset, "metric": Metric}
    for kind, found in _from_files.items():  # what it defined before it was changed
        _from_files[kind] = {name: plugin for name, plugin in found.items() if plugin.file != path.absolute()}
    added = []
    for kind, base in kinds.items():
        for value in vars(module).values():
            if not (isinstance(value, type) and issubclass(value, base) and value.__module__ == module_name):
                continue
            if inspect.isabstract(value) or value.__name__.startswith("_"):
                continue
            plugin = Plugin(kind, _name(kind, value, path), f"file {path.name} sha256:{digest}", value, path.absolute())
            _require_free(plugin)
            _from_files[kind][plugin.name] = plugin
            added.append(plugin)
    if not added:
        raise UsageError(f"--plugin {path}: defines no complete AttributionMethod, Dataset or Metric")
    return added


def _name(kind: Kind, cls: type, path: Path) -> str:
    """What a class of a file goes by. The `name` of a metric may hold its parameters ("recall@5"), so its class names it."""
    if kind == "metric":
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
    name = getattr(cls, "name", None)
    if not isinstance(name, str):
        raise UsageError(f"--plugin {path}: the {kind} {cls.__name__} has no `name`; give the class one")
    return name


def _require_free(plugin: Plugin) -> None:
    """Raise UsageError if the name of a file's plugin leads to another one."""
    for other in all_plugins(plugin.kind).values():
        same_file = other.file is not None and other.origin == plugin.origin  # by its content, wherever it lies
        if canonical(other.name) == canonical(plugin.name) and not same_file:
            raise UsageError(
                f"--plugin {plugin.file}: there is already a {plugin.kind} called {other.name!r} ({other.origin}); "
                "give yours another name"
            )


def configure(cls: type, params: dict[str, str | Any], owner: str | None = None) -> Any:
    """An instance of a plugin dataclass from `name=value` strings, checked against its fields' types.

    `owner` is what the command line calls it; the class's name if None.
    """
    import pydantic

    if owner is None:
        name = getattr(cls, "name", None)
        owner = name if isinstance(name, str) else cls.__name__
    fields = {f.name for f in dataclasses.fields(cls) if f.init}
    unknown = [key for key in params if key not in fields]
    if unknown:
        raise UnknownName(f"parameter of {owner}", unknown[0], fields)
    try:
        return pydantic.TypeAdapter(cls).validate_python(params)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"].startswith("missing"):
            raise UsageError(f"{owner} needs a value for {where}: add --param {owner}.{where}=VALUE") from error
        raise UsageError(f"--param {owner}.{where}={first['input']!r}: {first['msg']}") from error
