"""`attribench truth export` and `import`: the truth of a run as one file, so that nobody has to retrain it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from attribench.cli.usage import Verbs

truth = typer.Typer(cls=Verbs, help="Carry the truth of a run, made by retraining, to another machine.", no_args_is_help=True)


@truth.command("export")
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="A finished run (it holds run.toml).")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the truth.")],
    store: Annotated[Optional[Path], typer.Option(help="Where its artifacts are, if not where run.toml says.")] = None,
) -> None:
    """Write models, pictures and losses of a run to one file; where its methods decide what is retrained, for these methods.

    Example: attribench truth export runs/lds lds.safetensors
    """
    from attribench.run import truth_file
    from attribench.run.config import RunConfig
    from attribench.run.prepare import prepare

    prepared = prepare(RunConfig.gather(run / "run.toml", store=store))
    digest = truth_file.export(prepared, file)
    print(f"{file}: {file.stat().st_size:,} bytes, sha256 {digest}")


@truth.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What export wrote.")],
    run: Annotated[Path, typer.Argument(metavar="RUN.TOML", help="The run that it is to serve, with any methods.")],
    data_root: Annotated[Optional[Path], typer.Option(help="Folder of the real data here.")] = None,
    model: Annotated[Optional[str], typer.Option(help="Base model here.")] = None,
    store: Annotated[Optional[Path], typer.Option(help="Where to keep it.")] = None,
) -> None:
    """Put the truth of a file into the store, where `attribench run RUN.TOML` finds it.

    Where methods decide what is retrained, a run finds what the exported methods asked for, and retrains the rest.

    Example: attribench truth import lds.safetensors run.toml
    """
    from attribench.run import truth_file
    from attribench.run.config import RunConfig
    from attribench.run.prepare import prepare

    prepared = prepare(RunConfig.gather(run, data_root=data_root, model=model, store=store))
    n_all, n_new = truth_file.import_(prepared, file)
    print(
        f"{file}: {n_new:,} of its {n_all:,} artifacts stored in {prepared.store.root}, the others were there; "
        f"attribench run {run} scores against them"
    )
