"""The truth of a run as one file: what a machine that never retrained anything needs to score further methods.

A truth is not losses alone. They are those of certain pictures, which came from a certain model, and training that
model again elsewhere gives other bits. So the file holds, for every study, the trained weights, the generated pictures
and the losses of every retrained model, as the artifacts that they are in the store:

    one safetensors file
        tensors     "<key>/<name>": the bytes of each file of each artifact, uint8
                    "looks": JSON, which models scores asked for and which queries were looked at under each
        metadata    "format": "attribench truth 2"; "sha256": JSON, the digest of each tensor by its name

A key is made of all that an artifact depends on, so the file needs no description of the run: whoever imports it says
which run they want to make (a run.toml), and only artifacts that this run can ask for are taken. Where retraining depends on
scores (leave-k-out, within-concept) these are the ones of the methods that were exported: a method that asks for the same
models finds them, and another retrains its own. The file comes from a stranger: sizes are bounded before anything is read,
nothing in it is executed or unpickled, no name in it becomes a path that was not expected, and every artifact is parsed and
checked before the first one is stored. Digests find damage; who made the file, they do not say.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attribench.engine.steps import Job
from attribench.engine.store import ArtifactStore
from attribench.errors import StoreError, UsageError
from attribench.files.whole import whole_file
from attribench.run.truth_artifacts import Expected, expected, further_looks, looks_from_json, looks_to_json

if TYPE_CHECKING:
    from safetensors import safe_open

    from attribench.run.prepared import Prepared

FORMAT = "attribench truth 2"
FILE_LIMIT = 4 * 2**30
HEADER_LIMIT = 64 * 2**20
LOOKS = "looks"
LOOKS_LIMIT = 256 * 2**20


def export(prepared: Prepared, path: Path) -> str:
    """Write the truth of a finished run to one file, whole or not at all; its sha256.

    Raises UsageError for what was not made yet, and for a protocol that retrains nothing.
    """
    from safetensors.numpy import save_file

    store, further = prepared.store, further_looks(prepared)
    tensors = {LOOKS: np.frombuffer(looks_to_json(further), dtype=np.uint8)}
    for artifact in expected(prepared, further):
        if not store.has(artifact.key):
            if artifact.needed:
                raise UsageError(f"{artifact.step} is not in the store {store.root}: do the run first, then export its truth")
            continue
        store.verify(artifact.key)
        for name in store.manifest(artifact.key)["files"]:
            if name not in artifact.limits:
                raise StoreError(f"{artifact.step} holds {name}, which no truth has; choose another --store and run again")
            data = (store.path(artifact.key) / name).read_bytes()
            tensors[f"{artifact.key}/{name}"] = np.frombuffer(data, dtype=np.uint8)
    digests = {name: hashlib.sha256(tensor.tobytes()).hexdigest() for name, tensor in tensors.items()}
    with whole_file(path) as aside:
        save_file(tensors, aside, metadata={"format": FORMAT, "sha256": json.dumps(digests)})
        with open(aside, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def import_(prepared: Prepared, path: Path) -> tuple[int, int]:
    """Put the artifacts of a file into the store of a run; how many there are, and how many of these are new to it.

    Raises UsageError for a file that is no truth, is damaged, or is the truth of other studies than the run's, and
    StoreError where the store holds another model, picture or loss under the same key. Nothing is stored then.
    """
    store = prepared.store
    known, found = _read(path, prepared)
    missing = [artifact for artifact in known.values() if artifact.needed and artifact.key not in found]
    if missing:
        raise UsageError(
            f"{path} is the truth of another study: it lacks {len(missing)} of the {len(known)} artifacts that this run "
            f"needs, the first is that of {missing[0].step}; give the run.toml that it was made with"
        )
    new = [key for key in found if not store.has(key)]
    for key, files in found.items():
        if store.has(key):
            _require_same(store, known[key], files)
        _require_sound(path, known[key], files)
    for key in new:
        _commit(store, known[key], found[key])
    return len(found), len(new)


# ---------------------------------------------------------------------------------------- reading


def _read(path: Path, prepared: Prepared) -> tuple[dict[str, Expected], dict[str, dict[str, bytes]]]:
    """What the file may hold, and the files of each artifact in it, their digests checked; both by key."""
    from safetensors import SafetensorError, safe_open

    _require_bounded(path)
    found: dict[str, dict[str, bytes]] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise UsageError(f"{path} is no truth file ({FORMAT}); make one with `attribench truth export`")
            digests, names = json.loads(metadata["sha256"]), set(file.keys())
            if LOOKS not in names:
                raise UsageError(f"{path} does not say which models were looked at; get the file again")
            known = _known(path, prepared, _content(path, file, LOOKS, LOOKS_LIMIT, digests), len(names))
            for name in sorted(names - {LOOKS}):
                key, _, file_name = name.partition("/")
                if key not in known or file_name not in known[key].limits:
                    raise UsageError(
                        f"{path} is the truth of another study: it holds {name!a}, which this run does not ask for; "
                        "give the run.toml that it was made with"
                    )
                found.setdefault(key, {})[file_name] = _content(path, file, name, known[key].limits[file_name], digests)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} cannot be read as a truth file: {_short(error)}; get it again") from error
    return known, found


def _content(path: Path, file: safe_open, name: str, limit: int, digests: Mapping[str, str]) -> bytes:
    shape, kind = file.get_slice(name).get_shape(), file.get_slice(name).get_dtype()
    if len(shape) != 1 or kind != "U8" or shape[0] > limit:
        raise UsageError(f"{path}: {name} is {kind} {shape}, which no truth holds; get the file again")
    data = file.get_tensor(name).tobytes()
    if hashlib.sha256(data).hexdigest() != digests.get(name):
        raise UsageError(f"{path}: {name} is not what was exported; get the file again")
    return data


def _known(path: Path, prepared: Prepared, looks: bytes, n_names: int) -> dict[str, Expected]:
    """What the run can ask for together with the looks of the file."""
    try:
        further = looks_from_json(looks, prepared)
        if sum(map(len, further.values())) > n_names:
            raise UsageError("it names more looks than it holds")
        return {artifact.key: artifact for artifact in expected(prepared, further)}
    except UsageError as error:
        raise UsageError(f"{path}: {error}; give the run.toml that it was made with") from error


def _require_bounded(path: Path) -> None:
    if not path.is_file():
        raise UsageError(f"there is no file {path}; give one that `attribench truth export` wrote")
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            header = struct.unpack("<Q", stream.read(8))[0]
    except (OSError, struct.error) as error:
        raise UsageError(f"{path} cannot be read as a truth file: {_short(error)}; get it again") from error
    if size > FILE_LIMIT or header > HEADER_LIMIT:
        raise UsageError(f"{path} has {size:,} bytes and a header of {header:,}: no truth file is as large; get it again")


def _require_sound(path: Path, artifact: Expected, files: Mapping[str, bytes]) -> None:
    """Each file is there and is what it is called."""
    absent = [name for name in artifact.limits if name not in files]
    if absent:
        raise UsageError(f"{path}: {artifact.step} lacks {absent[0]}; get the file again")
    for name, data in files.items():
        try:
            artifact.check(name, data)
        except Exception as error:  # whatever a parser makes of a stranger's bytes
            raise UsageError(f"{path}: {name} of {artifact.step} {_short(error)}; get the file again") from error


def _require_same(store: ArtifactStore, artifact: Expected, files: Mapping[str, bytes]) -> None:
    own = store.manifest(artifact.key)["files"]
    if {name: file["sha256"] for name, file in own.items()} != {n: hashlib.sha256(d).hexdigest() for n, d in files.items()}:
        raise StoreError(
            f"the store {store.root} has another {artifact.output} of {artifact.step} already, made here or elsewhere; "
            "losses hold for one model alone: choose another --store"
        )


def _commit(store: ArtifactStore, artifact: Expected, files: Mapping[str, bytes]) -> None:
    claim = store.claim(artifact.key)
    try:
        claim.discard()
        claim.folder.mkdir(exist_ok=True)
        for name, data in files.items():
            (claim.folder / name).write_bytes(data)
        step = artifact.step
        store.commit(
            claim,
            {
                "step": step.name,
                "title": str(step),
                "output": artifact.output,
                "parents": Job.of(step, "cpu").parents(artifact.output),
                "device": "imported",
                "cost": {"seconds": 0.0, "peak_bytes": 0},
                "resumed": True,  # so that no estimate is made from it
                "versions": {},
            },
        )
    finally:
        claim.release()


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text.startswith(("holds", "has")) else f"cannot be parsed ({text[:200]})"
