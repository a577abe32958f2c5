"""Every preset that ships: it can be read, it says no more than it changes, and the methods that it compares are there."""

from __future__ import annotations

from importlib import resources

import pytest

from attribench import plugins

PRESETS = sorted(
    tuple(entry.name.removesuffix(".toml").split("."))
    for entry in resources.files("attribench.protocols").iterdir()
    if entry.name.endswith(".toml")
)
"""(protocol, preset)"""


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_preset_can_be_read_and_its_methods_are_there(name, preset):
    protocol = plugins.find("protocol", name).load()
    assert protocol.with_preset(preset, {}).preset
    methods = protocol.methods_of(preset)
    assert len(set(methods)) == len(methods)
    for method in methods:
        assert plugins.find("method", method).name == method
    assert bool(methods) is preset.startswith("ablation")


@pytest.mark.parametrize("name", ["leave-k-out", "lds", "exemplar-retrieval"])
def test_the_ablations_of_unlearning_have_the_numbers_of_their_edition(name):
    protocol = plugins.find("protocol", name).load()
    for preset, edition in (("ablation", "mini"), ("ablation-paper", "paper")):
        assert protocol.with_preset(preset, {}).preset == protocol.with_preset(edition, {}).preset
        assert protocol.methods_of(preset)[0] == "unlearning"


def test_a_key_can_be_changed_on_top_of_what_a_preset_extends():
    protocol = plugins.find("protocol", "leave-k-out").load()
    own = protocol.with_preset("mini", {}).preset
    changed = protocol.with_preset("ablation", {"training.epochs": own.training.epochs + 1}).preset
    assert changed.training.epochs == own.training.epochs + 1 and changed.sampling == own.sampling
