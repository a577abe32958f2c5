"""The record of a run: one typed row per method × variant × metric, and the values of every query beside it.

    record.parquet      the rows; `params` is JSON text
    per_query.parquet   method, tuning, variant, metric, study, query_id, region, method_seed, value, chance, ceiling;
                        tuning is empty for a method with nothing to tune, region for a query attributed as a whole

A record is checked when it is written and when it is read: types, columns, and what must hold of any such numbers
(a correlation lies in [-1, 1], recall@K does not fall as K grows, an interval holds its value …). What each metric's
bounds are, and whether it can fall as K grows, the metric's class says (`bounds`, `grows_with_k`).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic

from attribench import plugins
from attribench.data import Edition, Split
from attribench.errors import MethodError, StoreError, UsageError
from attribench.files.whole import whole_file
from attribench.measurement import Metric

RECORD = "record.parquet"
PER_QUERY = "per_query.parquet"
ROUNDING = 1e-9
COSTS = ("fit_seconds", "query_seconds", "peak_bytes", "bytes_per_train_image", "extra_training_seconds")
Standing = Literal["tuned", "default", "oracle"]
"""Which candidate of a tuned method a row shows: `attribench.run.tuning` says how each is chosen."""


class Row(pydantic.BaseModel):
    """One method, variant and metric. What is not known, or not defined, is None (null in every format)."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: str
    params: dict[str, Any]
    """The method's fields, "auto" made concrete; of a tuned method, those of the candidate that the row shows."""
    tuning: Standing | None = None
    """Which candidate of a tuned method the row shows; None for a method with nothing to tune."""
    control: bool
    plugin: str
    """Where the method came from: "attribench-diffusion 0.1.0", or "file NAME.py sha256:…"."""
    dataset: str
    edition: Edition
    protocol: str
    n_concepts: int | None = None
    """Concepts that each model was taught, where the protocol teaches several."""
    variant: str
    split: Split
    region: str | None = None
    """Of runs that attribute a box of the pictures: "x,y,w,h" in pixels if it is one for all, else "per query"."""
    metric: str
    value: float | None = None
    """Mean over queries, each averaged over the method's seeds."""
    low: float | None = None
    high: float | None = None
    """95 % interval, clustered by study; None over one study, unless what was drawn within it gives one."""
    chance: float | None = None
    """The expected value of a method that ranks at random, over the same queries."""
    ceiling: float | None = None
    """The best that can be expected, from a method that knows the truth, over the same queries; None if not known."""
    rank: int | None = None
    """1 + the number of methods that are better beyond doubt; None over one study, and for default and oracle."""
    n_queries: int = 0
    n_studies: int = 0
    seed: int
    n_models: int = 1
    """Models of each study that the method could read: checkpoints times seeds."""
    fit_seconds: float | None = None
    """With the features of training images that it shares with other methods."""
    query_seconds: float | None = None
    """Of one query, with its features, and with all candidates if it was tuned."""
    peak_bytes: int | None = None
    bytes_per_train_image: float | None = None
    extra_training_seconds: float | None = None
    """Of the trainings by further seeds that its ensemble needs, a study."""
    device: str
    status: Literal["ok", "unavailable", "failed"]
    reason: str | None = None
    """Why it is unavailable or failed."""

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _undefined_is_none(cls, value: Any) -> Any:
        return None if value is pd.NA or (isinstance(value, float) and math.isnan(value)) else value

    @pydantic.field_validator("params", mode="before")
    @classmethod
    def _from_json(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value  # as record.parquet holds it

    @property
    def label(self) -> str:
        """The method as tables and pictures name it: with its encoder, if it has one, and how it was tuned."""
        encoder = self.params.get("encoder")
        said = [word for word in (encoder, self.tuning) if isinstance(word, str) and word]
        return f"{self.method} ({', '.join(said)})" if said else self.method

    @property
    def competes(self) -> bool:
        """Whether it is ranked and compared with other methods."""
        return self.tuning in (None, "tuned")


PER_QUERY_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("method", "tuning", "variant", "metric", "study", "query_id", "region")]
    + [("method_seed", pa.int64()), ("value", pa.float64()), ("chance", pa.float64()), ("ceiling", pa.float64())]
)


def schema() -> pa.Schema:
    """The columns of record.parquet, from the fields of `Row`; a field that is neither number nor truth is text."""
    types = {float: pa.float64(), int: pa.int64(), bool: pa.bool_()}
    columns = []
    for name, info in Row.model_fields.items():
        kinds = [kind for kind in (info.annotation, *get_args(info.annotation)) if kind in types]
        columns.append((name, types[kinds[0]] if kinds else pa.string()))
    return pa.schema(columns)


# ---------------------------------------------------------------------------------- writing, reading


def write(rows: Sequence[Row], per_query: pd.DataFrame, folder: Path) -> None:
    """Write record.parquet and per_query.parquet, each whole or not at all; the record comes last.

    Raises StoreError if the rows break an invariant or cannot be written.
    """
    check(rows)
    for file, table in ((PER_QUERY, per_query_table(per_query)), (RECORD, record_table(rows))):
        with whole_file(Path(folder) / file) as path:
            pq.write_table(table, path)


