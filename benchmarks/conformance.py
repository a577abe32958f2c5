"""Every method that is installed, held to the conformance checks: verdicts, seconds and memory.

    python benchmarks/conformance.py [METHOD …] [--store FOLDER]

One line a method; what did not pass follows below it. "sign" is judged for the flipped scores too: a check that takes a
method with its sign turned around for sound is no check. A method whose encoder's weights are not here is checked with
weights of the same shapes that are drawn at random (*): what the checks ask does not depend on what an encoder has learned.
Exit code 1 if a method does not conform.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from machine import describe

from attribench import conformance, plugins
from attribench.conformance import scored
from attribench.encoders.published import PUBLISHED
from attribench.errors import AttribenchError, Unavailable
from attribench.interface import AttributionMethod


@dataclass
class Turned:
    """A subject whose scores have the other sign."""

    subject: conformance.Subject

    def __getattr__(self, name: str):
        return getattr(self.subject, name)

    def values(self, *arguments, **options) -> np.ndarray:
        return -self.subject.values(*arguments, **options)


def with_drawn_weights(name: str, folder: Path) -> AttributionMethod:
    """A method with weights of its published encoder's shapes, drawn at random and read from where a user would put them."""
    from timm.models import save_for_hf
    from transformers import BitImageProcessor, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    method = plugins.find("method", name).load()().resolve("mini")
    published = PUBLISHED[method.encoder]
    torch.manual_seed(0)
    if published.architecture is None:  # ViT-L/14 with registers
        size = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "num_register_tokens": 4}
        Dinov2WithRegistersModel(Dinov2WithRegistersConfig(patch_size=14, **size)).save_pretrained(folder)
        BitImageProcessor(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}).save_pretrained(folder)
        return dataclasses.replace(method, encoder=str(folder))
    model = published.architecture()
    if not hasattr(method, "checkpoint"):
        save_for_hf(model, folder, safe_serialization=True)
        return dataclasses.replace(method, encoder=str(folder))
    torch.save({published.prefix + key: value for key, value in model.state_dict().items()}, folder / "weights.pt")
    return dataclasses.replace(method, checkpoint=str(folder / "weights.pt"))


def examined(subject: conformance.Subject) -> tuple[list[conformance.Verdict], str]:
    """The verdicts on a method, and whether a flipped sign is caught."""
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
        with tempfile.TemporaryDirectory() as folder:
            try:
                try:
                    subject, star = conformance.subject(name, world), ""
                except Unavailable:
                    subject, star = conformance.Subject(with_drawn_weights(name, Path(folder)), world), "*"
                start = time.perf_counter()
                verdicts, flipped = examined(subject)
            except AttribenchError as error:
                print(f"{name:<28}  not run: {error}", flush=True)
                continue
            seconds = time.perf_counter() - start
        counts = [sum(verdict.status == status for verdict in verdicts) for status in ("passed", "exempt")]
        memory = next(verdict.what for verdict in verdicts if verdict.check == "memory")
        faults = [verdict for verdict in verdicts if not verdict.ok]
        bad += bool(faults) or flipped == "NOT CAUGHT"
        shown = f"{name + star:<28}"
        print(f"{shown}{counts[0]:>7}{counts[1]:>7}{len(faults):>7}  {flipped:<13}{seconds:>8.1f}  {memory}", flush=True)
        for verdict in faults:
            print(f"    {verdict}", flush=True)
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
