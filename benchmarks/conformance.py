"""Every method that is installed, held to the conformance checks: verdicts, seconds and memory.

    python benchmarks/conformance.py [METHOD …] [--store FOLDER]

One line a method; what did not pass follows below it. "sign" is judged for the flipped scores too: a check that takes a
method with its sign turned around for sound is no check. Exit code 1 if a method does not conform.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import describe

from attribench import conformance, plugins
from attribench.conformance import scored
from attribench.errors import AttribenchError


@dataclass
class Turned:
    """A subject whose scores have the other sign."""

    subject: conformance.Subject

    def __getattr__(self, name: str):
        return getattr(self.subject, name)

    def values(self, *arguments, **options) -> np.ndarray:
        return -self.subject.values(*arguments, **options)


def examined(name: str, world: conformance.World) -> tuple[list[conformance.Verdict], str]:
    """The verdicts on a method, and whether a flipped sign is caught."""
    subject = conformance.subject(name, world)
    verdicts = [check(subject) for check in conformance.CHECKS]
    if subject.method.control:
        return verdicts, "exempt"
    return verdicts, {"failed": "caught"}.get(conformance.Check("sign", scored.sign)(Turned(subject)).status, "NOT CAUGHT")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="Names; all by default.")
    parser.add_argument("--store", type=Path, default=None)
    asked = parser.parse_args()
    print(describe())
    world = conformance.World.open(asked.store)
    bad = 0
    print(f"{'method':<28}{'passed':>7}{'exempt':>7}{'failed':>7}  {'flipped sign':<13}{'seconds':>8}  memory")
    for name in asked.methods or sorted(plugins.all_plugins("method")):
        start = time.perf_counter()
        try:
            verdicts, flipped = examined(name, world)
        except AttribenchError as error:
            print(f"{name:<28}  not run: {error}", flush=True)
            continue
        seconds = time.perf_counter() - start
        counts = [sum(verdict.status == status for verdict in verdicts) for status in ("passed", "exempt")]
        memory = next(verdict.what for verdict in verdicts if verdict.check == "memory")
        faults = [verdict for verdict in verdicts if not verdict.ok]
        bad += bool(faults) or flipped == "NOT CAUGHT"
        print(f"{name:<28}{counts[0]:>7}{counts[1]:>7}{len(faults):>7}  {flipped:<13}{seconds:>8.1f}  {memory}", flush=True)
        for verdict in faults:
            print(f"    {verdict}", flush=True)
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
