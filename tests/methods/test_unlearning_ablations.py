"""The ablations of unlearning: each is unlearning with one choice changed, and its published step size is known or asked for."""

from __future__ import annotations

import dataclasses

from attribench.methods.unlearning import Unlearning, ablations

from attribench import plugins

ABLATIONS = {of.name: of for of in vars(ablations).values() if isinstance(of, type) and issubclass(of, Unlearning)}
"""By name, with unlearning itself."""


def test_what_the_papers_name_no_step_size_for_is_told_before_anything_is_trained():
    """In one line, by how the models of a study come about."""
    refused = {
        customized: {name for name, of in ABLATIONS.items() if of().resolve("paper").skip_models(customized=customized)}
        for customized in (True, False)
    }
    assert refused == {
        True: {"unlearning-attention", "unlearning-cross-attention", "unlearning-sgd-ten-steps", "unlearning-ekfac"},
        False: {"unlearning-many-steps"},
    }
    reason = ablations.UnlearningAttention().resolve("paper").skip_models(customized=True)
    assert "no step size for diagonal unlearning of attention weights" in reason and "give step_size=NUMBER" in reason
    assert "\n" not in reason
    for fields in ({"step_size": 0.3}, {"step_size": "tuned"}, {"step_size": 1e-3, "step_unit": "absolute"}):
        own = ablations.UnlearningAttention(**fields).resolve("paper")
        assert own.skip_models(customized=True) is None and own.skip_models(customized=False) is None
    assert not any(of().resolve("mini").skip_models(customized=True) for of in ABLATIONS.values())


def test_each_ablation_is_unlearning_with_one_field_changed():
    """SGD in ten steps: SGD with one field changed."""
    for name, ablation in ABLATIONS.items():
        assert plugins.find("method", name).load() is ablation
        if ablation is not Unlearning:
            own = dataclasses.asdict(ablation.__base__())
            assert len([field for field, value in dataclasses.asdict(ablation()).items() if value != own[field]]) == 1, name
    assert {name.removeprefix("unlearning-") for name in ABLATIONS} == {
        "unlearning", "full", "attention", "cross-attention", "sgd", "sgd-ten-steps", "one-step", "many-steps", "ekfac"
    }  # fmt: skip
