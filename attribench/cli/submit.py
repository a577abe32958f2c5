"""`attribench submit`: the results of a run in one file that others can verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def submit(
    run: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="A finished run (it holds record.parquet).")],
    out: Annotated[Optional[Path], typer.Option(help="The file; default: <run>.submission.zip here.")] = None,
    method: Annotated[list[str], typer.Option("--method", "-m", help="Only this method, and the controls.")] = [],  # noqa: B006
    by: Annotated[str, typer.Option(help="Who submits, as the board will show it.")] = "",
    paper: Annotated[Optional[str], typer.Option(help="Link to the method's paper.")] = None,
    code: Annotated[Optional[str], typer.Option(help="Link to its code.")] = None,
    page: Annotated[Optional[str], typer.Option(help="Link to its page.")] = None,
    data_root: Annotated[Optional[Path], typer.Option(help="Folder of the real data, if not where run.toml says.")] = None,
    model: Annotated[Optional[str], typer.Option(help="Base model, if not where run.toml says.")] = None,
) -> None:
    """Pack scores, truth and record of a run into one file. It holds no code, and every number in it is recomputed first.

    Example: attribench submit runs/artchive-mini-20261122-095137 --by "A. Researcher"
    """
    from attribench.files.whole import whole_file
    from attribench.submissions.container import SUFFIX
    from attribench.submissions.pack import added_metrics, submission_of

    links = {name: link for name, link in (("paper", paper), ("code", code), ("page", page)) if link}
    data = submission_of(run, methods=method, submitter=by, links=links, data_root=data_root, model=model)
    target = out or Path(f"{run.resolve().name}{SUFFIX}")
    with whole_file(target) as path:
        path.write_bytes(data)
    if added := added_metrics(run, data_root=data_root, model=model):
        print(f"left out: {', '.join(added)}; a submission holds the metrics of its protocol, and none that --metric added")
    print(f"{target}: {len(data):,} bytes; attribench verify {target} recomputes every number in it")
