"""What a user types and reads: tables, JSON, dry runs, plugins, and one clear line for bad input."""

from __future__ import annotations

import json
import re
import shutil
import struct
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
COLUMNS = {
    "method", "params", "dataset", "edition", "protocol", "variant", "split", "metric", "value", "low", "high", "rank",
    "n_queries", "n_studies", "seed", "fit_seconds", "query_seconds", "peak_bytes", "bytes_per_train_image", "status",
    "reason",
}  # fmt: skip


def readme_plugin(folder: Path) -> Path:
    """The example of the README, as it stands there."""
    code = re.search(r"```python\n# mine\.py\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    path = folder / "mine.py"
    path.write_text(code)
    return path


def test_a_plugin_file_runs_beside_ours_and_its_rows_are_json(attribench, attribench_process, command_line, tmp_path):
    """The README's example, an unavailable method, the record as JSON lines, and the table again from the folder."""
    plugin = readme_plugin(tmp_path)
    arguments = ["run", *command_line, "--plugin", str(plugin), "-m", "mean colour", "-m", "clip-text", "--out", "out"]
    result = attribench_process(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert rows[0].keys() >= COLUMNS
    mine = [row for row in rows if row["method"] == "mean-colour"]
    assert len(mine) == 8
    assert mine[0]["plugin"].startswith("file mine.py sha256:")
    assert mine[0]["params"] == {"power": 1.0}
    missing = [row for row in rows if row["method"] == "clip-text"]
    assert {row["status"] for row in missing} == {"unavailable"}
    assert "HF_HUB_OFFLINE" in missing[0]["reason"]
    assert all(row["value"] is None for row in missing)

    table = attribench("show", "out")
    assert table.returncode == 0
    assert "mean-colour" in table.stdout
    assert "chance" in table.stdout
    assert "clip-text (ViT-B-32/openai) unavailable: the weights" in table.stdout

    dry = attribench(*arguments, "--dry-run")
    assert "0 steps to run" in dry.stdout
    changed = attribench(*arguments, "--dry-run", "-p", "mean-colour.power=2")
    assert re.search(r"fit mean-colour\s+2\s+0", changed.stdout), changed.stdout


def test_a_plugin_that_raises_is_one_line_and_loses_nothing(attribench, command_line, tmp_path):
    (tmp_path / "broken.py").write_text(
        "from dataclasses import dataclass\n"
        "from attribench.interface import AttributionMethod\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Broken(AttributionMethod):\n"
        "    '''It breaks.'''\n"
        "    name = 'broken'\n"
        "    def score(self, study, state, queries):\n"
        "        raise ZeroDivisionError('oh no')\n"
    )
    result = attribench("run", *command_line, "--plugin", "broken.py", "-m", "broken", "-m", "pixel", "--json", "--out", "out")
    assert result.returncode == 5
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {row["status"] for row in rows if row["method"] == "broken"} == {"failed"}
    assert {row["status"] for row in rows if row["method"] == "pixel"} == {"ok"}
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("attribench: the method 'broken' raised ZeroDivisionError: oh no")
    assert "Traceback" not in result.stderr


def test_a_method_gets_only_the_access_it_declares(attribench, command_line, tmp_path):
    (tmp_path / "nosy.py").write_text(
        "from dataclasses import dataclass\n"
        "from attribench.interface import AttributionMethod\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Nosy(AttributionMethod):\n"
        "    '''It looks.'''\n"
        "    name = 'nosy'\n"
        "    def score(self, study, state, queries):\n"
        "        return study.model\n"
    )
    result = attribench("run", *command_line, "--plugin", "nosy.py", "-m", "nosy", "--out", "out")
    assert result.returncode == 5
    assert "nosy asked for the trained model but declares no Access.GRADIENTS" in result.stderr


BAD = {
    "near-miss": (["-m", "montrag", "-d", "artchive"], 2, "did you mean 'montrage'?"),
    "unknown data set": (["-m", "pixel", "-d", "artchiv"], 2, "did you mean 'artchive'?"),
    "no method": (["-d", "customconcept101"], 2, "say which method"),
    "no data set": (["-m", "pixel"], 2, "say which data set"),
    "missing root": (["-m", "pixel", "-d", "artchive", "--data-root", "nowhere"], 3, "nowhere"),
    "paper without root": (["-m", "pixel", "-d", "artchive", "--edition", "paper"], 2, "--data-root"),
    "mini with root": (["-m", "pixel", "-d", "artchive", "--edition", "mini", "--data-root", "."], 2, "--data-root"),
    "edition": (["-m", "pixel", "-d", "artchive", "--edition", "huge"], 2, "edition"),
    "parameter": (["-m", "pixel", "-d", "customconcept101", "-p", "pixel.sise=3"], 2, "size"),
    "value": (["-m", "pixel", "-d", "customconcept101", "-p", "pixel.size=big"], 2, "pixel.size"),
    "form": (["-m", "pixel", "-d", "customconcept101", "-p", "size=3"], 2, "method.name=value"),
    "foreign parameter": (["-m", "pixel", "-d", "customconcept101", "-p", "montrage.norm=l2"], 2, "--method montrage"),
    "preset key": (["-m", "pixel", "-d", "customconcept101", "-p", "between-concepts.n_concept=3"], 2, "n_concept"),
    "device": (["-m", "pixel", "-d", "customconcept101", "--device", "cuda"], 2, "--device cpu"),
    "model": (["-m", "pixel", "-d", "customconcept101", "--model", "."], 4, "model_index.json"),
    "plugin file": (["-m", "pixel", "-d", "customconcept101", "--plugin", "no.py"], 2, "no such file"),
    "run.toml": (["no.toml"], 2, "no.toml"),
    "scheduler": (["-m", "pixel", "-d", "customconcept101", "--scheduler", "tcp://127.0.0.1:1"], 2, "dask scheduler"),
}


def test_an_error_ends_the_process_with_its_code_and_one_line(attribench_process):
    arguments, code, hint = BAD["near-miss"]
    result = attribench_process("run", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("attribench: ") and hint in line


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(attribench, case):
    arguments, code, hint = BAD[case]
    result = attribench("run", *arguments, "--out", "out")
    assert result.returncode == code, result.stderr
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("attribench: ")
    assert hint in lines[-1]
    assert "Traceback" not in result.stderr


def test_a_truncated_picture_stops_the_run_with_its_name(attribench, command_line, paper_folder, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(paper_folder, root)
    for victim in root.glob("benchmark_dataset/*/1.jpg"):
        victim.write_bytes(victim.read_bytes()[:200])
    arguments = [str(root) if argument == str(paper_folder) else argument for argument in command_line]
    result = attribench("run", *arguments, "-m", "pixel", "--out", "out")
    assert result.returncode != 0
    assert re.search(r"attribench: .*thing_\w+/1\.jpg", result.stderr), result.stderr
    assert "Traceback" not in result.stderr


def test_a_huge_picture_is_refused_before_it_is_decoded(attribench, command_line, paper_folder, tmp_path):
    """A header that claims 30,000 × 30,000 pixels, in a file of a few bytes."""
    root = tmp_path / "data"
    shutil.copytree(paper_folder, root)
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    png += struct.pack(">I", 1000) + b"IDAT" + bytes(100)
    for folder in (root / "benchmark_dataset").iterdir():
        (folder / "3.png").write_bytes(png)
    arguments = [str(root) if argument == str(paper_folder) else argument for argument in command_line]
    result = attribench("run", *arguments, "-p", "between-concepts.images_per_concept=4", "-m", "pixel", "--out", "out")
    assert result.returncode == 3
    assert re.search(r"attribench: .*thing_\w+/3\.png.*30000 . 30000", result.stderr.strip().splitlines()[-1]), result.stderr
    assert "Traceback" not in result.stderr


def test_a_store_of_another_version_is_left_alone(attribench, command_line, tmp_path):
    store = tmp_path / "old"
    store.mkdir()
    (store / "store.json").write_text(json.dumps({"format": 999}))
    result = attribench("run", *command_line, "-m", "pixel", "--store", str(store), "--out", "out")
    assert result.returncode == 6
    assert "--store" in result.stderr.strip().splitlines()[-1]


def test_list_and_plugins_show_what_there_is(attribench):
    listed = attribench("list", "--json")
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert {(row["kind"], row["name"]) for row in rows} >= {
        ("method", "montrage"), ("dataset", "artchive"), ("metric", "recall"), ("protocol", "between-concepts"),
    }  # fmt: skip
    montrage = next(row for row in rows if row["name"] == "montrage")
    assert montrage["params"]["steps"] == "600"
    shown = attribench("plugins")
    assert shown.returncode == 0
    assert "0.1.0" in shown.stdout and "attribench-diffusion" in shown.stdout
