"""The key of a result names all that it depends on, and nothing else."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, make_dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from sample_steps import Watcher, draw, pipeline, single, training

from attribench.engine.steps import Job, Step
from attribench.errors import UsageError


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True)
class Method:
    size: int = 3
    names: tuple[str, ...] = ("a", "b")
    colours: frozenset[str] = frozenset({"red", "green", "blue"})
    colour: Colour = Colour.RED


def key(value: object) -> str:
    return single(draw, value=value).keys["numbers"]


KEYS = """
from sample_steps import pipeline, ancestry, single, draw, Watcher, training
steps = [*ancestry(pipeline()), training(seen=Watcher("l1")),
         single(draw, value=frozenset({"red", "green", "blue"}), other={"b": 1.5, "a": None}, third=b"x")]
print([step.keys for step in steps])
"""


def test_keys_are_the_same_in_every_process_whatever_its_hash_seed(python):
    runs = [python(KEYS, PYTHONHASHSEED=seed) for seed in ("0", "1", "random")]
    printed = {run.communicate(timeout=60)[0] for run in runs}
    assert len(printed) == 1
    assert len(printed.pop()) > 300


@pytest.mark.parametrize(
    "other",
    [
        4, 3.0, "3", True, None, (3,), {"a": 3}, Method(), Method(size=4), Method(names=("b", "a")),
        Method(colours=frozenset({"red"})), Watcher(), Colour.RED, "red", b"red", {3}, [[3]], -0.0, 0.0,
    ],
)  # fmt: skip
def test_different_values_have_different_keys(other):
    assert key(other) != key(3)
    assert key(other) == key(other)


def test_what_means_the_same_has_the_same_key():
    assert key([1, 2]) == key((1, 2))
    assert key({"a": 1, "b": 2}) == key(MappingProxyType({"b": 2, "a": 1}))
    assert key(np.float64(0.5)) == key(0.5)
    assert key(Method()) == key(Method(size=3))


def test_a_field_that_equality_ignores_stays_out_of_the_key():
    cls = make_dataclass("Cls", [("a", int), ("cache", object, field(compare=False))], frozen=True)
    assert key(cls(1, object())) == key(cls(1, Path("/tmp")))


def test_the_version_of_a_class_and_of_a_step_enter_the_key(monkeypatch):
    before = key(Method())
    monkeypatch.setattr(Method, "version", 2, raising=False)
    assert key(Method()) != before
    steps = [Step("draw", draw, {}, {}, {"numbers": None}, version=version) for version in (1, 2)]
    assert steps[0].keys != steps[1].keys


def test_label_estimate_and_device_do_not_enter_the_key():
    plain = Step("draw", draw, {}, {}, {"numbers": None})
    dressed = Step("other", draw, {}, {}, {"numbers": None}, gpu=True, label="study 3", estimate={"seconds": 3})
    assert plain == dressed and plain.keys == dressed.keys


def test_a_change_upstream_changes_every_key_below():
    a = Step("train", draw, {}, {"x": single(draw, seed=1)["numbers"]}, {"numbers": None})
    b = Step("train", draw, {}, {"x": single(draw, seed=2)["numbers"]}, {"numbers": None})
    assert a.keys != b.keys


def test_observing_more_leaves_the_key_of_the_weights():
    alone, watched = training(), training(seen=Watcher("l1"))
    assert alone.keys["weights"] == watched.keys["weights"]
    assert watched.keys["seen"] != training(seen=Watcher("l2")).keys["seen"]
    assert pipeline().keys == pipeline().keys


def make_closure():
    def closure(ctx):
        pass

    return closure


@pytest.mark.parametrize("function", [lambda ctx: None, make_closure(), partial(draw), Method.__init__])
def test_a_function_that_no_worker_could_find_is_refused(function):
    with pytest.raises(UsageError, match="top of an importable module"):
        single(function)


@dataclass
class Mutable:
    size: int = 3


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (object(), "'value'"), (Path("/data"), "the path '/data'"), (np.zeros(3), "numpy.ndarray"), (Mutable(), "frozen"),
        ([1, {"root": Path("x")}], r"\['value'\]\[1\]\['root'\]"), (Method(names=(draw,)), r"\.names\[0\]"),
        ({1: 2}, "strings"), (Method, "type"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_hashed_for_sure_is_refused_with_its_place(value, place):
    with pytest.raises(UsageError, match=f"step single: params.*{place}"):
        single(draw, value=value)


def test_an_input_that_no_step_makes_is_refused():
    with pytest.raises(UsageError, match="'nothing' of step single"):
        Step("next", draw, {}, {"x": single(draw)["nothing"]}, {"numbers": None})


def test_an_input_that_one_output_depends_on_enters_its_key_alone():
    """So that many things handled by one step do not depend on which others were beside them."""
    sources = {name: single(draw, value=name)["numbers"] for name in "abc"}

    def both(names: str) -> Step:
        return Step(
            "both", draw, {}, {"shared": sources["c"], **{name: sources[name] for name in names}}, dict.fromkeys(names),
            own_inputs={name: frozenset({name}) for name in names},
        )  # fmt: skip

    assert both("ab").keys["a"] == both("a").keys["a"]
    assert both("ab").keys["a"] != Step("both", draw, {}, {"shared": sources["c"]}, {"a": None}).keys["a"]
    step = both("ab")
    assert {ref.key for ref in step.needed(lambda key: False)} == {ref.key for ref in sources.values()}
    assert {ref.key for ref in step.needed(lambda key: key == step.keys["a"])} == {sources["b"].key, sources["c"].key}
    assert Job.of(step, "cpu").parents("a") == {"shared": sources["c"].key, "a": sources["a"].key}


def test_an_input_that_some_outputs_share_is_needed_while_one_of_them_is_missing():
    sources = {name: single(draw, value=name)["numbers"] for name in "ab"}
    own = {"first": frozenset("a"), "second": frozenset("a"), "third": frozenset("b")}
    step = Step("looks", draw, {}, sources, dict.fromkeys(own), own_inputs=own)
    present = {step.keys["first"], step.keys["third"]}
    assert [ref.key for ref in step.needed(lambda key: key in present)] == [sources["a"].key]
    assert step.needed(lambda key: True) == []
    for output in ("first", "second"):
        assert Job.of(step, "cpu").parents(output) == {"a": sources["a"].key}
