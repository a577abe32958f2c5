"""A stranger's json, safetensors and parquet, in memory: looked at before they are parsed, and bounded in every direction."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Container, Mapping
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attribench.submissions.container import Refused

JSON_LIMIT = 8 * 2**20
DEPTH_LIMIT = 16
HEADER_LIMIT = 8 * 2**20
ROWS_LIMIT = 5_000_000
ROW_GROUPS_LIMIT = 64
COLUMNS_LIMIT = 64
_TYPES = {"F32": np.float32, "F64": np.float64, "U8": np.uint8, "I64": np.int64}
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_PARQUET = {"compression": "none", "use_dictionary": False, "write_statistics": False, "data_page_version": "1.0"}
_ENCODINGS = {"PLAIN", "RLE"}


def json_of(data: bytes, what: str) -> Any:
    """A JSON value of bounded size and depth, without NaN and without keys that come twice."""
    if len(data) > JSON_LIMIT:
        raise Refused(f"{what} has {len(data):,} bytes, more than the {JSON_LIMIT:,} allowed")
    depths = accumulate(1 if bracket in b"[{" else -1 for bracket in re.findall(rb"[\[\]{}]", _STRING.sub(b"", data)))
    if (deepest := max(depths, default=0)) > DEPTH_LIMIT:
        raise Refused(f"{what} is nested {deepest} deep, more than the {DEPTH_LIMIT} allowed")
    try:
        return json.loads(data, object_pairs_hook=_once, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{what} is no JSON that can be read ({str(error)[:80]!a})") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no finite number")
    return number


def tensors_of(data: bytes, what: str, *, undefined: Container[str] = ()) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a safetensors file, and its metadata, each parsed as JSON.

    All floats are finite, but that arrays whose name is in `undefined` may hold NaN.
    """
    header, start = _header(data, what)
    about = header.pop("__metadata__", {})
    if not isinstance(about, Mapping) or not all(isinstance(text, str) for text in about.values()):
        raise Refused(f"{what} has metadata that are no texts")
    arrays, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: _offsets(item[1], what)):
        begin, stop = _offsets(entry, what)
        shape, kind = entry.get("shape"), _TYPES.get(str(entry.get("dtype")))
        sized = isinstance(shape, list) and len(shape) <= 3 and all(type(n) is int and 0 <= n < 2**31 for n in shape)
        if kind is None or not sized:
            raise Refused(f"{what}: {name[:60]!a} is no array that a submission holds")
        if begin != end or stop - begin != math.prod(shape) * np.dtype(kind).itemsize or start + stop > len(data):
            raise Refused(f"{what}: {name[:60]!a} does not lie where its header says")
        array = np.frombuffer(data, dtype=kind, count=math.prod(shape), offset=start + begin).reshape(shape)
        if array.dtype.kind == "f" and (bad := np.isinf(array) if name in undefined else ~np.isfinite(array)).any():
            raise Refused(f"{what}: {name[:60]!a} holds {int(bad.sum())} numbers that are NaN or infinite")
        arrays[name], end = array, stop
    if start + end != len(data):
        raise Refused(f"{what} holds more than its header says")
    return arrays, {name: json_of(text.encode(), f"{what}: {name[:60]!a}") for name, text in about.items()}


def safetensors_bytes(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> bytes:
    """What `tensors_of` reads. The library orders metadata as chance has it; here the same arrays give the same bytes."""
    kinds = {np.dtype(kind): name for name, kind in _TYPES.items()}
    header: dict[str, Any] = {"__metadata__": {name: json.dumps(about[name]) for name in sorted(about)}}
    offset = 0
    for name in sorted(arrays):
        array = arrays[name]
        header[name] = {
            "dtype": kinds[array.dtype], "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes],
        }  # fmt: skip
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    blocks = [np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays)]
    return struct.pack("<Q", len(text)) + text + b"".join(blocks)


def _header(data: bytes, what: str) -> tuple[dict[str, Any], int]:
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else HEADER_LIMIT + 1
    if length > min(HEADER_LIMIT, len(data) - 8):
        raise Refused(f"{what} has a header that is too long")
    header = json_of(data[8 : 8 + length], f"the header of {what}")
    if not isinstance(header, dict):
        raise Refused(f"{what} has a header that is no object")
    return header, 8 + length


def _offsets(entry: Any, what: str) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int and 0 <= n < 2**40 for n in offsets):
        raise Refused(f"{what} has a header whose offsets cannot be read")
    return offsets[0], offsets[1]


def parquet_bytes(table: pa.Table) -> bytes:
    """A table in the only form of parquet that `table_of` reads: one row group, plain, not compressed."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, row_group_size=max(table.num_rows, 1), **_PARQUET)
    return buffer.getvalue().to_pybytes()


def table_of(data: bytes, schema: pa.Schema, what: str) -> pa.Table:
    """A parquet table of just these columns and types. Nothing in it is compressed, so nothing can expand."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data), thrift_string_size_limit=2**20, thrift_container_size_limit=2**14)
        about = file.metadata
        if about.num_rows > ROWS_LIMIT or about.num_columns > COLUMNS_LIMIT or about.num_row_groups > ROW_GROUPS_LIMIT:
            raise Refused(f"{what} has {about.num_rows:,} rows and {about.num_columns} columns, more than allowed")
        if not file.schema_arrow.equals(schema):
            differing = sorted(set(map(str, file.schema_arrow)) ^ set(map(str, schema)))
            raise Refused(f"{what} has other columns or types ({', '.join(differing)[:200]!a}); it is of another version")
        for number in range(about.num_row_groups):
            group = about.row_group(number)
            for column in (group.column(i) for i in range(group.num_columns)):
                if column.compression != "UNCOMPRESSED" or not set(column.encodings) <= _ENCODINGS:
                    raise Refused(f"{what} is compressed or encoded; it must be as `attribench submit` writes it")
                if column.num_values > ROWS_LIMIT or column.total_uncompressed_size > len(data):
                    raise Refused(f"{what} says that it is larger than it is")
        table = file.read(use_threads=False)
        table.validate(full=True)
        return table
    except Refused:
        raise
    except Exception as error:  # whatever Arrow makes of a stranger's bytes
        raise Refused(f"{what} cannot be read as parquet ({type(error).__name__})") from error
