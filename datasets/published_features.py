"""Feature files of GenDataAttribution: `feats/{encoder}/laion_subset.pth` and `feats/{encoder}/{test case}.pth`.

    laion_subset.pth    {feats [n, d], paths [n]}
    {test case}.pth     {exemplar_paths [e], exemplar_chunks [m] of (start, end), exemplar_tensors [e, d],
                         synth_paths, synth_ids, synth_tensors: {family: [q] paths, [q] numbers of models, [q, d]}}

They are pickles of tensors, as torch.save writes them, and are read with `weights_only=True`: a file that holds anything
but tensors, numbers, text and lists of these is refused, and no code of it is run. Tensors stay in the file and are
mapped, so that a pool of a million rows can be read in blocks.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attribench.files.confined import confined, fault, file_size
from attribench.retrieval.exact import Ranks, ranks

if TYPE_CHECKING:
    from torch import Tensor

FILE_BYTES = 64 * 2**30
REMEDY = "download it again, or make it again with the authors' extract_feat.py"


@dataclass(frozen=True)
class MappedRows:
    """[n, d] features of a tensor that is mapped from its file; what `attribench.retrieval` reads in blocks."""

    path: Path
    tensor: Tensor

    @property
    def n(self) -> int:
        return self.tensor.shape[0]

    @property
    def d(self) -> int:
        return self.tensor.shape[1]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`."""
        return self.tensor[start:stop].numpy()

    def take(self, places: np.ndarray) -> np.ndarray:
        """The rows of these numbers."""
        return self.tensor[places].numpy()


@dataclass(frozen=True)
class PoolFeatures:
    """Features of distractors."""

    rows: MappedRows
    paths: tuple[str, ...]

    @classmethod
    def open(cls, root: Path, file: str) -> PoolFeatures:
        """`feats/clip/laion_subset.pth` below a root. Raises FileFault, in one line, for a file that is not in the layout."""
        content = _loaded(root, file, {"feats", "paths"})
        features, paths = _features(file, "feats", content["feats"]), _paths(file, "paths", content["paths"])
        _require(file, len(paths) == len(features), f"names {len(paths)} pictures, and has features of {len(features)}")
        return cls(MappedRows(confined(root, file), features), paths)


@dataclass(frozen=True)
class CaseFeatures:
    """Features of the models of one test case: of their exemplars, and of what they made."""

    exemplars: np.ndarray
    """[n_exemplar, d]"""
    exemplar_paths: tuple[str, ...]
    chunks: tuple[tuple[int, int], ...]
    """Of each model: its first exemplar, and the one behind its last."""
    made: Mapping[str, np.ndarray]
    """By family of prompts, [n_query, d]."""
    made_paths: Mapping[str, tuple[str, ...]]
    models: Mapping[str, tuple[int, ...]]
    """By family, [n_query]: the number of the model that made each."""

    @classmethod
    def open(cls, root: Path, file: str) -> CaseFeatures:
        """`feats/clip/test_artchive.pth` below a root. Raises FileFault, in one line, for a file that is not in the layout."""
        names = {"exemplar_paths", "exemplar_chunks", "exemplar_tensors", "synth_paths", "synth_ids", "synth_tensors"}
        content = _loaded(root, file, names)
        exemplars = _features(file, "exemplar_tensors", content["exemplar_tensors"])
        exemplar_paths = _paths(file, "exemplar_paths", content["exemplar_paths"])
        _require(file, len(exemplar_paths) == len(exemplars), "names other exemplars than it has features of")
        chunks = content["exemplar_chunks"]
        _require(file, isinstance(chunks, list) and all(map(_is_chunk, chunks)), "has exemplar_chunks that are no (start, end)")
        _require(file, all(end <= len(exemplars) for _, end in chunks), "has exemplar_chunks beyond its exemplars")
        families = content["synth_tensors"]
        same = all(isinstance(content[name], dict) for name in ("synth_tensors", "synth_paths", "synth_ids"))
        same = same and families.keys() == content["synth_paths"].keys() == content["synth_ids"].keys()
        _require(file, same and all(isinstance(name, str) for name in families), "has not the same families in its synth tables")
        made, paths, models = {}, {}, {}
        for family, tensor in families.items():
            made[family] = _features(file, f"synth_tensors, {family}", tensor)
            paths[family] = _paths(file, f"synth_paths, {family}", content["synth_paths"][family])
            models[family] = content["synth_ids"][family]
            known = isinstance(models[family], list) and all(
                type(number) is int and 0 <= number < len(chunks) for number in models[family]
            )
            _require(file, known, f"has synth_ids, {family}, of models that it does not list")
            alike = len(made[family]) == len(paths[family]) == len(models[family])
            _require(file, alike, f"has paths, ids and features of {family} that differ in number")
            _require(file, made[family].shape[1] == exemplars.shape[1], f"has features of {family} of another encoder")
        return cls(
            exemplars.numpy(), exemplar_paths, tuple((int(a), int(b)) for a, b in chunks),
            {family: tensor.numpy() for family, tensor in made.items()}, paths,
            {family: tuple(numbers) for family, numbers in models.items()},
        )  # fmt: skip

    def own(self, family: str) -> list[np.ndarray]:
        """For each query of a family the exemplars of its model, [r, d]."""
        return [self.exemplars[slice(*self.chunks[number])] for number in self.models[family]]


