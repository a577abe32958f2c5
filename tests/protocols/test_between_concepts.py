"""The studies of between-concepts: which concepts, which prompts, which truth. Nothing is trained here."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attribench.datasets.customconcept101 import CustomConcept101

from attribench.data import ConceptDataset, GenerationCase, TrainImage
from attribench.diffusion.config import Sampling
from attribench.editions import open_dataset
from attribench.errors import DatasetError, UsageError
from attribench.protocols.between_concepts import BetweenConcepts
from attribench.protocols.concept_studies import MIXED, UN_MIXED
from attribench.protocols.protocol import Protocol
from attribench.report.published import published
from attribench.study.plan import StudyPlan
from attribench.study.training import Customization

DEFAULT = BetweenConcepts.with_preset("mini", {})


def plans(dataset: ConceptDataset, preset: str = "mini", seed: int = 0, split: str = "test", **overrides) -> list[StudyPlan]:
    overrides = {name.replace("__", "."): value for name, value in overrides.items()}
    protocol = BetweenConcepts.with_preset(preset, overrides)
    return protocol.plans(dataset, model="fingerprint", split=split, seed=seed, limit=None)


@pytest.fixture(scope="module", params=["artchive", "customconcept101", "a user's folder"])
def dataset(request, paper_folder: Path) -> ConceptDataset:
    if request.param == "a user's folder":
        return open_dataset("customconcept101", "paper", paper_folder)
    return open_dataset(request.param)


@pytest.fixture(scope="module", params=["artchive", "customconcept101"])
def mini(request) -> ConceptDataset:
    return open_dataset(request.param)


@pytest.fixture(scope="module")
def users_folder(paper_folder: Path) -> ConceptDataset:
    """Seven concepts with three pictures each, six of them in the test split."""
    return open_dataset("customconcept101", "paper", paper_folder)


@pytest.fixture(scope="module")
def studies(dataset: ConceptDataset) -> list[StudyPlan]:
    """The plans of the mini preset."""
    return plans(dataset)


# ------------------------------------------------------------------------------- concepts and images


def test_the_mini_preset_makes_at_least_four_studies_of_five_concepts(studies):
    assert len(studies) >= 4
    assert {len(plan.concepts) for plan in studies} == {5}
    assert len({plan.id for plan in studies}) == len(studies)


def test_each_concept_has_a_modifier_token_of_its_own(studies):
    for plan in studies:
        tokens = [token for token, _ in plan.training.modifiers]
        assert tokens == ["<new1>", "<new2>", "<new3>", "<new4>", "<new5>"]
        tokens_of = {concept: {token for image in plan.training.images if image.concept == concept
                               for token in tokens if token in image.prompt} for concept in plan.concepts}  # fmt: skip
        assert [tokens_of[concept] for concept in plan.concepts] == [{token} for token in tokens]


def test_training_images_are_sorted_by_id_and_belong_to_the_concepts(dataset, studies):
    for plan in studies:
        images = plan.training.images
        assert [image.id for image in images] == sorted({image.id for image in images})
        for concept in plan.concepts:
            own = {record.id: record.caption for record in dataset.images(concept)}
            chosen = {image.id: image.caption for image in images if image.concept == concept}
            assert chosen.items() <= own.items()
            assert len(chosen) == min(len(own), 8)


def test_all_pictures_of_a_concept_are_taken_unless_a_number_is_given(users_folder):
    (everything,) = plans(users_folder, "paper", n_studies=1)
    (two,) = plans(users_folder, "paper", n_studies=1, images_per_concept=2)
    assert Counter(image.concept for image in everything.training.images) == dict.fromkeys(everything.concepts, 3)
    assert Counter(image.concept for image in two.training.images) == dict.fromkeys(two.concepts, 2)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_all_concepts_are_of_the_asked_split(mini, split):
    split_of = {concept.name: concept.split for concept in mini.concepts}
    assert {split_of[name] for plan in plans(mini, split=split) for name in plan.concepts} == {split}


def test_sixteen_studies_of_five_concepts_are_possible(mini):
    many = plans(mini, n_studies=16)
    assert len({plan.concepts for plan in many}) == 16
    assert {len(set(plan.concepts)) for plan in many} == {5}


def test_groups_are_disjoint_until_the_concepts_run_out(mini):
    in_test = sum(concept.split == "test" for concept in mini.concepts)
    many, a_round = plans(mini, n_studies=16), in_test // 5
    for group in (many[i : i + a_round] for i in range(0, 16, a_round)):
        concepts = [name for plan in group for name in plan.concepts]
        assert len(set(concepts)) == len(concepts)


def test_ten_concepts_by_option(mini):
    for plan in plans(mini, n_concepts=10):
        assert len(set(plan.concepts)) == len(plan.training.modifiers) == 10


def test_too_few_concepts_say_what_to_do(users_folder):
    with pytest.raises(DatasetError, match=r"has 1 concepts in its dev split, .* lower between-concepts\.n_concepts"):
        plans(users_folder, split="dev")


def test_a_data_set_that_the_preset_does_not_count_needs_a_number(users_folder):
    with pytest.raises(DatasetError, match=r"no number of studies for customconcept101 with 4 concepts; .*n_studies=N"):
        plans(users_folder, "paper", n_concepts=4)
    assert len(plans(users_folder, "paper", n_concepts=4, n_studies=2)) == 2


# ------------------------------------------------------------------------------------ prompts, pictures


def test_ids_of_cases_are_unique(studies):
    for plan in studies:
        assert len({case.id for case in plan.cases}) == len(plan.cases)


def test_held_out_prompts_never_occur_among_those_to_learn_from(studies):
    for plan in studies:
        held_out, learned = ({case.prompt for case in plan.roles(role)} for role in ("query", "fit"))
        assert held_out and learned
        assert not held_out & learned


@pytest.mark.parametrize(("preset", "prompts_a_concept", "held_out_a_concept"), [("mini", 5, 1), ("paper", 11, 2)])
def test_a_fifth_of_the_prompts_is_held_out_of_every_concept_and_of_the_pairs(
    users_folder, preset, prompts_a_concept, held_out_a_concept
):
    for plan in plans(users_folder, preset, n_studies=2):
        for concept in plan.concepts:
            of_concept = {case.prompt: case.role for case in plan.cases if case.concepts == (concept,)}
            assert Counter(of_concept.values()) == {
                "fit": prompts_a_concept - held_out_a_concept,
                "query": held_out_a_concept,
            }
        of_pairs = {case.prompt: case.role for case in plan.cases if case.variant == MIXED}
        assert Counter(of_pairs.values()) == {"fit": 8, "query": 2}


def test_even_a_tiny_share_holds_out_a_prompt_of_every_concept(users_folder):
    (plan,) = plans(users_folder, n_studies=1, held_out=0.01)
    held_out = {case.concepts for case in plan.roles("query")}
    assert {(concept,) for concept in plan.concepts} <= held_out
    assert any(len(concepts) == 2 for concepts in held_out)


def test_mixed_prompts_show_every_pair_of_concepts_once(studies):
    for plan in studies:
        pairs = {case.concepts for case in plan.cases if case.variant == MIXED}
        assert pairs == set(itertools.combinations(plan.concepts, 2))
        assert all(len(case.concepts) == 1 for case in plan.cases if case.variant == UN_MIXED)


def test_a_prompt_holds_the_modifiers_of_its_concepts_and_the_plain_one_none(studies):
    for plan in studies:
        token_of = dict(zip(plan.concepts, (token for token, _ in plan.training.modifiers), strict=True))
        for case in plan.cases:
            assert case.modifiers == tuple(token_of[concept] for concept in case.concepts)
            assert [token for token in token_of.values() if token in case.prompt] == sorted(case.modifiers)
            assert "<new" not in case.plain_prompt
            assert "{" not in case.prompt + case.plain_prompt


def test_the_prompts_are_the_data_sets_templates(users_folder):
    (plan,) = plans(users_folder, "paper", n_studies=1)
    first = plan.concepts[0]
    word = first.removeprefix("thing_")
    templates = (*CustomConcept101.monitoring_templates, "An image of {concept}.")
    assert {case.prompt for case in plan.cases if case.concepts == (first,)} == {
        template.format(concept=f"<new1> {word}") for template in templates
    }
    second = plan.concepts[1].removeprefix("thing_")
    mixed = next(case for case in plan.cases if case.concepts == plan.concepts[:2])
    assert mixed.prompt == f"<new1> {word} and <new2> {second} together."
    assert mixed.plain_prompt == f"{word} and {second} together."


def test_the_number_of_pictures_a_prompt_follows_the_preset(users_folder):
    (plan,) = plans(users_folder, n_studies=1, fit_pictures=3, query_pictures__mixed=7)
    pictures = Counter((case.role, case.variant, case.prompt) for case in plan.cases)
    expected = {("fit", UN_MIXED): 3, ("fit", MIXED): 3, ("query", UN_MIXED): 4, ("query", MIXED): 7}
    assert all(number == expected[role, variant] for (role, variant, _), number in pictures.items())
    assert {kind[:2] for kind in pictures} == set(expected)


def test_pictures_of_one_prompt_differ_in_their_noise(studies):
    for plan in studies:
        assert len({(case.prompt, case.seed) for case in plan.cases}) == len(plan.cases)


# ------------------------------------------------------------------------------------------- identity


def test_the_same_seed_gives_the_same_plans_and_another_seed_others(dataset, studies):
    assert plans(dataset) == studies
    others = plans(dataset, seed=1)
    assert [plan.concepts for plan in others] != [plan.concepts for plan in studies]
    assert not {plan.training.seed for plan in others} & {plan.training.seed for plan in studies}


def test_plans_do_not_depend_on_the_order_of_files_and_entries(users_folder, tmp_path):
    """The same folder, written to disk backwards, with its dataset.json listed backwards."""
    root = tmp_path / "backwards"
    files = sorted(path.relative_to(users_folder.root) for path in users_folder.root.rglob("*") if path.is_file())
    for name in reversed(files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(users_folder.root / name, root / name)
    entries = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(entries[::-1]))
    assert plans(open_dataset("customconcept101", "paper", root)) == plans(users_folder)


def test_plans_do_not_depend_on_the_order_in_which_a_plugin_lists_things(users_folder, paper_folder):
    class Backwards(CustomConcept101):
        @property
        def concepts(self):
            return super().concepts[::-1]

        def images(self, concept):
            return super().images(concept)[::-1]

    options = {"images_per_concept": 2}
    assert plans(Backwards(paper_folder, "paper"), **options) == plans(users_folder, **options)


# -------------------------------------------------------------------------------------------- presets


def test_the_paper_preset_holds_the_counts_of_the_paper():
    counts = {
        (dataset, n): BetweenConcepts.with_preset("paper", {"n_concepts": n}).n_studies(dataset)
        for dataset in ("customconcept101", "artchive") for n in (5, 10)
    }  # fmt: skip
    assert counts == {
        ("customconcept101", 5): 20, ("customconcept101", 10): 10, ("artchive", 5): 10, ("artchive", 10): 5,
    }  # fmt: skip
    preset = BetweenConcepts.with_preset("paper", {}).preset
    assert preset.n_concepts == 5
    assert preset.method_seeds == (4, 16, 23, 42)
    assert preset.held_out == 0.2
    assert preset.k == {UN_MIXED: 5, MIXED: 10}
    assert preset.fit_pictures == 5
    assert preset.query_pictures == {UN_MIXED: 5, MIXED: 5}
    assert preset.images_per_concept is None  # all pictures
    assert preset.templates is None  # all ten


def test_the_paper_preset_holds_the_hyper_parameters_of_the_paper():
    preset = BetweenConcepts.with_preset("paper", {}).preset
    config = preset.customization
    assert (config.epochs, config.batch_size, config.optimizer) == (100, 1, "adam")
    assert (config.learning_rate, config.beta1, config.beta2, config.weight_decay) == (1e-5, 0.9, 0.99, 0.0)
    assert config.augmentation == "custom-diffusion"
    assert config.modifier_learning_rate is None  # the same as of K and V
    assert preset.sampling.steps == 25


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="no preset 'papper'; there are: .*mini, paper"):
        BetweenConcepts.with_preset("papper", {})


@pytest.mark.parametrize("key", ["n_concept", "customization.epoch", "sampling.step"])
def test_an_unknown_preset_key_is_refused_by_name(key):
    with pytest.raises(UsageError, match=f"between-concepts.{key}=3"):
        BetweenConcepts.with_preset("mini", {key: 3})


UNUSABLE = {
    "n_concepts": 0, "n_studies": 0, "held_out": 1.0, "templates": -1, "images_per_concept": -1, "fit_pictures": -1,
    "method_seeds": [], "customization.batch_size": 0, "query_pictures.mixd": 3, "k.mixd": 3, "n_studies.artchive": 3,
}  # fmt: skip


@pytest.mark.parametrize("key", UNUSABLE)
def test_a_value_that_no_study_can_be_made_with_is_refused(key):
    with pytest.raises(UsageError, match="between-concepts"):
        BetweenConcepts.with_preset("mini", {key: UNUSABLE[key]})


# -------------------------------------------------------------------------------- truth and metrics


@pytest.fixture
def tiny_plan() -> StudyPlan:
    """Two cats and a dog; asked for a cat, for both (two pictures), and, to learn from, for a dog."""

    def image(image_id: str, concept: str) -> TrainImage:
        return TrainImage(id=image_id, prompt="", caption="", concept=concept)

    def case(case_id: str, prompt: str, *concepts: str, role: str = "query") -> GenerationCase:
        variant = UN_MIXED if len(concepts) == 1 else MIXED
        return GenerationCase(id=case_id, prompt=prompt, plain_prompt="", seed=0, concepts=concepts, modifiers=(),
                              variant=variant, role=role)  # fmt: skip

    cases = (
        case("q0", "photo of <new1>", "cat"),
        case("f0", "a <new2>", "dog", role="fit"),
        case("q1", "<new1> and <new2>", "cat", "dog"),
        case("q2", "<new1> and <new2>", "cat", "dog"),
    )
    training = Customization(
        model="", data="", images=(image("a", "cat"), image("b", "dog"), image("c", "cat")),
        modifiers=(("<new1>", None), ("<new2>", None)), customization=DEFAULT.preset.customization, seed=0,
    )  # fmt: skip
    return StudyPlan(id="tiny", dataset="d", edition="mini", split="test", concepts=("cat", "dog"), training=training,
                     cases=cases, sampling=Sampling())  # fmt: skip


def tiny_truth(plan: StudyPlan):
    (monitor,) = DEFAULT.truth_observers(plan)
    assert monitor.prompts == ("<new1> and <new2>", "a <new2>", "photo of <new1>")  # each once, sorted
    table = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])  # M [image, prompt]
    return DEFAULT.truth(plan, {monitor: {"table": table}})


def test_relevant_are_the_images_of_the_prompts_concepts(tiny_plan):
    truth = tiny_truth(tiny_plan)
    assert truth.query_ids == ("q0", "q1", "q2")
    assert truth.train_ids == ("a", "b", "c")
    assert truth.relevant.tolist() == [[True, False, True], [True, True, True], [True, True, True]]


def test_the_table_of_a_query_is_the_column_of_its_own_prompt(tiny_plan):
    assert tiny_truth(tiny_plan).tables["table"].tolist() == [[3, 6, 9], [1, 4, 7], [1, 4, 7]]


def test_the_truth_does_not_depend_on_the_order_of_the_cases(tiny_plan):
    turned = tiny_truth(replace(tiny_plan, cases=tiny_plan.cases[::-1]))
    assert turned.query_ids == ("q2", "q1", "q0")
    assert turned.tables["table"].tolist() == [[1, 4, 7], [1, 4, 7], [3, 6, 9]]


def test_the_truth_of_dev_queries_is_that_of_the_pictures_to_learn_from(tiny_plan):
    (monitor,) = DEFAULT.truth_observers(tiny_plan)
    table = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    truth = DEFAULT.truth(tiny_plan, {monitor: {"table": table}}, "fit")
    assert truth.query_ids == ("f0",)
    assert truth.relevant.tolist() == [[False, True, False]]
    assert truth.tables["table"].tolist() == [[2, 5, 8]]


def test_methods_are_tuned_by_average_precision_and_elsewhere_by_the_first_metric():
    assert DEFAULT.tuning_metric(MIXED).name == "average_precision"
    assert Protocol.tuning_metric(DEFAULT, MIXED).name == "recall@10"


def test_metrics_are_named_as_in_the_paper():
    def names(variant: str) -> list[str]:
        return [metric.name for metric in DEFAULT.metrics(variant)]

    assert names(UN_MIXED) == ["recall@5", "precision@5", "average_precision", "spearman_with_table"]
    assert names(MIXED) == ["recall@10", "precision@10", "average_precision", "spearman_with_table"]


@pytest.mark.parametrize(("name", "printed"), [("customconcept101", 0.747), ("artchive", 0.442)])
def test_the_default_table_finds_the_number_that_the_paper_prints(name, printed):
    rows = published(name, DEFAULT.name, UN_MIXED, DEFAULT.preset.n_concepts).query("method == 'MONTRAGE'")
    first = DEFAULT.metrics(UN_MIXED)[0].name
    assert rows.set_index("metric")["value"][first] == printed
