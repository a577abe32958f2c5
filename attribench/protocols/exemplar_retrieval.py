"""Exemplar retrieval: does a method find the pictures that a model was customized on, among many that it was not?

Wang et al., "Evaluating data attribution for text-to-image models", ICCV 2023 (AbC, the Customized Model Benchmark); used
by attribution by unlearning (§5.2, appendix C.2) and by MONTRAGE (supplement B.3). A model was customized on known
exemplars, and a query is a picture that it made. The pool is the distractors and that model's exemplars, of which only
the latter are relevant:

    recall@K = exemplars among the K with the highest scores / exemplars
    AP       = mean over exemplars i of ( i / place of the i-th exemplar found )              mAP: its mean over queries

A study is one customized model, so intervals are clustered by model. Queries are told apart by the family of prompts that
they were made with, and by the prompt that a method is told: with V* in it, as the model got it, or without (appendix C.2
of unlearning). The picture is the same, so that this matters to methods that read the prompt alone.

Pictures are given, so nothing has to be trained for methods that look at pictures and captions alone. A recall@K of 1 is
out of reach for a model with more than K exemplars; the table's line "best possible" says what could be reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, PositiveInt

from attribench.data import MODIFIER, ExemplarDataset, ExemplarModel, GenerationCase, Split
from attribench.data.contents import fingerprint
from attribench.protocols.exemplar_studies import MODELS, ExemplarStudies, ExemplarStudiesPreset, without_modifier
from attribench.study.plan import GivenPictures, SharedImages


class ExemplarRetrievalPreset(ExemplarStudiesPreset):
    pictures: PositiveInt | None = None
    """Queries per model and family of prompts, evenly spread over the list; None: all."""
    told: tuple[Literal["with V*", "without V*"], ...] = Field(("with V*", "without V*"), min_length=1)
    """The prompts that methods are told: as the model got it, and with V* left out."""


class ExemplarRetrieval(ExemplarStudies):
    """Exemplar retrieval: are a customized model's exemplars found among distractors? (Wang et al., ICCV 2023)"""

    name = "exemplar-retrieval"
    marks = "the model was customized on it"
    preset_type = ExemplarRetrievalPreset
    preset: ExemplarRetrievalPreset

    def notices(self, dataset: ExemplarDataset, split: Split) -> tuple[str, ...]:
        """How many prompts are not known."""
        models = dataset.models(MODELS[split])
        prompts = [picture.prompt for model in models for made in model.pictures.values() for picture in made]
        unknown = prompts.count(None)
        if not unknown:
            return ()
        return (
            f"the prompts of {unknown} of {len(prompts)} pictures are not known: methods are told their models' training prompts",
        )

    def queries(
        self, dataset: ExemplarDataset, model: ExemplarModel, shared: SharedImages, limit: int | None, seed: int
    ) -> tuple[list[GenerationCase], dict[str, GivenPictures]]:
        """The pictures that the data set says the model made, each by the prompts that methods are told."""
        cases, pictures = [], {}
        for family, made in model.pictures.items():
            for told in self.preset.told:
                for picture in _spread(made, min(len(made), self.preset.pictures or len(made), limit or len(made))):
                    prompt = picture.prompt or model.prompt
                    variant, has = f"{family}, {told}", told == "with V*" and MODIFIER in prompt
                    case_id = f"{variant}/{picture.id}"
                    pictures[case_id] = picture.id
                    cases.append(
                        GenerationCase(
                            id=case_id,
                            prompt=prompt if has else without_modifier(prompt),
                            plain_prompt=without_modifier(prompt),
                            seed=0,
                            concepts=(model.id,),
                            modifiers=(MODIFIER,) if has else (),
                            variant=variant,
                            role="query",
                        )
                    )
        return cases, {"given": GivenPictures(data=fingerprint(dataset, pictures.values()), pictures=tuple(pictures.items()))}


def _spread(items: Sequence, count: int) -> list:
    """`count` of the items, evenly spread."""
    return [items[i * len(items) // count] for i in range(count)]
