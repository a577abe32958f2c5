"""What a run was asked to do: from the command line, a `run.toml`, or both."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pydantic
import tomli_w

from attribench.data import Edition, Split
from attribench.errors import UsageError
from attribench.run.regions import QueryRegion, read_regions


class RunConfig(pydantic.BaseModel):
    """What a run was asked to do; written to `run.toml`, from which it can be done again."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    methods: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    """Beside those of the protocol."""
    dataset: str
    protocol: str | None = None
    edition: Edition | None = None
    preset: str | None = None
    data_root: Path | None = None
    model: str | None = None
    split: Split = "test"
    seed: int = 0
    limit: int | None = None
    region: str | None = None
    regions: tuple[QueryRegion, ...] = ()
    params: dict[str, dict[str, Any]] = {}
    plugins: tuple[Path, ...] = ()
    device: str = "auto"
    workers: Literal["auto"] | pydantic.NonNegativeInt = "auto"
    scheduler: str | None = None
    store: Path | None = None
    out: Path | None = None

    @classmethod
    def gather(cls, replay: Path | None, **options: Any) -> RunConfig:
        """From a `run.toml`, from command-line options, or from both: options that are given win."""
        values: dict[str, Any] = {}
        if replay is not None:
            try:
                values = tomllib.loads(replay.read_text())
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise UsageError(f"cannot read {replay}: {error}; give the run.toml of an earlier run") from error
        given = {key: value for key, value in options.items() if value not in (None, [], ())}
        if "params" in given:
            given["params"] = parameters(given["params"], values.get("params", {}))
        if "regions" in given:
            given["regions"] = read_regions(given["regions"])
        if "region" in given or "regions" in given:  # either takes the place of both
            values = {key: value for key, value in values.items() if key not in ("region", "regions")}
        values |= given
        if values.get("region") and values.get("regions"):
            raise UsageError("--region gives a box for every query, --regions for those of a file; give one of the two")
        if "dataset" not in values:
            raise UsageError("say which data set: --dataset artchive (`attribench list` shows all)")
        try:
            return cls.model_validate(values)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            if first["loc"][0] == "workers":  # of two kinds, and pydantic would tell of the first alone
                raise UsageError(f"--workers {first['input']}: give auto, or a whole number from 0") from error
            raise UsageError(f"{where}={first['input']!r}: {first['msg']}") from error

    def to_toml(self) -> str:
        """The text of `run.toml`: paths absolute, and without the run's own folder, so that it runs from anywhere."""
        values = self.model_dump(mode="json", exclude_none=True, exclude={"out"})
        for name in ("data_root", "store"):
            if name in values:
                values[name] = str(Path(values[name]).absolute())
        if self.model is not None and Path(self.model).is_dir():
            values["model"] = str(Path(self.model).absolute())
        values["plugins"] = [str(path.absolute()) for path in self.plugins]
        return tomli_w.dumps(values)


def parameters(given: Sequence[str], before: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`["montrage.norm=l2"]` -> {"montrage": {"norm": "l2"}}, added to those of a run.toml."""
    merged = {owner: dict(values) for owner, values in before.items()}
    for text in given:
        target, equals, value = text.partition("=")
        owner, dot, name = target.partition(".")
        if not (equals and dot and owner and name):
            raise UsageError(f"--param {text!r}: write it as method.name=value, e.g. montrage.norm=l2")
        merged.setdefault(owner, {})[name] = _value(value)
    return merged


def _value(text: str) -> Any:
    """A value as TOML writes it (1e-3, true, [4, 16]), or else the text itself, so that words need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
