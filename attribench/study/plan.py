"""What a protocol asks for: plain values that say which model is trained on what and which pictures it makes."""

from __future__ import annotations

from dataclasses import dataclass

from attribench.data import Edition, GenerationCase, Role, Split, TrainImage
from attribench.data.region import Region
from attribench.diffusion.config import Sampling
from attribench.study.training import Training


@dataclass(frozen=True, kw_only=True)
class SharedImages:
    """Pictures that are the same for all studies, so that what is read of them alone is read once."""

    data: str
    """Fingerprint of the pictures' bytes."""
    images: tuple[TrainImage, ...]
    """Sorted by id."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """What methods score where that is more than the training images: these, and distractors that no model saw."""

    data: str
    """Fingerprint of the pictures' bytes."""
    images: tuple[TrainImage, ...]
    """The training images are among them, in an order that says nothing of which they are."""
    shared: SharedImages | None = None
    """Those that all studies have in their pools; None if there are none."""


@dataclass(frozen=True, kw_only=True)
class GivenPictures:
    """Pictures of the queries that the data set holds, in place of generated ones."""

    data: str
    """Fingerprint of the pictures' bytes."""
    pictures: tuple[tuple[str, str], ...]
    """(id of a case of role "query", id of its picture), for every such case."""


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """One model to train, and the pictures to generate from it."""

    id: str
    dataset: str
    edition: Edition
    split: Split
    concepts: tuple[str, ...]
    training: Training
    cases: tuple[GenerationCase, ...]
    sampling: Sampling
    regions: tuple[tuple[str, Region], ...] = ()
    """(id of a case, the box of its picture that is attributed). Nothing else depends on them: not the generation."""
    base: SharedImages | None = None
    """What features of the base model are read from; None where nothing asks for them, or there is no base model."""
    pool: Pool | None = None
    """None: the training images are what methods score."""
    given: GivenPictures | None = None
    """None: the queries' pictures are generated, like the others."""
    by_base: tuple[str, ...] = ()
    """Ids of cases whose pictures the base model makes, as it was before the training."""

    @property
    def rows(self) -> tuple[TrainImage, ...]:
        """The images that methods score, in the order of `Scores`."""
        return self.training.images if self.pool is None else self.pool.images

    @property
    def own_rows(self) -> tuple[TrainImage, ...]:
        """The images that methods score and that no other study shares, in their order among `rows`."""
        if self.pool is None or self.pool.shared is None:
            return self.rows
        shared = {image.id for image in self.pool.shared.images}
        return tuple(image for image in self.rows if image.id not in shared)

    @property
    def trained_rows(self) -> tuple[int, ...]:
        """The places of the training images among `rows`, in their own order."""
        places = {image.id: place for place, image in enumerate(self.rows)}
        return tuple(places[image.id] for image in self.training.images)

    @property
    def generated_cases(self) -> tuple[GenerationCase, ...]:
        """The cases whose pictures are generated, in order."""
        return self.cases if self.given is None else self.roles("fit")

    @property
    def pictures(self) -> tuple[str, ...]:
        """Ids of all pictures of the data set that are read, each once."""
        given = () if self.given is None else [image_id for _, image_id in self.given.pictures]
        return tuple(dict.fromkeys([*self.training.pictures, *(image.id for image in self.rows), *given]))

    def roles(self, role: Role) -> tuple[GenerationCase, ...]:
        """The cases of role "fit" or "query", in order."""
        return tuple(case for case in self.cases if case.role == role)

    def regions_of(self, role: Role) -> dict[str, Region]:
        """The boxes of the cases of one role, by id."""
        ids = {case.id for case in self.roles(role)}
        return {case_id: region for case_id, region in self.regions if case_id in ids}

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every prompt that the trained model generates a picture for, each once, sorted."""
        return tuple(sorted({case.prompt for case in self.generated_cases if case.id not in self.by_base}))
