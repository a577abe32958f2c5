"""Opening a data set: which edition, from where, and a hash of what was read.

`paper` is the real data under a root that the user names; `mini` ships with the package in the same layout
and is read by the same adapter. A data set plugin from elsewhere ships its own mini edition by a classmethod
`mini_root() -> Path`, and says what to expect under a data root by an attribute `layout`.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from attribench import plugins
from attribench.data import Dataset, Edition
from attribench.errors import AttribenchError, DatasetError, UsageError
from attribench.files.text import shown


def open_dataset(name_or_plugin: str | plugins.Plugin, edition: Edition | None = None, data_root: Path | None = None) -> Dataset:
    """The data set's `paper` edition under `data_root`, or without one its `mini` edition.

    Raises UsageError where `edition` and `data_root` contradict each other, and DatasetError where the files
    are not there or not in the layout: Unusable, if they were read but are too few.
    """
    plugin = plugins.find("dataset", name_or_plugin) if isinstance(name_or_plugin, str) else name_or_plugin
    if edition == "mini" and data_root is not None:
        raise UsageError(
            f"--edition mini takes no --data-root ({shown(str(data_root))}): the mini edition ships with the package; "
            "drop one of the two"
        )
    adapter = plugin.load()
    layout = getattr(adapter, "layout", "its public layout")
    if edition == "paper" and data_root is None:
        raise UsageError(f"--edition paper needs --data-root, a folder with {plugin.name} as its authors publish it: {layout}")
    if data_root is None:
        root, found = _mini_root(plugin, adapter, layout), "mini"
    else:
        root, found = _paper_root(plugin, data_root, layout), "paper"
    try:
        return adapter(root, found)
    except AttribenchError:
        raise
    except Exception as error:
        raise DatasetError(
            f"the data set plugin {plugin.name!r} ({plugin.origin}) raised {type(error).__name__}: {shown(str(error))} "
            f"while reading {shown(str(root))}; mend the plugin"
        ) from error


def _mini_root(plugin: plugins.Plugin, adapter: type, layout: str) -> Path:
    own = getattr(adapter, "mini_root", None)
    root = own() if own is not None else Path(str(files("attribench") / "assets" / "editions" / plugin.name))
    if not root.is_dir():
        raise DatasetError(
            f"{plugin.name} has no mini edition at {shown(str(root))}; name a folder of its pictures with --data-root "
            f"({layout}), or reinstall attribench if the edition should be there"
        )
    return root


def _paper_root(plugin: plugins.Plugin, root: Path, layout: str) -> Path:
    try:
        if not root.exists():
            what = "does not exist"
        elif not root.is_dir():
            what = "is not a folder"
        elif not any(root.iterdir()):
            what = "is empty"
        else:
            return root
    except (OSError, ValueError) as error:
        what = f"cannot be read ({error})"
    raise DatasetError(
        f"--data-root {shown(str(root))} {what}; {plugin.name} expects there {layout}; without --data-root the mini edition runs"
    )
