"""A step: a plain function with all that its results depend on, and what it sees when it runs.

    def train(ctx):
        model = load(ctx.input("base"))
        for epoch in range(ctx.params["epochs"]):
            ...
            ctx.report(epoch + 1, ctx.params["epochs"])
        save(model, ctx.out("weights"))

    base = Step("download", download, {"model": "tiny"}, {}, {"folder": None})
    trained = Step("train", train, {"epochs": 3}, {"base": base["folder"]}, {"weights": None})

Each output is one artifact. Its key is a token of the function's name, its version, the
parameters, the keys of the inputs, the output's name and that output's own identity. So asking one
training for a further observation (a further output) leaves the key of its weights as it was. Where a
step handles many things of one kind at once, an input that only one output depends on (`own_inputs`)
enters the key of that output alone, so that what they are handled beside does not matter. The label,
the bindings, the estimate, the device and the place of the store do not enter a key.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from attribench.engine.claim import Claim
from attribench.engine.identity import NotHashable, key_name, token
from attribench.engine.store import ArtifactStore
from attribench.errors import MethodError, UsageError


@dataclass(frozen=True)
class Ref:
    """One output of a step, as the input of another."""

    step: Step
    output: str

    @property
    def key(self) -> str:
        return self.step.keys[self.output]


@dataclass(frozen=True, eq=False)
class Step:
    """A function and all that its results depend on. Two steps are equal if all their keys are.

    Raises UsageError for a function that other processes cannot import, and for values that cannot be
    hashed for sure.
    """

    name: str
    """The kind of step ("train"): what progress and estimates are grouped by."""
    function: Callable[[StepContext], None]
    params: Mapping[str, Any]
    inputs: Mapping[str, Ref]
    outputs: Mapping[str, Any]
    """Name of each output and what identifies it beyond the step (None, or say an observer)."""
    own_inputs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Output -> the inputs that it depends on, and not every other output does."""
    version: int = 1
    """Raise it when the same parameters come to mean another result."""
    gpu: bool = False
    """Whether it runs on the accelerator, if the run has one."""
    label: str = ""
    """What tells it from others of its kind, for people ("study 3")."""
    bindings: Mapping[str, Any] = field(default_factory=dict)
    """Where to find what the parameters identify (an open data set, the path of a model): not part of a key,
    so the parameters must hold a fingerprint of the content."""
    estimate: Mapping[str, float] | None = None
    """What it may cost, before the store knows better: "seconds", "peak_bytes", "bytes"."""

    def __post_init__(self) -> None:
        _require_importable(self)
        for name, ref in self.inputs.items():
            if ref.output not in ref.step.outputs:
                raise UsageError(
                    f"step {self}: its input {name!r} is the output {ref.output!r} of step {ref.step}, "
                    f"which has only {', '.join(ref.step.outputs)}"
                )
        if not self.outputs:
            raise UsageError(f"step {self} has no output; name at least one")
        assert self.keys  # a value that cannot be hashed is reported where the step is made

    def __getitem__(self, output: str) -> Ref:
        return Ref(self, output)

    def __str__(self) -> str:
        return f"{self.name} {self.label}".strip()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Step) and self.keys == other.keys

    def __hash__(self) -> int:
        return hash(frozenset(self.keys.values()))

    def needed(self, has: Callable[[str], bool]) -> list[Ref]:
        """The inputs that it takes to make the outputs whose keys `has` does not know."""
        there, missing = set(), set()
        for output, own in self.own_inputs.items():
            (there if has(self.keys[output]) else missing).update(own)
        return [ref for name, ref in self.inputs.items() if name not in there - missing]

    def _own_keys(self, output: str) -> list[dict[str, str]]:
        return [{name: self.inputs[name].key for name in sorted(own)} for own in [self.own_inputs.get(output)] if own]

    @cached_property
    def keys(self) -> Mapping[str, str]:
        own = frozenset().union(*self.own_inputs.values())
        try:
            base = token(
                {
                    "function": key_name(self.function),
                    "version": self.version,
                    "params": token(self.params, "params"),
                    "inputs": {name: ref.key for name, ref in self.inputs.items() if name not in own},
                },
                "step",
            )
            return {
                name: token([base, name, identity, *self._own_keys(name)], f"outputs[{name!r}]")
                for name, identity in self.outputs.items()
            }
        except NotHashable as error:
            raise UsageError(f"step {self}: {error}") from None


def _require_importable(step: Step) -> None:
    """A key names the function, and a worker imports it by that name: so the name must lead to it."""
    function = step.function
    module, path = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module == "__main__" or getattr(sys.modules.get(module), path, None) is not function:
        raise UsageError(
            f"step {step}: {path or function!r} of {module} cannot be found by its name; "
            "use a function defined at the top of an importable module (no lambda, closure or partial)"
        )


@dataclass(frozen=True)
class Job:
    """A step in the form that travels to a worker: keys in place of steps."""

    name: str
    title: str
    function: Callable[[StepContext], None]
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    own_inputs: Mapping[str, frozenset[str]]
    outputs: Mapping[str, Any]
    keys: Mapping[str, str]
    device: str
    bindings: Mapping[str, Any]

    @classmethod
    def of(cls, step: Step, device: str) -> Job:
        """The job of a step in a run on `device`; steps that ask for no accelerator run on the CPU."""
        return cls(
            name=step.name,
            title=str(step),
            function=step.function,
            params=dict(step.params),
            inputs={name: ref.key for name, ref in step.inputs.items()},
            own_inputs=dict(step.own_inputs),
            outputs=dict(step.outputs),
            keys=step.keys,
            device=device if step.gpu else "cpu",
            bindings=dict(step.bindings),
        )

    def parents(self, output: str) -> dict[str, str]:
        """The inputs, by key, that an output depends on."""
        others = {name for of, own in self.own_inputs.items() if of != output for name in own}
        others -= self.own_inputs.get(output, frozenset())
        return {name: key for name, key in self.inputs.items() if name not in others}


class StepContext:
    """What a step's function sees: parameters and inputs to read, folders to write, progress to report."""

    def __init__(self, job: Job, store: ArtifactStore, report: Callable[[int, int, str], None]) -> None:
        self.params = job.params
        self.bindings = job.bindings
        self.inputs = frozenset(job.inputs)
        self.device = job.device
        self.wanted = {name: identity for name, identity in job.outputs.items() if not store.has(job.keys[name])}
        """The outputs to make, with their identities: those not in the store."""
        self.claims: dict[str, Claim] = {}
        self._report = report
        self._job = job
        self._store = store

    def report(self, done: int, total: int, note: str = "") -> None:
        """How far this step is. Call it often and at moments where stopping is safe: a cancelled run stops here."""
        self._report(done, total, note)

    def input(self, name: str) -> Path:
        """The folder of an input, to read. Raises StoreError if it is damaged."""
        return self._store.path(self._job.inputs[name])

    def present(self, name: str) -> Path | None:
        """The folder of one of this step's own outputs that an earlier run made, or None."""
        return None if name in self.wanted else self._store.path(self._job.keys[name])

    def out(self, name: str) -> Path:
        """The folder to write an output to. After a kill it holds what was written before.

        An output that needs no file is made by calling this and writing nothing.
        """
        if name not in self.wanted:
            raise MethodError(f"step {self._job.title} writes the output {name!r}, which is not wanted")
        if name not in self.claims:
            self.claims[name] = self._store.claim(self._job.keys[name])
        return self.claims[name].folder
