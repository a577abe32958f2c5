"""The pages of all boards: static files that work from a disk, with one style sheet, one script and no network.

Names, links and texts come from strangers: templates escape all of them, and the pages' policy lets nothing run or load
but the site's own files. The same boards give the same bytes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from attribench import __version__, plugins
from attribench.boards import papers, tables
from attribench.boards.adding import entries_of
from attribench.boards.board import Leaderboards
from attribench.boards.entry import ShownQuery
from attribench.boards.pictures import Album, image_ids_of
from attribench.boards.plot import GROUPS, interval_bar, plot
from attribench.boards.standings import Line, Number, Standings, Variant, higher_is_better
from attribench.data import Dataset
from attribench.errors import AttribenchError, MethodError, UsageError
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
        self.datasets: dict[str, Dataset | None] = {s.board.name: _dataset(s, data_root) for s in all_standings}
        loader = jinja2.PackageLoader("attribench.boards")
        self.templates = jinja2.Environment(
            loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
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
        found |= {f"methods/{name}.html": self._method(name, lines) for name, lines in self._methods().items()}
        found |= {f"data/{name}-{edition}.html": self._dataset(name, edition) for name, edition in self._editions()}
        found["index.html"] = self._index()
        return found | self.album.files

    def _page(self, template: str, up: str, **values: Any) -> str:
        return self.templates.get_template(template).render(up=up, **values)

    # ---------------------------------------------------------------------------------- the front

    def _index(self) -> str:
        boards = [_board_facts(s) | {"strip": self._strip(s), **_leaders(s)} for s in self.standings]
        methods = [(name, _summary(lines)) for name, lines in self._methods().items()]
        datasets = [(name, edition, self._contents(name, edition)) for name, edition in self._editions()]
        return self._page("index.html", "", boards=boards, methods=methods, datasets=datasets)

    def _strip(self, standings: Standings) -> list[str]:
        dataset = self.datasets[standings.board.name]
        if dataset is None:
            return []
        ids = image_ids_of(dataset)
        return [self.album.picture(dataset, ids[i * len(ids) // STRIP]) for i in range(STRIP)]

    # ---------------------------------------------------------------------------------- a board

    def _board(self, standings: Standings) -> str:
        variants = [_variant(variant, number) for number, variant in enumerate(standings.variants)]
        return self._page(
            "board.html", "../", board=_board_facts(standings), variants=variants, groups=GROUPS, papers=_papers(standings),
            meanings=_meanings(standings),
        )  # fmt: skip

    # ---------------------------------------------------------------------------------- a method

    def _methods(self) -> dict[str, list[tuple[Standings, Line]]]:
        found = defaultdict(list)
        for standings in self.standings:
            for line in standings.lines:
                found[line.method.name].append((standings, line))
        return dict(sorted(found.items()))

    def _method(self, name: str, lines: list[tuple[Standings, Line]]) -> str:
        method = lines[0][1].method
        places = [self._place(standings, line) for standings, line in lines]
        needs = method.needs or ("features",)
        return self._page(
            "method.html", "../", name=name, summary=_summary(lines), needs=needs, control=method.control, places=places
        )

    def _place(self, standings: Standings, line: Line) -> dict[str, Any]:
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
        dataset = self.datasets[standings.board.name]
        shown = [self._shown(dataset, query) for query in line.shown] if dataset is not None else []
        return {
            "board": standings.board.name,
            "title": standings.board.definition.title,
            "label": line.label,
            "rows": [_row(number) for number in line.numbers.values()],
            "facts": facts,
            "links": list(statement.links.items()),
            "params": [(name, str(value)) for name, value in line.method.params.items()],
            "shown": shown,
            "labelled": any(mark is not None for query in line.shown for _, mark in query.images),
        }

    def _shown(self, dataset: Dataset, query: ShownQuery) -> dict[str, Any]:
        said = {True: "one of the prompt's concepts", False: "another concept", None: "a training image"}
        pictures = [
            (self.album.picture(dataset, image_id), "hit" if mark else "miss", f"{said[mark]}: {image_id}")
            for image_id, mark in query.images
        ]
        return {"prompt": query.prompt, "variant": query.variant, "pictures": pictures}

    # ---------------------------------------------------------------------------------- a data set

    def _editions(self) -> list[tuple[str, str]]:
        return sorted({(s.board.experiment.dataset, s.board.experiment.edition) for s in self.standings})

    def _of_edition(self, name: str, edition: str) -> tuple[list[Standings], Dataset | None]:
        of = [s for s in self.standings if (s.board.experiment.dataset, s.board.experiment.edition) == (name, edition)]
        return of, self.datasets[of[0].board.name]

    def _contents(self, name: str, edition: str) -> str:
        dataset = self._of_edition(name, edition)[1]
        return dataset.contents if dataset is not None else ""

    def _dataset(self, name: str, edition: str) -> str:
        of, dataset = self._of_edition(name, edition)
        adapter = plugins.find("dataset", name).load()
        return self._page(
            "dataset.html", "../", name=name, edition=edition, contents=self._contents(name, edition),
            licence=adapter.licence, citation=adapter.citation,
            boards=[(s.board.name, s.board.definition.title) for s in of],
            sheet=self.album.sheet(dataset, image_ids_of(dataset)) if dataset is not None else None,
        )  # fmt: skip


# --------------------------------------------------------------------------------- what templates show


def _dataset(standings: Standings, data_root: Path | None) -> Dataset | None:
    """The data set of a board, for its pictures; a paper edition that is not here has none."""
    experiment = standings.board.experiment
    if experiment.edition == "paper" and data_root is None:
        return None
    try:
        return standings.board.planned(data_root if experiment.edition == "paper" else None).dataset
    except AttribenchError:
        if experiment.edition == "mini":
            raise
        return None


def _board_facts(standings: Standings) -> dict[str, Any]:
    board = standings.board
    definition, experiment = board.definition, board.experiment
    return {
        "name": board.name, "title": definition.title, "question": definition.question, "version": definition.version,
        "dataset": experiment.dataset, "edition": experiment.edition, "protocol": experiment.protocol,
        "n_submissions": len(standings.entries),
        "n_methods": sum(not line.method.control for line in standings.lines),
        "n_studies": max((variant.n_studies for variant in standings.variants), default=0),
    }  # fmt: skip


def _papers(standings: Standings) -> dict[str, Any] | None:
    """Published numbers beside the board's, if there are any."""
    found = papers.beside_papers(standings)
    if not found:
        return None
    return {
        "what": papers.what_sets_apart(standings), "sources": "; ".join(dict.fromkeys(beside.sources for beside in found)),
        "tables": found, "summary": papers.summary(found), "disagreements": papers.disagreements(found),
    }  # fmt: skip


