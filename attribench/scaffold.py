"""A new package for a plugin, from the templates in `attribench/templates`.

    templates/<kind>/…            as the package will lie, names and texts with $placeholders
        $name           my-method            what the command line calls it
        $module         my_method            what Python imports
        $class_name     MyMethod
        $package        attribench-my-method
        $version        of attribench

Files that end in `.template` are texts with placeholders (string.Template) and lose that ending; others are copied.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import string
import sys
from importlib.resources import files
from pathlib import Path

from attribench import __version__, plugins
from attribench.errors import UsageError
from attribench.files.text import shown

ENDING = ".template"
LONGEST = 60


def write(kind: plugins.Kind, name: str, folder: Path | None = None) -> Path:
    """Write the package of a new plugin to `folder` (by default ./name); that folder.

    Raises UsageError for a name that cannot be a plugin's and a module's, or that is taken, and for a folder that holds
    something.
    """
    words = names(kind, name)
    target = folder or Path(words["name"])
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"{shown(str(target))} exists, and nothing is overwritten; give another --folder")
    try:
        target.mkdir(parents=True, exist_ok=True)
        _fill(Path(str(files("attribench") / "templates" / kind)), target, words)
    except OSError as error:
        raise UsageError(f"{shown(str(target))} cannot be written: {error.strerror}; give another --folder") from error
    return target


def names(kind: plugins.Kind, name: str) -> dict[str, str]:
    """What the templates call it. Raises UsageError for a name that will not do."""
    joint = "_" if kind == "metric" else "-"  # as ours are called
    module = re.sub(r"[-_ ]+", "_", name.strip().lower())
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", module) or len(module) > LONGEST:
        raise UsageError(
            f"{shown(name)!r} cannot name a {kind}: begin with a letter, then letters and digits (a to z, 0 to 9) in words "
            f"joined by hyphens, {LONGEST} characters at most"
        )
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or importlib.util.find_spec(module) is not None:
        raise UsageError(f"Python already has a module or word {module!r}; choose a name of its own, e.g. my-{shown(name)}")
    for known, plugin in plugins.all_plugins(kind).items():
        if plugins.canonical(known) == plugins.canonical(module):
            raise UsageError(f"there is already a {kind} called {known!r} ({plugin.origin}); choose another name")
    return {
        "name": module.replace("_", joint),
        "module": module,
        "class_name": "".join(word.capitalize() for word in module.split("_")),
        "package": f"attribench-{module.replace('_', '-')}",
        "version": __version__,
    }


def _fill(source: Path, target: Path, words: dict[str, str]) -> None:
    for entry in sorted(source.rglob("*")):  # a folder before what is in it
        path = target / string.Template(str(entry.relative_to(source)).removesuffix(ENDING)).substitute(words)
        if entry.is_dir():
            path.mkdir()
        elif entry.suffix == ENDING:
            path.write_text(string.Template(entry.read_text()).substitute(words))
        else:
            shutil.copyfile(entry, path)
