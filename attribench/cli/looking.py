"""A bar for pictures that are looked at one by one: real data sets take minutes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def looking(total: int) -> Iterator[Callable[[str], None]]:
    """Yields what is to be called for each of `total` pictures. Shown on stderr, and only if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("looking at pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=total)

        def look(image_id: str) -> None:
            done = progress.tasks[task].completed + 1
            progress.update(task, completed=done, total=max(total, done))  # pictures of unusable concepts come on top

        yield look