def _leaders(standings: Standings) -> dict[str, Any]:
    """The methods of rank 1 in the first variant."""
    if not standings.variants:
        return {"leaders": [], "further": 0, "headline": ""}
    variant = standings.variants[0]
    first = (variant.name, variant.metrics[0])
    leaders = [line for line in variant.lines if line.numbers[first].rank == 1]
    return {
        "leaders": [(line.label, f"methods/{line.method.name}.html") for line in leaders[:NAMED]],
        "further": len(leaders[NAMED:]),
        "headline": f"{variant.metrics[0]}, {variant.name}",
    }


def _summary(lines: list[tuple[Standings, Line]]) -> str:
    """A built-in method describes itself; of another, the submission does."""
    line = lines[0][1]
    plugin = plugins.all_plugins("method").get(line.method.name)
    try:
        return plugin.summary if plugin is not None and plugin.origin == line.method.plugin else line.method.summary
    except MethodError:
        return line.method.summary


def _row(number: Number) -> dict[str, Any]:
    row = number.row
    return {
        "variant": row.variant, "metric": row.metric, "value": tables.stated(row.value, "{:.3f}".format),
        "interval": "–" if row.low is None else f"{row.low:.3f} – {row.high:.3f}", "rank": number.rank,
        "chance": tables.stated(row.chance, "{:.3f}".format), "ceiling": tables.stated(row.ceiling, "{:.3f}".format),
        "standing": number.standing,
    }  # fmt: skip


