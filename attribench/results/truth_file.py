"""The truth of a run as one file: what a machine that never retrained anything needs to score further methods.

A truth is not losses alone. They are those of certain pictures, which came from a certain model, and training that
model again elsewhere gives other bits. So the file holds, for every study, the trained weights, the generated pictures
and the losses of every retrained model, as the artifacts that they are in the store:

    one safetensors file
        tensors     "<key>/<name>": the bytes of each file of each artifact, uint8
        metadata    "format": "attribench truth 1"; "sha256": JSON, the digest of each tensor by its name

A key is made of all that an artifact depends on, so the file needs no description of the run: whoever imports it says
which run they want to make (a run.toml), and only artifacts that this run asks for are taken. The file comes from a
stranger: sizes are bounded before anything is read, nothing in it is executed or unpickled, no name in it becomes a path
that was not expected, and every artifact is parsed and checked before the first one is stored. Digests find damage; who
made the file, they do not say.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attribench.engine.steps import Job, Step
from attribench.engine.store import ArtifactStore
from attribench.errors import StoreError, UsageError
from attribench.study.generated import picture_name
from attribench.study.losses import LOSSES, TakenLosses
from attribench.study.runs import StudySteps
from attribench.study.steps import WEIGHTS

if TYPE_CHECKING:
    from attribench.job import Prepared

FORMAT = "attribench truth 1"
FILE_LIMIT = 4 * 2**30
HEADER_LIMIT = 64 * 2**20
PICTURE_LIMIT = 64 * 2**20
SMALL_LIMIT = 16 * 2**20
"""Bytes of a file of numbers or of text."""
WEIGHTS_LIMIT = 2**30
PIXEL_LIMIT = 2**26


@dataclass(frozen=True)
class Expected:
    """An artifact that a truth consists of."""

    step: Step
    output: str
    needed: bool
    """Whether a file without it is refused; what only tuning needs may be absent."""
    limits: Mapping[str, int]
    """Its files, and how many bytes each may have."""
    check: Callable[[str, bytes], None]
    """Raises ValueError for a file that cannot be what it is called."""

    @property
    def key(self) -> str:
        """In the store."""
        return self.step.keys[self.output]


def expected(prepared: Prepared) -> list[Expected]:
    """The artifacts that the truth of a run consists of, with those that only tuning needs.

    Raises UsageError for a protocol that retrains nothing, or whose retraining depends on the scores, as it does where
    pictures are generated again.
    """
    artifacts = []
    for plan in prepared.plans:
        requests = prepared.protocol.retrainings(plan)
        if not requests or any(request.encoder is not None for request in requests):
            raise UsageError(
                f"the truth of {prepared.protocol.name} is in no retrained models that are known beforehand; "
                "there is nothing to exchange"
            )
        study = prepared.studies[plan.id]
        artifacts += _of_study(study, list(TakenLosses.of_all(study, requests, prepared.store.has).values()))
    return artifacts


def _of_study(study: StudySteps, taken: Sequence[TakenLosses]) -> list[Expected]:
    """A study's model, its pictures, and the losses of all models."""
    plan, trained = study.plan, study.trainings[0]
    pictures = {picture_name(number): PICTURE_LIMIT for number in range(len(plan.cases))} | {"cases.json": SMALL_LIMIT}
    artifacts = [
        Expected(trained, "weights", True, {WEIGHTS: WEIGHTS_LIMIT, "losses.npy": SMALL_LIMIT}, _check_weights),
        Expected(study.pictures, "pictures", True, pictures, _check_picture),
    ]
    for of_role in taken:
        losses = [*of_role.full.items(), *((look.queries, ref) for look, ref in of_role.losses.items())]
        needed = of_role.request.role == "query"
        for queries, ref in losses:
            artifacts.append(Expected(ref.step, ref.output, needed, {LOSSES: SMALL_LIMIT}, _losses_check(len(queries))))
    return artifacts