def retrieve(case: CaseFeatures, family: str, pool: PoolFeatures, *, threads: int | None = None) -> Ranks:
    """Exact ranks of each query's exemplars among the pool, streamed. Raises FileFault if the encoders differ in width."""
    if case.exemplars.shape[1] != pool.rows.d:
        what = f"has features of {pool.rows.d} numbers, and the test case of {case.exemplars.shape[1]}"
        raise fault(pool.rows.path.name, what, "take both files of one encoder")
    return ranks(case.made[family], case.own(family), pool.rows, threads=threads)


def _loaded(root: Path, file: str, names: set[str]) -> dict[str, Any]:
    """The dictionary of a .pth file, its tensors mapped. Raises FileFault for one that is not there or holds code."""
    import torch

    size = file_size(root, file)
    _require(file, size <= FILE_BYTES, f"has {size:,} bytes, more than the {FILE_BYTES:,} allowed")
    path = confined(root, file)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise fault(file, "holds more than tensors and lists, so it is not read", REMEDY) from error
    except Exception as error:  # a damaged archive raises anything
        raise fault(file, f"is not a file of torch.save ({type(error).__name__})", REMEDY) from error
    missing = sorted(names - content.keys()) if isinstance(content, dict) else sorted(names)
    _require(file, not missing, f"has no {' and no '.join(missing)}")
    return content


def _features(file: str, name: str, tensor: object) -> Tensor:
    """A tensor [n, d] of finite floating-point numbers."""
    import torch

    two = isinstance(tensor, torch.Tensor) and tensor.ndim == 2 and tensor.layout == torch.strided
    _require(file, two, f"has no {name} [n, d]")
    _require(file, tensor.dtype in (torch.float16, torch.float32), f"has {name} of type {tensor.dtype}, not float16 or float32")
    _require(file, tensor.numel() > 0 and tensor.is_contiguous(), f"has {name} that are empty or not in rows")
    bad = next((row for row in range(0, len(tensor), 4096) if not tensor[row : row + 4096].isfinite().all()), None)
    if bad is not None:
        row = bad + int(tensor[bad : bad + 4096].isfinite().all(dim=1).logical_not().nonzero()[0])
        raise fault(file, f"has {name} that are not finite (the first in row {row})", REMEDY)
    return tensor.detach()


def _paths(file: str, name: str, paths: object) -> tuple[str, ...]:
    text = isinstance(paths, list) and all(isinstance(path, str) for path in paths)
    _require(file, text, f"has {name} that are no list of text")
    return tuple(paths)


def _is_chunk(chunk: object) -> bool:
    return isinstance(chunk, tuple | list) and len(chunk) == 2 and all(type(n) is int for n in chunk) and 0 <= chunk[0] < chunk[1]


def _require(file: str, holds: bool, what: str) -> None:
    if not holds:
        raise fault(file, what, REMEDY)
