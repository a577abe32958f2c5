"""The house stands: every room imports rooms of lower floors alone, and no two files import each other in a loop."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("house", ROOT / "recipes" / "docs" / "house.py")
house = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(house)

FILES = house.modules()
ARROWS = house.imports(FILES)
LARGEST = 2_300
"""Lines of a room; a larger one has more than one job."""


def test_no_files_import_each_other_in_a_loop():
    loop = house.circle(ARROWS)
    assert not loop, "a circle: " + " -> ".join(str(FILES[name].relative_to(ROOT)) for name in loop)


def test_every_room_stands_on_one_floor():
    rooms = {house.room(name) for name in FILES} - {""}
    declared = [name for rooms in house.FLOORS for name in rooms]
    assert sorted(declared) == sorted(rooms), "give a new folder its floor in recipes/docs/house.py (FLOORS)"


def test_no_arrow_runs_up_or_along_a_floor():
    floor, wrong = house.floor_of(), []
    for (above, below), behind in house.arrows_between(ARROWS).items():
        if floor[below] >= floor[above]:
            wrong += [f"{FILES[a].relative_to(ROOT)} imports {FILES[b].relative_to(ROOT)}" for a, b in behind]
    assert not wrong, "\n".join([f"{len(wrong)} arrows run up:", *wrong])


def test_the_core_names_no_plugin():
    wrong = [f"{FILES[a].relative_to(ROOT)} imports {b}" for a, targets in ARROWS.items() for b in targets
             if house.room(a) not in house.PLUGINS and house.room(b) in house.PLUGINS]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_floors_are_few_and_no_room_is_a_drawer():
    large = {name: count for name, count in house.lines(FILES).items() if count > LARGEST and name not in house.PLUGINS}
    assert len(house.FLOORS) <= 14 and not large


@pytest.mark.parametrize("path", sorted((ROOT / "attribench").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_an_import_inside_a_function_says_why(path):
    """It is there for start-up time, and a comment on its block says so. Verbs of cli/ import all that they do that way."""
    text, silent = path.read_text().splitlines(), []
    if "cli" in path.relative_to(ROOT).parts or path.name == "__main__.py":
        return
    for function in ast.walk(ast.parse("\n".join(text))):
        if not isinstance(function, ast.FunctionDef):
            continue
        inner = [n for n in ast.walk(function) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("attribench")]
        if inner and not any("#" in text[line - 1] for node in inner for line in range(node.lineno - 1, node.end_lineno + 1)):
            silent.append(f"{path.relative_to(ROOT)}:{inner[0].lineno} ({function.name})")
    assert not silent, "imports inside functions without a word why: " + ", ".join(silent)
