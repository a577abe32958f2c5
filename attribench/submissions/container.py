"""The container of a submission: a zip of stored members in one canonical form, so that every byte is accounted for.

    SHA256SUMS          the digest of every other member, one a line, sorted by name
    submission.json     what was run on what, where, by which methods
    record.parquet      the rows; per_query.parquet the values behind them
    scores/<method>/<study>-seed<n>.safetensors
    truth/<study>.safetensors

Nothing is compressed, so nothing can expand. Nothing is unpacked to disk, so no name becomes a path. A file is read only if
packing its members again gives the same bytes: no link, comment, gap, overlap, twin or hidden member survives that.
"""

from __future__ import annotations

import hashlib
import io
import re
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

from attribench.files.fields import WORD_FORM

SUMS = "SHA256SUMS"
STATEMENT = "submission.json"
RECORD = "record.parquet"
PER_QUERY = "per_query.parquet"
SUFFIX = ".submission.zip"

FILE_LIMIT = 512 * 2**20
MEMBER_LIMIT = 128 * 2**20
MEMBERS_LIMIT = 20_000
NAME = re.compile(
    rf"{SUMS}|submission\.json|record\.parquet|per_query\.parquet|(scores/{WORD_FORM}|truth)/{WORD_FORM}\.safetensors"
)
_END = struct.Struct("<4s4H2LH")
"""A zip's last record: signature, disk numbers, entries here, entries, bytes and offset of the directory, comment."""
_ENTRY = 46
"""Bytes of a directory entry, beside its name."""


class Refused(Exception):
    """Why a submission is not accepted: one line."""


def pack(members: Mapping[str, bytes]) -> bytes:
    """One file of these members and their digests; the same members give the same bytes."""
    ordered = dict(sorted(members.items()))
    return _zip({SUMS: b"".join(_sums(ordered)), **ordered})


def read(path: Path) -> dict[str, bytes]:
    """The members of a file, without their digests, which hold. Raises Refused for anything but what `pack` writes."""
    data = _bytes_of(path)
    members = _members(data)
    sums = members.pop(SUMS, None)
    if sums is None or list(members) != sorted(members):
        raise Refused(f"it has no {SUMS}, or its members are out of order; make it with `attribench submit`")
    found = _sums(members)
    if sums != b"".join(found):
        listed = set(sums.split(b"\n", len(members)))
        changed = [name for name, line in zip(members, found, strict=True) if line.rstrip() not in listed]
        raise Refused(f"{changed[0] if changed else SUMS} has changed since it was packed; get the file again")
    if _zip({SUMS: sums, **members}) != data:
        raise Refused("its bytes are not those that `attribench submit` writes; make it again, and edit nothing")
    return members


def _sums(members: Mapping[str, bytes]) -> list[bytes]:
    return [f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode() for name, content in members.items()]


def _bytes_of(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Refused("it is no regular file")
        if status.st_size > FILE_LIMIT:
            raise Refused(f"it has {status.st_size:,} bytes, more than the {FILE_LIMIT:,} allowed")
        with path.open("rb") as stream:
            data = stream.read(FILE_LIMIT + 1)
    except OSError as error:
        raise Refused(f"it cannot be read ({error.strerror})") from error
    if len(data) > FILE_LIMIT:
        raise Refused(f"it has more than the {FILE_LIMIT:,} bytes allowed")
    return data


def _members(data: bytes) -> dict[str, bytes]:
    """The members in their order. The directory's size is known to be small before zipfile reads it."""
    not_ours = "it is no zip of stored members as `attribench submit` writes it"
    if len(data) < _END.size:
        raise Refused(not_ours)
    signature, disk, first_disk, here, n_members, n_bytes, offset, comment = _END.unpack(data[-_END.size :])
    if signature != b"PK\x05\x06" or disk or first_disk or comment or here != n_members:
        raise Refused(not_ours)
    if n_members > MEMBERS_LIMIT:
        raise Refused(f"it has {n_members:,} members, more than the {MEMBERS_LIMIT:,} allowed")
    if offset + n_bytes + _END.size != len(data) or n_bytes > n_members * (_ENTRY + 256):
        raise Refused(not_ours)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            for entry in entries:
                _require_plain(entry)
            if len({entry.filename for entry in entries}) != len(entries):
                raise Refused("two of its members have the same name")
            if sum(entry.file_size for entry in entries) > len(data):
                raise Refused(not_ours)
            return {entry.filename: archive.read(entry) for entry in entries}
    except Refused:
        raise
    except Exception as error:  # zipfile raises anything from BadZipFile to struct.error on damaged data
        raise Refused(f"{not_ours} ({type(error).__name__})") from error


def _require_plain(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    if not NAME.fullmatch(name) or ".." in name:
        raise Refused(f"its member {name[:80]!a} is none that a submission has")
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits:
        raise Refused(f"its member {name} is compressed or encrypted; members are stored as they are")
    if not stat.S_ISREG(entry.external_attr >> 16):
        raise Refused(f"its member {name} is a link or no regular file")
    if entry.file_size > MEMBER_LIMIT:
        raise Refused(f"its member {name} has {entry.file_size:,} bytes, more than the {MEMBER_LIMIT:,} allowed")


def _zip(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, wherever it is packed
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()
