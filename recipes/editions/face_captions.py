"""Short true captions for the drawn faces, from the parts that they are made of."""

import numpy as np

COLOUR_NAMES = {
    "black": (20, 20, 20), "white": (250, 250, 250), "grey": (150, 150, 150), "red": (215, 45, 45),
    "orange": (245, 140, 40), "yellow": (250, 215, 60), "blond": (225, 190, 120), "brown": (115, 70, 40),
    "green": (60, 175, 80), "turquoise": (60, 200, 200), "blue": (40, 100, 220), "purple": (130, 70, 190),
    "pink": (245, 150, 190),
}  # fmt: skip
MOODS = (
    ("sad", ("sad", "frown", "cry", "sick")),
    ("angry", ("angry", "rage", "pissed", "unimpressed")),
    ("surprised", ("surprise", "agape", "awe", "shout")),
    (
        "smiling",
        ("smil", "happy", "laugh", "smirk", "grin", "teeth", "kawaii", "braces", "hopeful", "cute", "lol"),
    ),
)
MOOD_PARTS = ("mouth", "mood", "face")
HAIR_PARTS = ("hair", "head", "top", "rearHair")
HAIR_SHAPES = (
    ("an afro", ("afro", "flattop", "fro")),
    ("a hat", ("hat", "beanie", "cap")),
    ("a turban", ("turban", "hijab")),
    ("no hair", ("bald", "nohair", "shaved", "mrclean", "buzz")),
    ("a mohawk", ("mohawk", "mrt")),
    ("pigtails", ("pigtail", "braid")),
    ("a hair bun", ("bun",)),
    ("a ponytail", ("pony",)),
    ("curly {}hair", ("curl", "wavy", "fluffy", "twist")),
    ("long {}hair", ("long", "straight", "bob", "parting")),
    ("short {}hair", ("short", "spiky", "undercut", "fade", "fonze", "pixie", "flat", "plain")),
)
STYLES_WITHOUT_HAIR_COLOUR = ("lorelei", "notionists", "open-peeps", "croodles")


def face_caption(style: str, parts: dict[str, str]) -> str:
    """Caption of a face: its mood, its hair and what it wears, as far as the part names tell."""
    features = [*_hair(style, parts), *_worn(parts)]
    mood = _mood(parts)
    if style == "thumbs":
        return f"a {_colour(parts['shapeColor'])} round figure with a face"
    if style == "fun-emoji":
        features = _emoji_eyes(parts["eyes"])
        noun = f"{_colour(parts['primaryBackgroundColor'])} square face"
    else:
        noun = "face"
    article = "an" if (mood or noun)[0] in "aeiou" else "a"
    caption = " ".join(word for word in (article, mood, noun) if word)
    return f"{caption} with {' and '.join(features)}" if features else caption


def _mood(parts: dict[str, str]) -> str:
    names = " ".join(parts.get(part, "") for part in MOOD_PARTS).lower()
    return next((mood for mood, words in MOODS if any(word in names for word in words)), "")


def _hair(style: str, parts: dict[str, str]) -> list[str]:
    if "hat" in parts:
        return ["a hat"]
    names = " ".join(parts.get(part, "") for part in HAIR_PARTS).lower()
    shape = next((shape for shape, words in HAIR_SHAPES if any(word in names for word in words)), "")
    coloured = "hairColor" in parts and style not in STYLES_WITHOUT_HAIR_COLOUR
    colour = f"{_colour(parts['hairColor'])} " if coloured else ""
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
    if "moustache" in parts.get("facialHair", "") or "mustache" in parts:
        worn.append("a moustache")
    elif "beard" in parts or "facialHair" in parts:
        worn.append("a beard")
    return worn


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


def _colour(hexadecimal: str) -> str:
    digits = hexadecimal.lstrip("#")
    rgb = np.array([int(digits[index : index + 2], 16) for index in (0, 2, 4)])
    return min(COLOUR_NAMES, key=lambda name: float(np.linalg.norm(rgb - np.array(COLOUR_NAMES[name]))))
