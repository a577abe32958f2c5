"""The pages of all boards: static files that work from a disk, with one style sheet, one script and no network.

Names, links and texts come from strangers: templates escape all of them, and the pages' policy lets nothing run or load
but the site's own files. The same boards give the same bytes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from attribench import __version__, plugins
from attribench.boards import papers, tables
from attribench.boards.adding import entries_of
from attribench.boards.board import Board, Leaderboards
from attribench.boards.entry import ShownQuery
from attribench.boards.pictures import Album, image_ids_of
from attribench.boards.plot import bar_of, plot_of
from attribench.boards.standings import GROUPS, Line, Standings, Variant
from attribench.data import Dataset
from attribench.errors import AttribenchError, MethodError, UsageError
from attribench.report.record import metric_class
from attribench.report.words import duration, size

MARKER = ".attribench-site"
"""Tells a folder that may be replaced from one that somebody keeps other files in."""
NAMED = 5
"""Methods of rank 1 that the first page names of a board."""
STRIP = 4


@dataclass(frozen=True)
class Built:
    """What was made."""

    n_boards: int
    n_submissions: int
    n_files: int


def build_site(leaderboards: Leaderboards, target: Path, *, again: bool = False, data_root: Path | None = None) -> Built:
    """Make all pages and tables anew; the folder is replaced as a whole. `again`: verify every submission first."""
    if target.exists() and any(target.iterdir()) and not (target / MARKER).is_file():
        raise UsageError(f"{target} holds files that are no built site; choose another --out, or empty it")
    all_standings = [
        Standings.of(board, entries_of(board, leaderboards, again=again, data_root=data_root)) for board in leaderboards.boards
    ]
    files = _Site(all_standings, data_root).files()
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for name, content in files.items():
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        aside.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Built(len(all_standings), sum(len(s.entries) for s in all_standings), len(files))


class _Site:
    """The pages, by path."""

    def __init__(self, all_standings: list[Standings], data_root: Path | None) -> None:
        self.standings = all_standings
        self.album = Album()
        self.datasets = {s.board.name: _opened(s.board, data_root) for s in all_standings}
        self.editions: dict[tuple[str, str], list[Board]] = defaultdict(list)
        self.methods: dict[str, list[tuple[Standings, Line]]] = defaultdict(list)
        for standings in all_standings:
            self.editions[standings.board.experiment.dataset, standings.board.experiment.edition].append(standings.board)
            for line in standings.lines:
                self.methods[line.method.name].append((standings, line))
        self.templates = jinja2.Environment(
            loader=jinja2.PackageLoader("attribench.boards"), autoescape=True, undefined=jinja2.StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self.templates.filters |= {"stated": tables.stated, "duration": duration, "px": "{:.1f}".format}
        dates = [entry.statement.finished[:10] for s in all_standings for entry in s.entries]
        self.templates.globals |= {"version": __version__, "newest": max(dates, default="")}

    def files(self) -> dict[str, str | bytes]:
        """All files of the site."""
        found: dict[str, str | bytes] = {MARKER: "built by attribench leaderboard build\n"}
        for name in ("style.css", "board.js"):
            found[name] = (resources.files("attribench.boards") / "static" / name).read_text()
        for standings in self.standings:
            name = standings.board.name
            found[f"boards/{name}.html"] = self._board(standings)
            found[f"tables/{name}.md"] = f"{tables.markdown(standings)}\n{papers.papers_markdown(standings)}"
            found[f"tables/{name}.csv"] = tables.table_csv(standings)
            found[f"tables/{name}.tex"] = tables.latex(standings)
        found |= {f"methods/{name}.html": self._method(lines) for name, lines in self.methods.items()}
        found |= {f"data/{name}-{edition}.html": self._dataset(name, of) for (name, edition), of in self.editions.items()}
        found["index.html"] = self._index()
        return found | self.album.files

    def _page(self, template: str, up: str, **values: Any) -> str:
        return self.templates.get_template(template).render(up=up, **values)

    def _index(self) -> str:
        return self._page(
            "index.html", "",
            cards=[_card(s) | {"board": s.board, "strip": self._strip(s.board)} for s in self.standings],
            methods=[(name, _summary(lines[0][1])) for name, lines in sorted(self.methods.items())],
            datasets=[(*edition, self.datasets[of[0].name]) for edition, of in sorted(self.editions.items())],
        )  # fmt: skip

    def _strip(self, board: Board) -> list[str]:
        dataset = self.datasets[board.name]
        ids = [] if dataset is None else image_ids_of(dataset)
        return [self.album.picture(dataset, ids[i * len(ids) // STRIP]) for i in range(STRIP)] if ids else []

    def _board(self, standings: Standings) -> str:
        return self._page(
            "board.html", "../", board=standings.board, n_submissions=len(standings.entries), groups=GROUPS,
            variants=[_variant(variant) for variant in standings.variants],
            doubted=[line for line in standings.lines if line.doubt],
            papers=_papers(standings), meanings={m: _meaning(m) for variant in standings.variants for m in variant.metrics},
        )  # fmt: skip

    def _method(self, lines: list[tuple[Standings, Line]]) -> str:
        places = [self._place(standings.board, line) for standings, line in lines]
        return self._page("method.html", "../", first=lines[0][1], summary=_summary(lines[0][1]), places=places)

    def _place(self, board: Board, line: Line) -> dict[str, Any]:
        row, statement = line.row, line.statement
        facts = [
            ("time to fit", tables.stated(row.fit_seconds, duration)),
            ("time per query", tables.stated(row.query_seconds, duration)),
            ("stored per training image", tables.stated(row.bytes_per_train_image, size)),
            ("peak memory", tables.stated(row.peak_bytes, size)),
            ("budget", tables.budget(line)),
            ("device", row.device),
            ("machine", ", ".join(f"{name} {value}" for name, value in statement.machine.items() if value is not None)),
            ("from", line.method.plugin),
            ("submitted by", statement.submitter or "–"),
            ("run finished", statement.finished),
            ("submission", line.entry.digest[:16]),
        ]
        dataset, queries = self.datasets[board.name], line.entry.shown.get(line.method.name, ())
        return {
            "board": board, "line": line, "facts": facts,
            "shown": [] if dataset is None else [(query, self._pictures(dataset, query)) for query in queries],
            "labelled": any(mark is not None for query in queries for _, mark in query.images),
        }  # fmt: skip

    def _pictures(self, dataset: Dataset, query: ShownQuery) -> list[tuple[str, str, str]]:
        said = {True: "one of the prompt's concepts", False: "another concept", None: "a training image"}
        return [
            (self.album.picture(dataset, image_id), "hit" if mark else "miss", f"{said[mark]}: {image_id}")
            for image_id, mark in query.images
        ]

    def _dataset(self, name: str, boards: list[Board]) -> str:
        dataset = self.datasets[boards[0].name]
        return self._page(
            "dataset.html", "../", dataset=dataset, adapter=plugins.find("dataset", name).load(), boards=boards,
            sheet=self.album.sheet(dataset, image_ids_of(dataset)) if dataset is not None else None,
        )  # fmt: skip


# --------------------------------------------------------------------------------- what templates show


def _opened(board: Board, data_root: Path | None) -> Dataset | None:
    """The data set of a board, for its pictures; a paper edition that is not here has none."""
    if board.experiment.edition == "mini":
        return board.planned().dataset
    try:
        return None if data_root is None else board.planned(data_root).dataset
    except AttribenchError:
        return None


def _papers(standings: Standings) -> dict[str, Any] | None:
    """Published numbers beside the board's, if there are any."""
    found = papers.beside_papers(standings)
    if not found:
        return None
    what, sources = papers.origin(standings, found)
    return {
        "what": what, "sources": sources,
        "tables": found, "summary": papers.summary(found), "disagreements": papers.disagreements(found),
    }  # fmt: skip


