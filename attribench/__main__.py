"""`python -m attribench` and the `attribench` command."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def main() -> None:
    """Run the command line; expected errors and our warnings are one line on stderr, errors have their own exit code."""
    _drop_repository_from_path()
    from attribench.cli import app
    from attribench.errors import AttribenchError

    try:
        with _warnings_in_one_line():
            app(standalone_mode=True)
    except AttribenchError as error:
        if os.environ.get("ATTRIBENCH_TRACEBACK"):
            raise
        print(f"attribench: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Our own warnings without file and source line; those of other packages as they are."""
    from attribench.errors import NameClash

    with warnings.catch_warnings():
        as_it_was = warnings.showwarning

        def show(message, category, *place, **options) -> None:
            if issubclass(category, NameClash):
                print(f"attribench: warning: {message}", file=sys.stderr)
            else:
                as_it_was(message, category, *place, **options)

        warnings.showwarning = show
        yield


def _drop_repository_from_path() -> None:
    """`python -m` puts the working directory first; there, our datasets/ would shadow the Hugging Face package."""
    root = Path(__file__).resolve().parent.parent
    if (root / "pyproject.toml").exists():
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != root]


if __name__ == "__main__":
    main()
