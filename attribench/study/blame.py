"""What a stranger's plugin raises, as one line that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from attribench.errors import AttribenchError, MethodError


@contextmanager
def blame(plugin: str) -> Iterator[None]:
    """`with blame("the method 'x'"):` turns any exception inside into a MethodError that begins with that name.

    Errors of ours that are not about methods pass as they are.
    """
    try:
        yield
    except Exception as error:
        if type(error) is MethodError:
            raise MethodError(f"{plugin}: {error}") from error
        if isinstance(error, AttribenchError):
            raise
        raise MethodError(f"{plugin} raised {type(error).__name__}: {error}; report it to its author") from error
