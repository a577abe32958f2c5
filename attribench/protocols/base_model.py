"""Base model: an attribution model learned from a customization, asked about pictures of the base model.

MONTRAGE (Brokman et al. 2024), main text "Qualitative base model analysis" and Figure 7, supplement Figure 7. What MONTRAGE
learns in a study is an embedding in which any two pictures can be compared. The paper takes one that a customized model was
monitored for, and looks with it for the training pictures of the base model that are behind pictures which the base model
generated; it shows what comes out and measures nothing.

Here too the pictures are the result: the report shows six queries beside what every method puts first. So that there is also
a number, every query has the caption of one picture of the pool for its prompt, and that picture, with all others of the very
same caption, is relevant. That is a stand-in: nobody knows which pictures taught the base model what a caption means. Methods
that read captions find the caption again (`bm25`, `clip-text`), and their row says no more than that; what is of interest is
who beats the raw features by looking at pictures alone.

Choices where the paper is silent.
- The queries are sampled by the base model as it was before the customization, from captions drawn for each study. Captions
  are drawn, not pictures, so that one that many pictures share is no likelier than others.
- The pool is that of exemplar retrieval: distractors, which stand for training pictures of the base model, and the study's
  exemplars, which only the customized model saw and which are never relevant.
"""

from __future__ import annotations

import numpy as np
from pydantic import PositiveInt

from attribench.data import ExemplarDataset, ExemplarModel, GenerationCase, Role
from attribench.diffusion import noise
from attribench.errors import DatasetError
from attribench.protocols.captions import VARIANT, caption_case
from attribench.protocols.exemplar_studies import ExemplarStudies, ExemplarStudiesPreset
from attribench.study.plan import SharedImages, StudyPlan


class BaseModelPreset(ExemplarStudiesPreset):
    captions: PositiveInt
    """Queries of each study, each by another caption of the pool."""


class BaseModel(ExemplarStudies):
    """Base model: are pictures of the base model traced by what a customization taught a method? (MONTRAGE, Figure 7)"""

    name = "base-model"
    marks = "has the prompt for its caption"
    preset_type = BaseModelPreset
    preset: BaseModelPreset

    def queries(
        self, dataset: ExemplarDataset, model: ExemplarModel, shared: SharedImages, limit: int | None, seed: int
    ) -> tuple[list[GenerationCase], dict[str, tuple[str, ...]]]:
        """Captions of the pool as prompts; the base model makes their pictures."""
        captions = sorted({image.caption for image in shared.images} - {""})
        wanted = min(self.preset.captions, limit or self.preset.captions)
        if len(captions) < wanted:
            raise DatasetError(
                f"the distractors of {dataset.name} have {len(captions)} captions, a study asks for {wanted}; "
                f"lower {self.name}.captions, or give the distractors captions in images.csv"
            )
        order = noise.draws("base prompts", dataset.name, model.id, seed).permutation(len(captions))[:wanted]
        cases = [caption_case(f"{VARIANT}/{number:03d}", captions[i]) for number, i in enumerate(order)]
        return cases, {"by_base": tuple(case.id for case in cases)}

    def relevant(self, plan: StudyPlan, role: Role = "query") -> np.ndarray:
        """[n_query, n_pool] bool: distractors with the caption that was the prompt; of pictures to learn from, the exemplars."""
        exemplars = super().relevant(plan, role)
        if role == "fit":
            return exemplars
        return np.array([[image.caption == case.prompt for image in plan.rows] for case in plan.roles(role)]) & ~exemplars