def record_table(rows: Sequence[Row]) -> pa.Table:
    """The rows as record.parquet holds them."""
    return pa.Table.from_pylist([row.model_dump() | {"params": _params_text(row)} for row in rows], schema=schema())


def per_query_table(per_query: pd.DataFrame) -> pa.Table:
    """The values of every query as per_query.parquet holds them."""
    columns = per_query.reindex(columns=PER_QUERY_SCHEMA.names)  # no method ran: no columns
    return pa.Table.from_pandas(columns, PER_QUERY_SCHEMA, preserve_index=False)


def read(folder: Path) -> list[Row]:
    """The rows of a run folder, checked.

    Raises UsageError if it holds no record, StoreError for one that is damaged, of another version, or impossible.
    """
    path = Path(folder) / RECORD
    return rows_of(_read_table(path, schema()), path)


def rows_of(table: pa.Table, path: Path | str) -> list[Row]:
    """The rows of a record's table, checked. Raises StoreError, naming `path`, for one that cannot be a record."""
    try:
        rows = [Row.model_validate(values) for values in table.to_pylist()]
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise StoreError(f"{path}: {first['loc'][0]} = {first['input']!r}: {first['msg']}; run its run.toml again") from error
    check(rows)
    return rows


def read_per_query(folder: Path) -> pd.DataFrame:
    """The values of every query of a run folder. Raises like `read`."""
    return _read_table(Path(folder) / PER_QUERY, PER_QUERY_SCHEMA).to_pandas()


def _params_text(row: Row) -> str:
    return json.dumps(row.model_dump(mode="json", include={"params"})["params"], sort_keys=True)


def _read_table(path: Path, schema: pa.Schema) -> pa.Table:
    if not path.is_file():
        raise UsageError(f"there is no {path}; give the folder of a finished run")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        cause = str(error).partition("\n")[0]
        raise StoreError(f"{path} cannot be read ({cause}); run its run.toml again") from error
    if set(table.column_names) != set(schema.names):
        differing = ", ".join(sorted(set(table.column_names) ^ set(schema.names)))
        raise StoreError(
            f"{path} was written by another version of attribench (columns that differ: {differing}); run its run.toml again"
        )
    return table


# -------------------------------------------------------------------------------------- invariants


def check(rows: Iterable[Row]) -> None:
    """Raise StoreError, naming the row, unless the rows can be the numbers of a run."""
    at_k: dict[tuple[str | None, ...], list[tuple[int, Row]]] = defaultdict(list)
    seen = set()
    for row in rows:
        key = (row.method, _params_text(row), row.tuning, row.variant, row.split, row.metric)
        if key in seen:
            raise _impossible(row, "comes twice")
        seen.add(key)
        _check_status(row)
        _check_numbers(row)
        family, at, k = row.metric.partition("@")
        if at and k.isdigit() and row.value is not None and metric_class(row.metric).grows_with_k:
            at_k[(*key[:-1], family)].append((int(k), row))
    for found in at_k.values():
        found.sort(key=lambda pair: pair[0])
        for (_, fewer), (_, more) in zip(found, found[1:], strict=False):
            if more.value < fewer.value - ROUNDING:
                raise _impossible(more, f"is below {fewer.metric} = {fewer.value}")


def _check_status(row: Row) -> None:
    if row.status == "ok":
        return
    if not row.reason:
        raise _impossible(row, f"is {row.status} without a reason")
    if any(number is not None for number in (row.value, row.low, row.high, row.rank)):
        raise _impossible(row, f"is {row.status} and yet has numbers")


def _check_numbers(row: Row) -> None:
    smallest, largest = metric_class(row.metric).bounds
    for name in ("value", "low", "high", "chance", "ceiling"):
        number = getattr(row, name)
        if number is not None and not smallest - ROUNDING <= number <= largest + ROUNDING:
            raise _impossible(row, f"has {name} {number} outside [{smallest}, {largest}]")
    if (row.low is None) != (row.high is None) or (row.low is not None and row.value is None):
        raise _impossible(row, "has half an interval")
    if row.low is not None and not row.low - ROUNDING <= row.value <= row.high + ROUNDING:
        raise _impossible(row, f"has the interval [{row.low}, {row.high}] around {row.value}")
    if row.rank is not None and (row.rank < 1 or not row.competes):
        raise _impossible(row, f"has rank {row.rank}" + ("" if row.competes else f", though it shows the {row.tuning} values"))
    for name in ("n_queries", "n_studies", "n_models", *COSTS):
        if (getattr(row, name) or 0) < 0:
            raise _impossible(row, f"has {name} = {getattr(row, name)}")


def metric_class(name: str) -> type[Metric]:
    """The plugin behind "recall@5" or "average_precision"; one that is not installed here bounds nothing."""
    plugin = plugins.all_plugins("metric").get(name.partition("@")[0])
    try:
        return plugin.load() if plugin else Metric
    except MethodError:
        return Metric


def _impossible(row: Row, what: str) -> StoreError:
    return StoreError(
        f"the record cannot be right: {row.metric} of {row.method} ({row.variant}) {what}; run it again, and report it "
        "if it comes back"
    )
