"""Training images, queries, and the contracts of data sets: the page that the author of a data set reads is `kinds`."""

from attribench.data.cases import Edition, GenerationCase, Pictures, Queries, Role, Split, TrainImage, TrainingImages, Trajectory
from attribench.data.kinds import (
    MODIFIER,
    CaptionedDataset,
    CaptionedImage,
    Concept,
    ConceptDataset,
    Dataset,
    ExemplarDataset,
    ExemplarModel,
    ExemplarSplit,
    ImageRecord,
    PoolImage,
    PromptRecord,
    SynthesizedPicture,
    Unusable,
)
from attribench.files.confined import Problem

__all__ = [
    "MODIFIER", "CaptionedDataset", "CaptionedImage", "Concept", "ConceptDataset", "Dataset", "Edition", "ExemplarDataset",
    "ExemplarModel", "ExemplarSplit", "GenerationCase", "ImageRecord", "Pictures", "PoolImage", "Problem", "PromptRecord",
    "Queries", "Role", "Split", "SynthesizedPicture", "TrainImage", "TrainingImages", "Trajectory", "Unusable",
]  # fmt: skip
