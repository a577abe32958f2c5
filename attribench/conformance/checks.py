"""The checks, in the order in which they are shown."""

from __future__ import annotations

from attribench.conformance import declared, repeated, scored
from attribench.conformance.verdict import Check

CHECKS: tuple[Check, ...] = (
    Check("identity", declared.identity),
    Check("needs", declared.needs),
    Check("shape", scored.shape),
    Check("sign", scored.sign),
    Check("determinism", repeated.determinism),
    Check("batches", repeated.batches),
    Check("permutation", repeated.permutation),
    Check("hyper-parameters", declared.hyper_parameters),
    Check("resume", repeated.resume),
    Check("memory", declared.memory),
    Check("writes", declared.writes),
)
