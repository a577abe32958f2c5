"""1,300 seeded mutations of a valid file: none is accepted with a changed number, none crashes the verifier or writes."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest

from attribench.submissions import container
from attribench.submissions.container import PER_QUERY, RECORD, STATEMENT
from attribench.submissions.pack import submission_of

RAW, RESEALED = 1000, 300
COMPUTED = ("value", "low", "high", "chance", "ceiling", "rank", "n_queries", "n_studies")


@pytest.fixture(scope="module")
def small(run_folder: Path) -> bytes:
    """One method and the controls whose value is known."""
    return submission_of(run_folder, methods=["pixel"])


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bits flipped, runs overwritten, cut, doubled, moved; somewhere, or where a zip keeps its structure."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 8])):
        near_end = chance.random() < 0.3
        at = len(changed) - 1 - chance.randrange(min(len(changed), 2500)) if near_end else chance.randrange(len(changed))
        length = chance.choice([1, 1, 2, 4, 8, 64, 1000])
        kind = chance.randrange(6)
        if kind == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at : at + length] = chance.choice([b"\0", b"\xff", b"9", chance.randbytes(1)]) * length
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length]
        elif kind == 4:
            other = chance.randrange(len(changed))
            changed[at : at + length] = changed[other : other + length]
        else:
            changed[at : at + length] = chance.randbytes(length)
        if not changed:
            return b""
    return bytes(changed)


def renumbered(text: bytes, chance: random.Random) -> bytes:
    """Another number, or a piece of another kind, in a JSON text."""
    numbers = list(re.finditer(rb"-?\d+(\.\d+)?|true|false|null|\"[^\"]*\"", text))
    found = chance.choice(numbers)
    odd = [b"0", b"-1", b"1e308", b"NaN", b"99999999999999999999", b"null", b"[]", b'"\\u202e"', b"true", b'"../x"']
    value = chance.choice(odd)
    return text[: found.start()] + value + text[found.end() :]


def forged(members: dict[str, bytes], chance: random.Random) -> dict[str, bytes]:
    """A member changed by somebody who knows the format and seals the file again."""
    name = chance.choice([STATEMENT, RECORD, PER_QUERY, *members])
    content = members[name]
    kind = chance.randrange(4)
    if name == STATEMENT and kind:
        content = renumbered(content, chance)
    elif name.endswith(".safetensors") and kind == 1:
        start = 8 + int.from_bytes(content[:8], "little")
        at = chance.randrange(start, len(content) - 8)
        content = content[:at] + np.float32(chance.choice([1e9, -1.0, np.nan, np.inf, 0.5])).tobytes() + content[at + 4 :]
    elif kind == 2:
        return {n: c for n, c in members.items() if n != name}
    elif kind == 3:
        other = chance.choice(list(members))
        return members | {name: members[other], other: content}
    else:
        content = mutated(content, chance)
    return members | {name: content}


def shown(rows: list) -> list[tuple]:
    return [(row.method, row.variant, row.metric, *(getattr(row, name) for name in COMPUTED)) for row in rows]


def test_no_changed_byte_is_accepted(verdict, small):
    assert verdict(small).accepted
    chance = random.Random(7)
    for _ in range(RAW):
        data = mutated(small, chance)
        if data != small:
            found = verdict(data)
            assert not found.accepted and found.rows == [] and len(found.reasons[0]) < 600


def test_no_forgery_that_is_sealed_again_shows_another_number(verdict, small, tmp_path):
    with_names = container.read(write(tmp_path / "small.zip", small))
    honest = shown(verdict(small).rows)
    chance = random.Random(11)
    folder = {path for path in tmp_path.rglob("*")}
    accepted = 0
    for _ in range(RESEALED):
        members = forged(with_names, chance)
        found = verdict(members)
        assert all(reason.isprintable() and len(reason) < 600 for reason in found.reasons)
        if found.accepted:
            accepted += 1
            assert shown(found.rows) == honest
    assert accepted < RESEALED / 4  # a date, a duration: what is the submitter's to state
    assert {path for path in tmp_path.rglob("*")} == folder and not os.path.exists("x")


def test_a_forged_statement_is_still_json_that_can_be_read(small, tmp_path):
    """The fuzzer does reach behind the parser: most of its statements are well-formed."""
    members = container.read(write(tmp_path / "small.zip", small))
    chance = random.Random(3)
    readable = 0
    for _ in range(50):
        try:
            json.loads(renumbered(members[STATEMENT], chance))
            readable += 1
        except ValueError:
            continue
    assert readable > 20


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
