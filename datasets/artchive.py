"""Artchive: paintings by artist, for the customization of styles.

The exemplars of GenDataAttribution (Wang et al., ICCV 2023), which MONTRAGE customizes on: one folder of
pictures per artist.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from attribench.data import Edition
from attribench.errors import DatasetError
from attribench.files.confined import confined

from .concept_folders import ConceptFolder, ConceptFolders
from .edition_tables import EditionTables

TREES = ("exemplar/artchive/images", "dataset/exemplar/artchive/images")
"""Where the artists' folders lie below GenDataAttribution's dataset/ and below its repository."""
PARTICLES = frozenset({"van", "von", "der", "den", "de", "da", "del", "della", "di", "du", "la", "le", "el", "y"})


class Artchive(ConceptFolders):
    """Paintings by artist in `exemplar/artchive/images/{artist}/`, or in any tree of one folder per artist.

    Image ids start below the folder that holds the artists, so they are the same whether the user names that
    folder or one above it.

    The papers give neither the training prompts nor captions nor splits. Ours: the prompt and the phrase
    below, the caption "a painting", the artist's name read off the folder, and a quarter of the artists as
    dev. `concepts.csv` and `images.csv` in the data root overrule the last three.
    """

    name = "artchive"
    default_protocol = "between-concepts"
    layout = (
        "exemplar/artchive/images/{artist}/*.jpg, or one folder of pictures per artist "
        "(from https://github.com/PeterWang512/GenDataAttribution: bash dataset/download_dataset.sh exemplar)"
    )
    citation = (
        "Wang, Efros, Zhu, Zhang: Evaluating Data Attribution for Text-to-Image Models. ICCV 2023 (GenDataAttribution). "
        "Pictures collected from artchive.com."
    )
    licence = (
        "No licence comes with the pictures: rights stay with the artists, their estates and the museums, and many works are "
        "in the public domain; for research, not for redistribution. The mini edition holds other pictures, openly "
        "licensed one by one in its images.csv and NOTICE."
    )
    monitoring_templates = (
        "Whimsical landscape in the style of {concept}.",
        "Abstract emotions in the style of {concept}.",
        "Modern life tableau in the style of {concept}.",
        "Dreamy still life in the style of {concept}.",
        "Historic portrait in the style of {concept}.",
        "Mythical creatures in the style of {concept}.",
        "City's heartbeat in the style of {concept}.",
        "Rustic tranquility in the style of {concept}.",
        "Futuristic utopia in the style of {concept}.",
        "Surreal moments in the style of {concept}.",
    )
    """MONTRAGE, supplement A, "Monitoring Prompts"."""

    concept_prompt: ClassVar[str] = "picture in the style of {modifier} art"
    concept_phrase: ClassVar[str] = "{modifier} art"
    default_caption: ClassVar[str] = "a painting"

    def __init__(self, root: Path, edition: Edition) -> None:
        tree = next((tree for tree in TREES if (root / tree).is_dir()), "")
        artists = confined(root, tree)
        super().__init__(artists, edition, self._folders(artists), EditionTables.beside(root, tree))

    @classmethod
    def _folders(cls, tree: Path) -> list[ConceptFolder]:
        try:
            names = [entry.name for entry in tree.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
        except OSError as error:
            raise DatasetError(f"{tree}: cannot be listed ({error.strerror}); expected {cls.layout}") from error
        return [
            ConceptFolder(
                name=name,
                folder=name,
                class_word=readable_artist(name),
                prompt=cls.concept_prompt,
                phrase=cls.concept_phrase,
                caption=cls.default_caption,
            )
            for name in names
        ]


def readable_artist(folder: str) -> str:
    """The artist's name as people write it: `vincent_van-gogh` -> `Vincent van Gogh`.

    A name that has capitals is taken to be written as it should be.
    """
    words = folder.replace("_", " ").replace("-", " ").split()
    if folder != folder.lower():
        return " ".join(words)
    return " ".join(word if word in PARTICLES and at else word.capitalize() for at, word in enumerate(words))
