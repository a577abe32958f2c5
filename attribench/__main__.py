"""`python -m attribench` and the `attribench` command."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command line; expected errors are one line on stderr and their own exit code."""
    _drop_repository_from_path()
    from attribench.cli import app
    from attribench.errors import AttribenchError

    try:
        app(standalone_mode=True)
    except AttribenchError as error:
        if os.environ.get("ATTRIBENCH_TRACEBACK"):
            raise
        print(f"attribench: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _drop_repository_from_path() -> None:
    """`python -m` puts the working directory first; there, our datasets/ would shadow the Hugging Face package."""
    root = Path(__file__).resolve().parent.parent
    if (root / "pyproject.toml").exists():
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != root]


if __name__ == "__main__":
    main()