def _variant(variant: Variant, number: int) -> dict[str, Any]:
    lines = (*variant.lines, *variant.controls)
    first = (variant.name, variant.metrics[0])
    rows = [line.numbers[first].row for line in lines]
    known = [n for row in rows for n in (row.low, row.high, row.value) if n is not None]
    ends = (min(known, default=0.0), max(known, default=1.0))
    return {
        "name": variant.name, "n_queries": variant.n_queries, "n_studies": variant.n_studies,
        "plot": plot(variant, f"p{number}"),
        "columns": _columns(variant),
        "lines": [_line(line, variant, ends) for line in variant.lines],
        "controls": [_line(line, variant, ends) for line in variant.controls],
        "known": [
            (name, [tables.stated(getattr(variant, which)[metric], "{:.3f}".format) for metric in variant.metrics])
            for name, which in (("chance", "chance"), ("best that can be expected", "ceiling"))
        ],
        "n_costs": range(len(_COSTS) + 3),
    }  # fmt: skip


_COSTS = (
    ("fit", "time to fit a study, as stated"),
    ("per query", "time for one query, as stated"),
    ("per image", "stored for each training image, as stated"),
    ("budget", "models of each study that it reads, and time to train further ones, as stated"),
)


def _meanings(standings: Standings) -> dict[str, str]:
    """What each metric of a board is, by its name."""
    return {metric: _meaning(metric) for variant in standings.variants for metric in variant.metrics}


def _meaning(metric: str) -> str:
    """The metric's own first line; of one that is not installed, its name."""
    plugin = plugins.all_plugins("metric").get(metric.partition("@")[0])
    try:
        return plugin.summary if plugin is not None else f"{metric}."
    except MethodError:
        return f"{metric}."


def _columns(variant: Variant) -> list[dict[str, Any]]:
    """Their names, what they are sorted as, what they say, and whether the first click puts the largest first."""
    directions = {metric: "Higher" if higher_is_better(metric) else "Lower" for metric in variant.metrics}
    columns = [("#", "num", "rank by the first metric"), ("method", "text", "name"), ("needs", "text", "what it may touch")]
    columns += [(metric, "num", f"{_meaning(metric)} {direction} is better.") for metric, direction in directions.items()]
    columns += [(name, "num", title) for name, title in _COSTS]
    columns += [("checked", "text", "whether others can recompute it"), ("date", "text", "when the run finished")]
    columns += [("links", "", "")]
    falling = {metric for metric, direction in directions.items() if direction == "Higher"}
    return [{"name": name, "kind": kind, "title": title, "falls": name in falling} for name, kind, title in columns]


def _line(line: Line, variant: Variant, ends: tuple[float, float]) -> dict[str, Any]:
    headline = line.numbers[variant.name, variant.metrics[0]]
    return {
        "name": line.method.name, "label": line.label, "tuned": line.method.tuned, "rank": headline.rank,
        "needs": line.method.needs or ("features",), "standing": headline.standing,
        "search": f"{line.label} {line.statement.submitter} {line.entry.digest[:8]}".lower(),
        "numbers": [_cell(line.numbers.get((variant.name, metric)), variant, metric, ends) for metric in variant.metrics],
        "costs": list(_sortable(line)),
        "date": line.statement.finished[:10],
        "links": [(name, href) for name, href in line.statement.links.items()],
    }  # fmt: skip


def _sortable(line: Line) -> Iterable[tuple[str, str]]:
    """The number to sort by, and what is shown."""
    row = line.row
    for cost, write in ((row.fit_seconds, duration), (row.query_seconds, duration), (row.bytes_per_train_image, size)):
        yield ("" if cost is None else f"{cost:.6g}"), tables.stated(cost, write)
    yield f"{row.n_models + (row.extra_training_seconds or 0) / 1e6:.8g}", tables.budget(line)


def _cell(number: Number | None, variant: Variant, metric: str, ends: tuple[float, float]) -> dict[str, Any] | None:
    if number is None:
        return None
    row = number.row
    bar = Markup("")
    if metric == variant.metrics[0]:
        bar = interval_bar(row.low, row.high, row.value, variant.chance[metric], ends)
    return {
        "value": None if row.value is None else f"{row.value:.3f}",
        "sort": "" if row.value is None else f"{row.value:.9g}",
        "interval": "" if row.low is None else f"[{row.low:.3f}, {row.high:.3f}]",
        "rank": number.rank,
        "verified": number.standing == "verified",
        "bar": bar,
    }