def _losses_check(n_queries: int) -> Callable[[str, bytes], None]:
    def check(name: str, data: bytes) -> None:
        losses = _numbers(data)
        if losses.shape != (n_queries,) or losses.dtype != np.float64 or not np.isfinite(losses).all():
            raise ValueError(f"holds {losses.dtype} {losses.shape}, not {n_queries} finite losses")

    return check


def export(artifacts: Sequence[Expected], store: ArtifactStore, path: Path) -> str:
    """Write the artifacts to one file, whole or not at all; its sha256. Raises UsageError for what was not made yet."""
    from safetensors.numpy import save_file

    from attribench.results.whole_file import whole_file

    tensors: dict[str, np.ndarray] = {}
    for artifact in artifacts:
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


def import_(artifacts: Sequence[Expected], store: ArtifactStore, path: Path) -> int:
    """Put the artifacts of a file into the store; how many were not there yet.

    Raises UsageError for a file that is no truth, is damaged, or is the truth of other studies than `artifacts`, and
    StoreError where the store holds another model, picture or loss under the same key. Nothing is stored then.
    """
    known = {artifact.key: artifact for artifact in artifacts}
    found = _read(path, known)
    missing = [a for a in artifacts if a.needed and a.key not in found]
    if missing:
        raise UsageError(
            f"{path} is the truth of another study: it lacks {len(missing)} of the {len(artifacts)} artifacts that this run "
            f"needs, the first is that of {missing[0].step}; give the run.toml that it was made with"
        )
    new = {}
    for key, files in found.items():
        artifact = known[key]
        if store.has(key):
            _require_same(store, artifact, files)
        else:
            new[key] = files
        _require_sound(path, artifact, files)
    for key, files in new.items():
        _commit(store, known[key], files)
    return len(new)


# ---------------------------------------------------------------------------------------- reading


def _read(path: Path, known: Mapping[str, Expected]) -> dict[str, dict[str, bytes]]:
    """The files of each artifact, their digests checked."""
    from safetensors import SafetensorError, safe_open

    _require_bounded(path)
    found: dict[str, dict[str, bytes]] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise UsageError(f"{path} is no truth file ({FORMAT}); make one with `attribench truth export`")
            digests = json.loads(metadata["sha256"])
            names = file.keys()
            for name in names:
                key, _, file_name = name.partition("/")
                if key not in known or file_name not in known[key].limits:
                    raise UsageError(
                        f"{path} is the truth of another study: it holds {name!a}, which this run does not ask for; "
                        "give the run.toml that it was made with"
                    )
                shape, kind = file.get_slice(name).get_shape(), file.get_slice(name).get_dtype()
                if len(shape) != 1 or kind != "U8" or shape[0] > known[key].limits[file_name]:
                    raise UsageError(f"{path}: {name} is {kind} {shape}, which no truth holds; get the file again")
                data = file.get_tensor(name).tobytes()
                if hashlib.sha256(data).hexdigest() != digests.get(name):
                    raise UsageError(f"{path}: {name} is not what was exported; get the file again")
                found.setdefault(key, {})[file_name] = data
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} cannot be read as a truth file: {_short(error)}; get it again") from error
    return found


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


# --------------------------------------------------------------------------------------- checking


def _numbers(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def _check_weights(name: str, data: bytes) -> None:
    from safetensors.numpy import load

    arrays = load(data).values() if name == WEIGHTS else [_numbers(data)]
    if any(array.dtype != np.float32 or not np.isfinite(array).all() for array in arrays):
        raise ValueError("holds what is no finite float32 number")


def _check_picture(name: str, data: bytes) -> None:
    from PIL import Image

    if name == "cases.json":
        json.loads(data)
        return
    picture = Image.open(io.BytesIO(data), formats=("PNG",))
    if picture.width * picture.height > PIXEL_LIMIT:
        raise ValueError(f"has {picture.width} × {picture.height} pixels, more than any model makes")
    picture.convert("RGB")


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text.startswith(("holds", "has")) else f"cannot be parsed ({text[:200]})"
