"""Built-in methods are held to the same checks. All of them: `python benchmarks/conformance.py`, minutes."""

from __future__ import annotations

import pytest

from attribench import conformance

WORLDS = {
    "pixel": "shipped_world", "clip-text": "shipped_world", "random": "shipped_world", "montrage": "shipped_world",
    "grad-cos": "small_world",
}  # fmt: skip
"""By picture, by text, a control, by what training showed, by the gradients of the trained model; the last one where loading it
is quick."""


@pytest.mark.parametrize("name", WORLDS)
def test_it_conforms(name, request):
    subject = conformance.subject(name, request.getfixturevalue(WORLDS[name]))
    verdicts = [check(subject) for check in conformance.CHECKS]
    assert [str(verdict) for verdict in verdicts if not verdict.ok] == []
    exempt = {verdict.check for verdict in verdicts if verdict.status == "exempt"}
    assert exempt == ({"sign"} if subject.method.control else set())


def test_the_world_is_made_once_and_then_found(shipped_world, tmp_path):
    """A second look at the same store trains nothing."""
    subject = conformance.subject("pixel", shipped_world)
    keys = [key for step in (*subject.stage.trainings, subject.stage.planted) for key in step.keys.values()]
    made = {key: shipped_world.store.manifest(key)["created"] for key in keys}
    again = conformance.subject("pixel", conformance.World.open(shipped_world.store.root))
    assert [key for step in (*again.stage.trainings, again.stage.planted) for key in step.keys.values()] == keys
    assert {key: shipped_world.store.manifest(key)["created"] for key in keys} == made


def test_a_method_that_cannot_run_here_is_one_line(shipped_world):
    from attribench import plugins
    from attribench.errors import Unavailable

    cls = plugins.find("method", "clip-image").load()
    with pytest.raises(Unavailable, match="^clip-image cannot run here: the weights of ViT-B-32/openai"):
        conformance.subject(cls(encoder="ViT-B-32/openai"), shipped_world)
