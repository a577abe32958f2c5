"""Short true captions for the drawn faces, from the parts that they are made of."""

import numpy as np

COLOURS = {
    "black": (20, 20, 20), "white": (250, 250, 250), "grey": (150, 150, 150), "red": (215, 45, 45),
    "orange": (245, 140, 40), "yellow": (250, 200, 60), "brown": (115, 70, 40), "green": (60, 175, 80),
    "turquoise": (60, 200, 200), "light blue": (120, 195, 230), "blue": (40, 100, 220),
    "purple": (130, 70, 190), "pink": (245, 150, 190),
}  # fmt: skip
HAIR_COLOURS = COLOURS | {"blond": (225, 190, 120)}
GROUND_COLOURS = COLOURS | {"beige": (246, 213, 148), "light brown": (209, 139, 91), "pink": (215, 75, 230)}
MOODS = (
    ("sad", ("sad", "frown", "cry", "sick")),
    ("angry", ("angry", "rage", "pissed")),
    ("surprised", ("surprise", "agape", "awe", "shout")),
    (
        "smiling",
        ("smil", "happy", "laugh", "smirk", "grin", "teeth", "kawaii", "braces", "hopeful", "cute", "lol"),
    ),
)
MOOD_PARTS = ("mouth", "mood", "face")
HAIR_PARTS = ("hair", "head", "top", "rearHair")
HAIR_SHAPES = (
    ("an afro", ("afro", "frobun")),
    ("a hat", ("hat", "beanie", "cap")),
    ("a turban", ("turban",)),
    ("a headscarf", ("hijab",)),
    ("little hair", ("balding", "balndess")),
    ("no hair", ("bald", "nohair", "mrclean")),
    ("a mohawk", ("mohawk", "mrt")),
    ("pigtails", ("pigtail", "braid")),
    ("a hair bun", ("bun",)),
    ("a ponytail", ("pony",)),
    ("curly {}hair", ("curl", "wavy", "fluffy", "twist")),
    ("{}hair in a bob", ("bob",)),
    ("long {}hair", ("long", "straight", "parting")),
    (
        "short {}hair",
        ("short", "shaved", "buzz", "spiky", "undercut", "fade", "fonze", "pixie", "flat", "plain"),
    ),
)
STYLES_WITH_PLAIN_BEARDS = ("lorelei", "open-peeps", "micah", "miniavs", "personas", "dylan", "toon-head")
STYLES_WITHOUT_HAIR_COLOUR = ("lorelei", "notionists", "open-peeps", "croodles")


def face_caption(style: str, parts: dict[str, str]) -> str:
    """Caption of a face: its mood, its hair and what it wears, as far as the part names tell."""
    features = [*_hair(style, parts), *_worn(parts), *_beard(style, parts)]
    mood = _mood(parts)
    if style == "thumbs":
        return _with_article(f"{_colour(parts['shapeColor'], GROUND_COLOURS)} round figure with a face")
    if style == "fun-emoji":
        features = _emoji_eyes(parts["eyes"])
        noun = f"{_colour(parts['primaryBackgroundColor'], GROUND_COLOURS)} square face"
    else:
        noun = "face"
    caption = _with_article(f"{mood} {noun}".strip())
    return f"{caption} with {' and '.join(features)}" if features else caption


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _mood(parts: dict[str, str]) -> str:
    names = " ".join(parts.get(part, "") for part in MOOD_PARTS).lower()
    return next((mood for mood, words in MOODS if any(word in names for word in words)), "")


def _hair(style: str, parts: dict[str, str]) -> list[str]:
    if "hat" in parts:
        return ["a hat"]
    names = " ".join(parts.get(part, "") for part in HAIR_PARTS).lower()
    shape = next((shape for shape, words in HAIR_SHAPES if any(word in names for word in words)), "")
    coloured = "hairColor" in parts and style not in STYLES_WITHOUT_HAIR_COLOUR
    colour = f"{_colour(parts['hairColor'], HAIR_COLOURS)} " if coloured else ""
    if not shape and colour:
        shape = "{}hair"
    return [shape.format(colour)] if shape else []


def _worn(parts: dict[str, str]) -> list[str]:
    names = " ".join((parts.get("accessories", ""), parts.get("eyes", ""))).lower()
    worn = []
    if "sunglasses" in names:
        worn.append("sunglasses")
    elif "glasses" in parts or "glasses" in names:
        worn.append("glasses")
    if "mask" in parts or "facemask" in names:
        worn.append("a mask")
    return worn


def _beard(style: str, parts: dict[str, str]) -> list[str]:
    if style not in STYLES_WITH_PLAIN_BEARDS:
        return []
    names = " ".join(parts.get(part, "") for part in ("facialHair", "beard")).lower()
    if "mustache" in parts or "moustache" in names:
        return ["a moustache"]
    return ["a beard"] if names.strip() else []


def _emoji_eyes(eyes: str) -> list[str]:
    named = {
        "glasses": "glasses",
        "shades": "sunglasses",
        "love": "heart eyes",
        "stars": "star eyes",
        "crying": "tears",
        "tearDrop": "a tear",
    }
    return [named[eyes]] if eyes in named else []


def _colour(hexadecimal: str, names: dict[str, tuple[int, int, int]]) -> str:
    digits = hexadecimal.lstrip("#")
    rgb = np.array([int(digits[index : index + 2], 16) for index in (0, 2, 4)])
    return min(names, key=lambda name: float(np.linalg.norm(rgb - np.array(names[name]))))
