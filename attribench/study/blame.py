"""What a stranger's plugin raises, as one line that names it."""

from __future__ import annotations

from attribench.errors import AttribenchError, MethodError


class blame:
    """`with blame("the method 'x'"):` turns any exception inside into a MethodError that begins with that name.

    Errors of ours that are not about methods pass as they are.
    """

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if type(error) is MethodError:
            raise MethodError(f"{self.plugin}: {error}") from error
        if isinstance(error, Exception) and not isinstance(error, AttribenchError):
            raise MethodError(f"{self.plugin} raised {type(error).__name__}: {error}; report it to its author") from error
