"""submission.json: what was run on what, by which methods, where. Typed, bounded, and no number that a board ranks by."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from attribench.files.fields import Strict, Text, Word
from attribench.run.experiment import Experiment
from attribench.submissions.container import Refused
from attribench.submissions.parsing import json_of

FORMAT = "attribench submission 1"
Link = Annotated[str, Field(max_length=300, pattern=r"^https?://[A-Za-z0-9.-]+(:\d+)?(/[^\s<>\"'`\\]*)?$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Study(Strict):
    """One study: digests of the plan that was followed and of the truth that was held against."""

    plan: Digest
    truth: Digest


class Method(Strict):
    """One method with its hyper-parameters, and where it came from."""

    name: Word
    tuned: bool = False
    """Whether a candidate was chosen by the dev queries."""
    params: Annotated[dict[Text, Any], Field(max_length=200)]
    control: bool
    needs: Annotated[tuple[Literal["gradients", "checkpoints", "training", "trajectory"], ...], Field(max_length=4)] = ()
    version: Annotated[int, Field(ge=0, lt=2**31)] = 1
    plugin: Text
    """Distribution and version, or file and digest."""
    summary: Text = ""
    """First line of its docstring."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(min_length=1, max_length=64)]


class Statement(Strict):
    """All of submission.json."""

    format: Literal["attribench submission 1"]
    attribench: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    """Version that made it."""
    finished: Annotated[str, Field(pattern=r"^\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\dZ$")]
    seconds: Annotated[float, Field(ge=0, lt=1e10)]
    """Of the whole run."""
    submitter: Text = ""
    links: Annotated[dict[Literal["paper", "code", "page"], Link], Field(max_length=3)] = {}
    experiment: Experiment
    studies: Annotated[dict[Word, Study], Field(min_length=1, max_length=5000)]
    methods: Annotated[tuple[Method, ...], Field(min_length=1, max_length=200)]
    machine: Annotated[dict[Text, Text | int | None], Field(max_length=20)]
    packages: Annotated[dict[Text, Text], Field(max_length=50)]

    @property
    def members(self) -> set[str]:
        """The names of the score and truth files that belong to it."""
        scores = {score_member(m.name, study, seed) for m in self.methods for study in self.studies for seed in m.seeds}
        return scores | {truth_member(study) for study in self.studies}


def score_member(method: str, study: str, seed: int) -> str:
    """Where the scores of one method, study and seed lie in a submission and in a run folder."""
    return f"scores/{method}/{study}-seed{seed}.safetensors"


def truth_member(study: str) -> str:
    """Where the truth of a study's queries lies in a submission."""
    return f"truth/{study}.safetensors"


def read_statement(data: bytes) -> Statement:
    """submission.json, checked. Raises Refused."""
    values = json_of(data, "submission.json")
    if isinstance(values, dict) and values.get("format") != FORMAT:
        raise Refused(f"it is of format {str(values.get('format'))[:60]!a}, and this attribench reads {FORMAT!r}")
    try:
        found = Statement.model_validate_json(data, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part)[:60] for part in first["loc"])
        raise Refused(f"submission.json: {where!a} {first['msg']}, and is {str(first['input'])[:60]!a}") from error
    if len({method.name for method in found.methods}) != len(found.methods):
        raise Refused("submission.json names a method twice")
    return found
