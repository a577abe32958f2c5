"""What is no submission is refused before it is parsed: every byte of the file is accounted for."""

from __future__ import annotations

import io
import os
import stat
import struct
import time
import zipfile
import zlib
from pathlib import Path

import pytest

from attribench.submissions import container
from attribench.submissions.container import Refused, pack, read

MEMBERS = {"submission.json": b"{}", "record.parquet": b"PAR1", "truth/a.safetensors": b"x" * 100}


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "a.submission.zip"
    path.write_bytes(data)
    return path


def zipped(members: dict[str, bytes], **options: object) -> bytes:
    """An ordinary zip, sums included, as anybody would make it."""
    sums = zipfile.ZipFile(io.BytesIO(pack(members))).read(container.SUMS)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, content in {container.SUMS: sums, **members}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_what_is_packed_is_read_and_any_zip_program_opens_it(tmp_path):
    assert read(written(tmp_path, pack(MEMBERS))) == dict(sorted(MEMBERS.items()))
    with zipfile.ZipFile(io.BytesIO(pack(MEMBERS))) as archive:
        assert archive.testzip() is None and archive.namelist()[0] == container.SUMS


def test_the_order_in_which_members_are_given_does_not_matter():
    assert pack(MEMBERS) == pack(dict(reversed(MEMBERS.items())))


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/passwd", "scores/../../x/y.safetensors", "a\\b", "scores/x", "truth/..safetensors", "run.py",
     "truth/a/../b.safetensors", "x\0.json"],
)  # fmt: skip
def test_no_name_leads_anywhere(tmp_path, name):
    with pytest.raises(Refused, match="none that a submission has|as `attribench submit` writes it"):
        read(written(tmp_path, pack(MEMBERS | {name: b"x"})))


def test_a_compressed_member_is_not_expanded(tmp_path):
    """Ten gigabytes of zeros in ten megabytes would take seconds and memory if it were."""
    bomb = zipped({"submission.json": b"0" * 50_000_000}, compression=zipfile.ZIP_DEFLATED)
    started = time.perf_counter()
    with pytest.raises(Refused, match="is compressed"):
        read(written(tmp_path, bomb))
    assert time.perf_counter() - started < 0.5


def test_members_that_overlap_are_refused(tmp_path):
    """The other kind of bomb: many directory entries that share one local file."""
    data = bytearray(zipped({"submission.json": b"0" * 10_000, "record.parquet": b"1" * 10_000}))
    directory = struct.unpack("<L", data[-6:-2])[0]
    first, second = (m for m in (data.find(b"PK\x01\x02", directory), data.rfind(b"PK\x01\x02")))
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    with pytest.raises(Refused):
        read(written(tmp_path, bytes(data)))


def test_a_link_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("submission.json")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(Refused, match="is a link"):
        read(written(tmp_path, buffer.getvalue()))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d + b"x", lambda d: b"x" + d, lambda d: d[:-1], lambda d: d[:-2] + b"\1\0" + b"c", lambda d: b"",
        lambda d: d[:30], lambda d: d[:-22] + b"PK\x05\x06" + b"\xff" * 18, lambda d: os.urandom(5000), lambda d: zipped(MEMBERS),
        lambda d: zlib.compress(d), lambda d: d.replace(b"{}", b"[]"),
    ],
)  # fmt: skip
def test_any_other_bytes_are_refused(tmp_path, change):
    with pytest.raises(Refused):
        read(written(tmp_path, change(pack(MEMBERS))))


def test_a_directory_of_millions_is_refused_before_it_is_read(tmp_path):
    entry = b"PK\x01\x02" + b"\0" * 42
    n = 60_000
    data = entry * n + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, n, n, len(entry) * n, 0, 0)
    with pytest.raises(Refused, match="60,000 members"):
        read(written(tmp_path, data))


def test_the_member_that_was_changed_is_named(tmp_path):
    data = pack(MEMBERS)
    position = data.find(b"x" * 100) + 50
    crc_kept = data[:position] + b"y" + data[position + 1 :]
    with pytest.raises(Refused):
        read(written(tmp_path, crc_kept))
    sums = zipfile.ZipFile(io.BytesIO(data)).read(container.SUMS)
    with pytest.raises(Refused, match="truth/a.safetensors has changed"):
        changed = dict(sorted(MEMBERS.items())) | {"truth/a.safetensors": b"y" * 100}
        read(written(tmp_path, container._zip({container.SUMS: sums, **changed})))


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        with pytest.raises(Refused):
            read(path)


def test_a_file_is_bounded(tmp_path):
    path = tmp_path / "huge"
    with path.open("wb") as stream:
        stream.truncate(container.FILE_LIMIT + 1)
    with pytest.raises(Refused, match="more than the"):
        read(path)
