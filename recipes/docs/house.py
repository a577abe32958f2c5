"""The house: which folder may import which, read from the code itself, and its picture for docs/architecture.md.

    python recipes/docs/house.py                 # writes docs/house.svg
    python recipes/docs/house.py --list          # the floors in words: lines, and what each room imports

A room is a folder of the package, or a module beside them. Imports are read from the syntax trees, those inside functions and
below TYPE_CHECKING included: an arrow is an arrow. `tests/test_floors.py` holds the code to FLOORS.
"""

from __future__ import annotations

import argparse
import ast
import textwrap
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ("methods", "datasets", "metrics")
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("files", "engine", "measurement"),
    ("data", "statistics", "metrics", "retrieval"),
    ("datasets", "diffusion"),
    ("interface",),
    ("plugins", "study", "gradients", "encoders"),
    ("editions", "scaffold", "methods", "attribution", "truth", "report"),
    ("protocols",),
    ("run",),
    ("conformance", "submissions"),
    ("boards",),
    ("cli",),
    ("__main__",),
)
"""From the ground up. A room imports rooms of lower floors alone."""

Module = str
Imports = Mapping[Module, frozenset[Module]]


def modules(root: Path = ROOT) -> dict[Module, Path]:
    """The file of each module of the package, by its dotted name."""
    found = {}
    for folder in ("attribench", *PLUGINS):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join(parts if folder == "attribench" else ("attribench", *parts))] = path
    return found


def imports(files: Mapping[Module, Path]) -> dict[Module, frozenset[Module]]:
    """The modules of the package that each of them imports, wherever in the file."""
    return {name: frozenset(_imported(name, path, files)) - {name} for name, path in files.items()}


def _imported(name: Module, path: Path, files: Mapping[Module, Path]) -> Iterable[Module]:
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield from (target for target in (f"{base}.{alias.name}", base) if target in files)


def room(module: Module) -> str:
    """The room that a module stands in; "" for the package's own face."""
    return module.split(".")[1] if "." in module else ""


def circle(arrows: Imports) -> list[Module]:
    """Modules that import each other in a loop, the first one once more at the end; [] if there are none.

    A package's face imports its own modules, and they are imported through it: within a package that is no circle.
    """
    try:
        TopologicalSorter({name: {to for to in targets if not name.startswith(f"{to}.")} for name, targets in arrows.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def floor_of(floors: tuple[tuple[str, ...], ...] = FLOORS) -> dict[str, int]:
    """The floor of each room, from 1."""
    return {name: number for number, rooms in enumerate(floors, 1) for name in rooms}


def arrows_between(arrows: Imports) -> dict[tuple[str, str], list[tuple[Module, Module]]]:
    """The imports behind each arrow from one room to another."""
    found: dict[tuple[str, str], list[tuple[Module, Module]]] = {}
    for name, targets in arrows.items():
        for to in sorted(targets):
            if room(name) != room(to) and room(to):
                found.setdefault((room(name), room(to)), []).append((name, to))
    return found


def lines(files: Mapping[Module, Path]) -> dict[str, int]:
    """Lines of code of each room."""
    counts: dict[str, int] = {}
    for name, path in files.items():
        counts[room(name)] = counts.get(room(name), 0) + len(path.read_text().splitlines())
    return counts


def job(name: str, files: Mapping[Module, Path]) -> str:
    """What a room is for: the first sentence of its docstring."""
    said = ast.get_docstring(ast.parse(files[f"attribench.{name}"].read_text())) or ""
    return said.partition("\n\n")[0].partition(". ")[0].replace("\n", " ").rstrip(".")


def _needed(arrows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The arrows that follow from no two others: drawn, they say the same with less ink."""
    direct: dict[str, set[str]] = {}
    for above, below in arrows:
        direct.setdefault(above, set()).add(below)

    def reached(name: str) -> set[str]:
        return {far for near in direct.get(name, ()) for far in {near, *reached(near)}}

    return [(a, b) for a in direct for b in sorted(direct[a]) if not any(b in reached(c) for c in direct[a] if c != b)]


def draw(target: Path) -> None:
    """Write the picture: rooms on their floors, their jobs and lines, and the arrows that follow from no others."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    files = modules()
    counts, between = lines(files), arrows_between(imports(files))
    width, row, height = 15.0, 1.2, 0.8
    figure = Figure(figsize=(width, row * len(FLOORS) + 0.3))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, row * len(FLOORS) + 0.3))
    axes.axis("off")
    places: dict[str, tuple[float, float]] = {}
    for number, rooms in enumerate(FLOORS):
        y = 0.2 + row * number
        axes.text(0.12, y + height / 2, str(number + 1), size=9, color="#999999", va="center")
        box = min(3.6, (width - 0.8) / len(rooms) - 0.2)
        for place, name in enumerate(rooms):
            x = 0.5 + (width - 0.8) * (place + 0.5) / len(rooms)
            places[name] = (x, y)
            colour = "#eef4ea" if name in PLUGINS else "#f4f1ea"
            axes.add_patch(FancyBboxPatch((x - box / 2, y), box, height, boxstyle="round,pad=0,rounding_size=0.08",
                                          facecolor=colour, edgecolor="#8a8a8a", linewidth=0.8, zorder=2))  # fmt: skip
            own = "" if name in PLUGINS or not (ROOT / "attribench" / name).is_dir() else "attribench/"
            title = f"{own}{name}" if own or name in PLUGINS else f"attribench/{name}.py"
            axes.text(x, y + height - 0.06, f"{title}{'/' if own or name in PLUGINS else ''}  {counts[name]:,}", size=8.5,
                      weight="bold", ha="center", va="top", zorder=3, parse_math=False)  # fmt: skip
            said = "\n".join(textwrap.wrap(job(name, files), int(box * 13), max_lines=4, placeholder=" …"))
            axes.text(x, y + height - 0.24, said, size=7.6, ha="center", va="top", color="#333333", zorder=3, parse_math=False)
    for above, below in _needed(between):
        (x0, y0), (x1, y1) = places[above], places[below]
        axes.annotate("", (x1, y1 + height), (x0, y0), zorder=1,
                      arrowprops={"arrowstyle": "-|>", "color": "#9db0c4", "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0})  # fmt: skip
    with rc_context({"svg.hashsalt": "house", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="print the floors in words")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "house.svg")
    options = parser.parse_args()
    if not options.list:
        draw(options.out)
        return
    files = modules()
    counts, between = lines(files), arrows_between(imports(files))
    for name, number in floor_of().items():
        below = ", ".join(to for of, to in between if of == name)
        print(f"{number:>2}  {name:<12} {counts[name]:>6,}  {below}")
    print(f"{sum(count for name, count in counts.items() if name not in PLUGINS):,} lines in attribench/")


if __name__ == "__main__":
    main()
