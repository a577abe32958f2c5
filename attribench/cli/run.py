"""`attribench run`: methods on a data set, from training to the table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from attribench.run.prepared import Prepared

Opt = typer.Option


def run(
    replay: Annotated[Optional[Path], typer.Argument(metavar="[RUN.TOML]", help="Do again what this file says.")] = None,
    method: Annotated[list[str], Opt("--method", "-m", help="A method; several share one training.")] = [],  # noqa: B006
    dataset: Annotated[Optional[str], Opt("--dataset", "-d", help="The data set.")] = None,
    metric: Annotated[list[str], Opt(help="A metric beside the protocol's own. Repeatable.")] = [],  # noqa: B006
    protocol: Annotated[Optional[str], Opt(help="The experiment; default: the data set's own.")] = None,
    edition: Annotated[Optional[str], Opt(help="mini (shipped) or paper (needs --data-root).")] = None,
    preset: Annotated[Optional[str], Opt(help="Counts and hyper-parameters; default: the edition's.")] = None,
    data_root: Annotated[Optional[Path], Opt(help="Folder of the real data, in the authors' layout.")] = None,
    model: Annotated[Optional[str], Opt(help="Base model: a diffusers folder or hub id; default: by edition.")] = None,
    split: Annotated[Optional[str], Opt(help="dev (to tune on) or test.")] = None,
    seed: Annotated[Optional[int], Opt(help="Seed of studies, trainings and generations.")] = None,
    limit: Annotated[Optional[int], Opt(min=1, help="At most so many queries per study and variant.")] = None,
    region: Annotated[Optional[str], Opt(metavar="X,Y,W,H", help="Attribute this box of every picture alone (pixels).")] = None,
    regions: Annotated[Optional[Path], Opt(help="A CSV file with the box of each query: query,x,y,w,h and maybe study.")] = None,
    param: Annotated[list[str], Opt("--param", "-p", help="NAME.field=value, of a method, metric or protocol.")] = [],  # noqa: B006
    plugin: Annotated[list[Path], Opt(help="A Python file that defines a plugin. It runs with your rights.")] = [],  # noqa: B006
    device: Annotated[Optional[str], Opt(help="auto, cpu or cuda.")] = None,
    workers: Annotated[Optional[str], Opt(help="auto: a process per core or GPU. N: N threads. 0: no scheduler.")] = None,
    scheduler: Annotated[Optional[str], Opt(help="Address of a running Dask scheduler (tcp://…).")] = None,
    store: Annotated[Optional[Path], Opt(help="Where artifacts are kept and found again.")] = None,
    out: Annotated[Optional[Path], Opt(help="Run folder; default: runs/<data set>-<time>.")] = None,
    dry_run: Annotated[bool, Opt("--dry-run", help="Show the steps, what is cached, and what it would cost.")] = False,
    json: Annotated[bool, Opt("--json", help="The record's rows, one JSON object a line.")] = False,
) -> None:
    """Run methods on a data set: train, generate, attribute, measure.

    Example: attribench run --method montrage --dataset artchive
    """
    from attribench.cli import screen
    from attribench.cli.progress import listener_for
    from attribench.run.config import RunConfig
    from attribench.run.execute import execute
    from attribench.run.prepare import prepare

    config = RunConfig.gather(
        replay,
        methods=method, dataset=dataset, metrics=metric, protocol=protocol, edition=edition, preset=preset, data_root=data_root,
        model=model, split=split, seed=seed, limit=limit, region=region, regions=regions, params=param, plugins=plugin,
        device=device, workers=workers, scheduler=scheduler, store=store, out=out,
    )  # fmt: skip
    prepared = prepare(config)
    _require_pictures(prepared)
    if dry_run:
        screen.dry_run(prepared, as_json=json)
        return
    screen.announce(prepared, quiet=json)
    try:
        result = execute(prepared, listener_for(json))
    except KeyboardInterrupt:
        print("attribench: interrupted; what was finished is kept, the same command goes on from there", file=sys.stderr)
        raise typer.Exit(130) from None
    screen.result(result, as_json=json)
    if result.failure is not None:
        raise result.failure


def _require_pictures(prepared: Prepared) -> None:
    """Find damaged pictures before anything is trained, and not at the training that comes upon them."""
    from attribench.cli.looking import looking
    from attribench.data.contents import require_readable
    from attribench.engine.plan import make_plan

    if not make_plan(prepared.targets, prepared.store).to_run:
        return
    image_ids = {image_id for plan in prepared.plans for image_id in plan.pictures}
    with looking(len(image_ids)) as look:
        require_readable(prepared.dataset, image_ids, look)
