"""Five captions of a scene, as five persons with habits of their own would write them.

One is brief, one writes whole sentences, one looks for details, one names the medium, one says where or what kind of
thing it is. All of it is true of the picture: the names and details of subjects.csv hold for each house's drawing, ground,
view and place are those that the picture was made with.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from emoji_scenes import Ground, Layout

CAPTIONS = 5
FEWEST_OTHER_WORDS = 2
MOST_WORDS = 14
"""The tiny model's text encoder reads 24 tokens."""
TRIES = 200
HOUSE_RATE = 0.05


@dataclass(frozen=True)
class Subject:
    """A row of subjects.csv: what is drawn, and what can be said of it."""

    name: str
    labels: tuple[str, ...]
    kind: str
    names: tuple[str, ...]
    """With their articles, the usual one first."""
    details: tuple[str, ...]
    """What follows the name: "with long ears"."""
    prompt: str
    """A caption as of another picture, to be used as a prompt; "" for a subject that no query asks for."""


BRIEF = ("{n}", "{N}.", "{n} on {g}", "{n} {d}", "just {n}", "{m}", "a picture of {n}", "one picture, {n}")
SENTENCE = (
    "{There} {n} on {g}.", "This picture shows {n} on {g}.", "{N} in front of {g}.", "Somebody drew {n} on {g}.",
    "On {g} one can see {n}.", "{M} set against {g}.", "Here we have {m}, and behind it {g}.",
)  # fmt: skip
DETAIL = (
    "{N} {d}.", "{m} {d} on {g}", "{N} {d}, on {g}.", "{M} {e}, shown {p}.", "{n} {d} and nothing else",
    "Look, {n} {d}!", "It is {m} {d}.",
)  # fmt: skip
MEDIUM = (
    "a drawing of {m}", "A cartoon of {m} {e}.", "an illustration of {n} on {g}", "clip art of {m} {e}",
    "An icon that shows {m}.", "a simple picture of {n} {d}", "A flat image of {m}, {p}.", "a little coloured sketch of {m}",
)  # fmt: skip
HOUSE = ("{m} in the style of {h}", "a drawing of {n} in {h} style", "{N}, {h} style.")
KIND = ("{K}: {m} {e}.", "{M} {e} {p}.", "{N} {p}.", "{K}, {p}: {n}.", "What you see is {k}, namely {m}.", "{M}, {p}, on {g}.")
PLACES = {
    "whole": ("in the middle", "in the centre", "in the middle of the picture"),
    "small": ("{place}, rather small", "{place}, not large"),
    "close": ("seen from close up", "very close", "cut off at the edges"),
}

PAIR_BRIEF = ("{a} and {b}", "{b} and {a}", "{A} and {b}.", "{a}, {b}")
PAIR_SENTENCE = (
    "{A} and {b} can be seen on {g}.", "This picture shows {a} and {b} on {g}.", "On {g} one can see {a} and {b}.",
    "{A} and also {b}, with {g} behind.", "Two things together, {a} and {b}.", "{A} shares the picture with {b}.",
)  # fmt: skip
PAIR_DETAIL = ("{A} {d} and {b} {e}.", "{A} {d} next to {b}.", "{b} {e} along with {a}", "{A} {d}, and {b}.")
PAIR_MEDIUM = ("a drawing of {a} with {b}", "A cartoon of {b} beside {a}.", "clip art: {b}, {a}", "an image of {a} near {b}")
PAIR_PLACE = {
    "beside": ("{A} on the left and {b} on the right.", "{B} to the right of {a}", "{a} left of {b}, on {g}"),
    "above": ("{A} above {b}.", "{B} under {a}, on {g}.", "{a} on top and {b} below"),
}
PAIR_PROMPTS = ("{A} together with {b} in one picture.", "Both {a} and {b}, side by side.", "{A} that keeps {b} company.")


def single_captions(
    rng: np.random.Generator, subject: Subject, layout: Layout, ground: Ground, house: str
) -> list[str]:
    """Five captions of one drawing, in an order that says nothing of who wrote them."""
    n, m = rng.permutation(_two(subject.names))
    d, e = rng.permutation(subject.details)
    medium = HOUSE if rng.random() < CAPTIONS * HOUSE_RATE / 2 else MEDIUM
    words = {
        "n": n, "m": m, "d": d, "e": e, "k": subject.kind, "g": ground.phrase, "h": house,
        "There": "There are" if _is_plural(n) else "There is",
    }  # fmt: skip
    habits = (BRIEF, SENTENCE, DETAIL, medium, KIND)
    places = [place.format(place=layout.place) for place in PLACES[layout.view]]
    return _varied(rng, habits, lambda: words | {"p": str(rng.choice(places))})


def pair_captions(
    rng: np.random.Generator, subjects: Sequence[Subject], layout: Layout, ground: Ground
) -> list[str]:
    """Five captions of two drawings, `subjects` in the order of the layout."""
    first, second = subjects

    def words() -> dict[str, str]:
        return {
            "a": str(rng.choice(first.names)), "b": str(rng.choice(second.names)), "d": str(rng.choice(first.details)),
            "e": str(rng.choice(second.details)), "g": ground.phrase,
        }  # fmt: skip

    habits = (PAIR_BRIEF, PAIR_SENTENCE, PAIR_DETAIL, PAIR_MEDIUM, PAIR_PLACE[layout.view])
    return _varied(rng, habits, words)


def pair_prompt(rng: np.random.Generator, subjects: Sequence[Subject]) -> str:
    """A prompt for two subjects, worded as no caption is."""
    first, second = subjects
    return _filled(str(rng.choice(PAIR_PROMPTS)), {"a": first.names[0], "b": second.names[0]})


def words_of(caption: str) -> list[str]:
    """The words of a caption, in small letters, sorted."""
    return sorted(re.findall(r"[\w'’-]+", caption.lower()))


def _varied(
    rng: np.random.Generator, habits: Sequence[Sequence[str]], words: Callable[[], dict[str, str]]
) -> list[str]:
    """One short caption per habit, no two of which differ in fewer than two words."""
    for _ in range(TRIES):
        captions = [_filled(str(rng.choice(forms)), words()) for forms in habits]
        bags = [set(words_of(caption)) for caption in captions]
        short = max(len(caption.split()) for caption in captions) <= MOST_WORDS
        if short and all(
            len(one ^ other) >= FEWEST_OTHER_WORDS for at, one in enumerate(bags) for other in bags[at + 1 :]
        ):
            return [captions[at] for at in rng.permutation(len(captions))]
    raise ValueError(f"no five captions that differ: {captions}")


def _filled(form: str, words: dict[str, str]) -> str:
    capitals = {key.upper(): value[0].upper() + value[1:] for key, value in words.items() if len(key) == 1}
    return form.format(**words, **capitals)


def _two(names: Sequence[str]) -> list[str]:
    return [names[0], names[-1]]


def _is_plural(name: str) -> bool:
    head = name.split(" of ")[0].split(" on ")[0]
    return not head.startswith(("a ", "an ")) and head.endswith("s")