def _card(standings: Standings) -> dict[str, Any]:
    """A board on the first page, with the methods of rank 1 in its first variant."""
    found = {
        "n_methods": sum(not line.method.control for line in standings.lines),
        "n_studies": max((variant.n_studies for variant in standings.variants), default=0),
        "leaders": [], "further": 0,
    }  # fmt: skip
    for variant in standings.variants[:1]:
        leaders = [line for line in variant.lines if line.numbers[variant.headline].rank == 1]
        found |= {"leaders": leaders[:NAMED], "further": len(leaders[NAMED:]), "variant": variant}
    return found


def _summary(line: Line) -> str:
    """A method that is installed describes itself; of another, the submission does."""
    plugin = plugins.all_plugins("method").get(line.method.name)
    return _first_line(plugin if plugin is not None and plugin.origin == line.method.plugin else None, line.method.summary)


def _meaning(metric: str) -> str:
    """The metric's own first line; of one that is not installed, its name."""
    return _first_line(plugins.all_plugins("metric").get(metric.partition("@")[0]), f"{metric}.")


def _first_line(plugin: plugins.Plugin | None, otherwise: str) -> str:
    try:
        return otherwise if plugin is None else plugin.summary
    except MethodError:
        return otherwise


def _variant(variant: Variant) -> dict[str, Any]:
    lines = (*variant.lines, *variant.controls)
    rows = [line.numbers[variant.headline].row for line in lines]
    known = [n for row in rows for n in (row.low, row.high, row.value) if n is not None]
    ends = (min(known, default=0.0), max(known, default=1.0))
    return {
        "of": variant, "plot": plot_of(variant), "columns": _columns(variant), "n_costs": range(len(_COSTS) + 3),
        "lines": [_line(line, variant, ends) for line in variant.lines],
        "controls": [_line(line, variant, ends) for line in variant.controls],
    }  # fmt: skip


_COSTS = (
    ("fit", "time to fit a study, as stated"),
    ("per query", "time for one query, as stated"),
    ("per image", "stored for each training image, as stated"),
    ("budget", "models of each study that it reads, and time to train further ones, as stated"),
)


def _columns(variant: Variant) -> list[dict[str, Any]]:
    """Their names, what they are sorted as, what they say, and whether the first click puts the largest first."""
    higher = {metric: metric_class(metric).higher_is_better for metric in variant.metrics}
    columns = [("#", "num", "rank by the first metric"), ("method", "text", "name"), ("needs", "text", "what it may touch")]
    columns += [(m, "num", f"{_meaning(m)} {'Higher' if higher[m] else 'Lower'} is better.") for m in variant.metrics]
    columns += [(name, "num", title) for name, title in _COSTS]
    columns += [("checked", "text", "whether others can recompute it"), ("date", "text", "when the run finished")]
    columns += [("links", "", "")]
    return [{"name": name, "kind": kind, "title": title, "falls": higher.get(name)} for name, kind, title in columns]


def _line(line: Line, variant: Variant, ends: tuple[float, float]) -> dict[str, Any]:
    headline = line.numbers[variant.headline]
    return {
        "of": line, "headline": headline, "date": line.statement.finished[:10], "costs": tables.costs(line),
        "search": f"{line.label} {line.statement.submitter} {line.entry.digest[:8]}".lower(),
        "numbers": [line.numbers.get((variant.name, metric)) for metric in variant.metrics],
        "bar": bar_of(headline.row, variant.chance[headline.row.metric], ends),
    }  # fmt: skip
