"""The captioned base corpus: emoji drawn by three houses, with the captions they go by.

Every subject (a panda, french fries, a smiling face) is drawn by up to three houses (noto, twemoji, fluent). The
drawings are kept with their transparency, so that training can place them: any size, any background, two together.
`caption` is the grammar that turns a subject into the prompt forms which the benchmark uses, and `Painter` draws the
picture that goes with it. Both take a seeded generator, and the build takes no random number: a second build gives
the same hash.

    python recipes/tiny/corpus.py --packages node_modules --work DIR

`--packages` is the folder where npm put @iconify-json/{noto,twemoji,fluent-emoji} and emojibase-data. Renders of 3-D
objects (`--objects`, a folder of PNGs with `captions.json`) join as a fourth source when given. noto-v1, fxemoji and
dicebear are never read here: they belong to the customization editions.
"""

import argparse
import hashlib
import io
import json
import re
import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image

HOUSES = {"noto": "noto", "twemoji": "twemoji", "fluent": "fluent-emoji"}  # style word: package
OBJECTS_HOUSE = "render"
DRAWING_SIZE = 96  # side of a stored drawing, transparent around it
DRAWING_FILL = 92  # its longest side inside
PICTURE_SIZE = 64
HELD_OUT_ONE_IN = 20  # drawings kept for validation: never of a core subject

SUBGROUPS = """
    animal-mammal animal-bird animal-amphibian animal-reptile animal-marine animal-bug plant-flower plant-other
    food-fruit food-vegetable food-prepared food-asian food-sweet drink dishware
    place-geographic place-building place-other transport-ground transport-water transport-air hotel time sky-weather
    event award-medal sport game arts-crafts clothing music musical-instrument phone computer light-video book-paper
    money mail writing office lock tool science medical household
    face-smiling face-affection face-tongue face-hand face-neutral-skeptical face-sleepy face-unwell face-hat
    face-glasses face-concerned face-negative face-costume cat-face monkey-face
    person person-role person-fantasy person-activity person-sport person-resting
""".split()

LEFT_OUT = re.compile(
    r"o’clock|-thirty|\bmoon\b.*(crescent|gibbous|quarter)|(crescent|gibbous|quarter|new) moon|facing right|"
    r"^(wo)?men\b|banknote|suit$|dagger|swords|bomb|pistol|bow and arrow|knife|^axe$|cigarette|hammer and pick|"
    r"Statue of Liberty|Tokyo|love hotel|wedding|Japan|middle finger|level slider|control knobs|musical notes?$|"
    r"score|skull and|with slash|muted|chart|high voltage|poo$|feeding|breast|pregnant|massage|steamy|bunny ears|"
    r"wheelchair|white cane|levitating|turban|skullcap|veil|headscarf|1st|2nd|3rd|mahjong|joker|yen|e-mail|"
    r"bookmark tabs|landslide|mount fuji|locked with|broken chain|syringe|pill$|drop of blood|bikini|briefs|"
    r"symbols on mouth|vomiting|Mx |supervillain|military|reminder|toilet|"
    r"plunger|^foggy$|^unlocked$|^exploding|^rolling on|^head shaking"
)
GENDERED_ROLE = re.compile(r"^(man|woman) ")  # the role itself is there: "a cook", not three of them

NO_ARTICLE = set(
    """ice salt bread butter bacon garlic ginger broccoli popcorn spaghetti sushi oden sake wood soap yarn thread
    confetti fireworks grapes cherries blueberries peanuts beans pancakes chopsticks glasses sunglasses goggles jeans
    gloves socks shorts scissors skis maracas bubbles sparkles chains books money mate cooking camping bowling tennis
    badminton lacrosse dango dna houses flatbread jewellery fog custard fondue curry""".split()
)
NO_ARTICLE_ENDS = (
    "french fries", "cooked rice", "curry rice", "canned food", "baguette bread", "stuffed flatbread", "green salad",
    "leafy green", "ice cream", "shaved ice", "fried shrimp", "clinking beer mugs", "clinking glasses", "nesting dolls",
    "ballet shoes", "shopping bags", "linked paperclips", "hot springs", "tickets", "dolls", "clothes", "beads",
    "film frames", "pouring liquid", "ping pong", "ice hockey", "field hockey", "performing arts", "paw prints",
    "pine decoration", "water wave", "horse racing", "Santa Claus", "Mrs. Claus", "snow", "cards", "sheaf of rice",
)  # fmt: skip
KEEP_ARTICLE = {"sheaf of rice", "snowman without snow", "pine decoration", "water wave", "leafy green"}

CORE = """
    panda|lion|tiger face|dog face|cat face|cat|dog|black cat|fox|wolf|bear|polar bear|koala|rabbit face|mouse face|
    hamster|cow face|pig face|pig|frog|monkey face|monkey|horse face|horse|unicorn|zebra|giraffe|elephant|hippopotamus|
    kangaroo|hedgehog|ewe|camel|raccoon|deer|penguin|owl|parrot|duck|baby chick|rooster|flamingo|eagle|bird|
    turtle|snake|crocodile|T-Rex|dragon|whale|dolphin|fish|tropical fish|shark|octopus|crab|lobster|snail|butterfly|
    honeybee|lady beetle|spider|ant|jellyfish|spiral shell|
    rose|tulip|sunflower|hibiscus|cherry blossom|bouquet|cactus|evergreen tree|deciduous tree|palm tree|potted plant|
    mushroom|maple leaf|four leaf clover|
    red apple|green apple|banana|lemon|tangerine|pear|peach|cherries|strawberry|grapes|watermelon|pineapple|kiwi fruit|
    tomato|coconut|avocado|eggplant|carrot|ear of corn|broccoli|hot pepper|bread|croissant|pretzel|pancakes|cheese wedge|
    hamburger|french fries|pizza|hot dog|sandwich|taco|egg|cooking|popcorn|sushi|soft ice cream|ice cream|doughnut|cookie|
    birthday cake|shortcake|cupcake|lollipop|candy|chocolate bar|honey pot|hot beverage|teapot|wine glass|cocktail glass|
    beer mug|tropical drink|
    house|castle|mountain|volcano|snow-capped mountain|desert island|cityscape|night with stars|sunset|
    sunrise over mountains|fountain|tent|ferris wheel|carousel horse|hut|school|factory|
    bus|tram|locomotive|ambulance|fire engine|police car|taxi|automobile|tractor|racing car|motorcycle|motor scooter|
    bicycle|skateboard|sailboat|ship|canoe|anchor|airplane|helicopter|rocket|flying saucer|luggage|
    alarm clock|mantelpiece clock|watch|hourglass done|full moon face|sun|sun with face|star|rainbow|cloud|
    snowman|snowflake|fire|umbrella|ringed planet|
    jack-o-lantern|Christmas tree|balloon|wrapped gift|party popper|trophy|soccer ball|basketball|baseball|tennis|
    american football|kite|teddy bear|crystal ball|video game|game die|puzzle piece|nesting dolls|artist palette|
    framed picture|glasses|sunglasses|t-shirt|dress|kimono|necktie|scarf|backpack|handbag|running shoe|high-heeled shoe|
    crown|top hat|graduation cap|ring|gem stone|
    guitar|violin|trumpet|saxophone|drum|accordion|microphone|musical keyboard|telephone|laptop|television|camera|
    movie camera|light bulb|candle|books|open book|scroll|newspaper|money bag|treasure chest|envelope|package|postbox|
    pencil|paintbrush|crayon|scissors|locked|key|hammer|shield|wrench|magnet|microscope|telescope|chair|door|bed|
    couch and lamp|bathtub|broom|basket|
    grinning face|smiling face with smiling eyes|face with tears of joy|smiling face with heart-eyes|winking face|
    smiling face with sunglasses|thinking face|sleeping face|crying face|angry face|astonished face|nerd face|
    cowboy hat face|partying face|clown face|ghost|alien|robot|grinning cat|face with medical mask|kissing face|
    face with tongue|neutral face|
    baby|child|boy|girl|man|woman|old man|old woman|man: beard|woman: red hair|man: bald|woman: curly hair|
    cook|astronaut|farmer|artist|police officer|construction worker|guard|detective|princess|prince|Santa Claus|mage|
    fairy|mermaid|vampire|superhero|ballet dancer|person surfing|person biking|person running
"""
CORE_LABELS = {re.sub(r"\s+", " ", label).strip() for label in CORE.split("|")}

CORE_OBJECTS = {
    "a chair", "a sofa", "a table", "a bookcase", "a wardrobe", "a cabinet", "a lamp", "a bench", "a wooden box", "a jar",
    "a milk carton", "a tennis racket", "playing cards", "a calendar", "a whiteboard", "a perfume bottle", "a glass mug",
    "butter on a plate", "a fence", "a ceiling fan",
}  # fmt: skip

# The prompts of MONTRAGE (supplement, section A), for things and for styles.
THING_PROMPTS = (
    "Enchanted {x} in a dream forest.", "{x} essence in abstract art.", "Sci-fi {x} cityscape.",
    "{x} harmony in serene landscape.", "Epic {x} in graphic novel.", "Retro {x} in vintage poster.",
    "Scale-play of {x} in conceptual art.", "Playful {x} in children’s illustration.",
    "{x} silhouette in modern minimalism.", "{x} vibes in impressionist city.",
)  # fmt: skip
STYLE_PROMPTS = (
    "Whimsical landscape in the style of {x}.", "Abstract emotions in the style of {x}.",
    "Modern life tableau in the style of {x}.", "Dreamy still life in the style of {x}.",
    "Historic portrait in the style of {x}.", "Mythical creatures in the style of {x}.",
    "City’s heartbeat in the style of {x}.", "Rustic tranquility in the style of {x}.",
    "Futuristic utopia in the style of {x}.", "Surreal moments in the style of {x}.",
)  # fmt: skip
# What a style prompt speaks of, as subgroups that such a picture can show.
STYLE_PROMPT_SUBGROUPS = (
    "place-geographic place-other plant-other sky-weather", "face-smiling face-concerned face-affection",
    "household transport-ground computer light-video", "food-fruit food-prepared plant-flower dishware",
    "person person-role", "person-fantasy animal-reptile face-costume", "place-building transport-ground",
    "animal-mammal plant-other food-vegetable", "transport-air science computer", "face-costume sky-weather game",
)  # fmt: skip
PLAIN_FORMS = (
    ("{a}", 30), ("photo of {a}", 10), ("An image of {a}.", 10), ("a picture of {a}", 4), ("a drawing of {a}", 4),
    ("{x}", 5), ("photo of a {x}", 4),
)  # fmt: skip
STYLED_FORMS = (
    ("{a} in the style of {s}", 10), ("a painting of {a} in the style of {s}", 8), ("{a}, {s} style", 3),
    ("An image of {a} in the style of {s}.", 4),
)  # fmt: skip
FAR_FORMS = ("a far away {x}", "a very small {x}", "{a}, far away", "very small {x}")
CLOSE_FORMS = ("zoomed in {x}", "close up of {a}", "a close up {x}", "{a}, close up")
PAIR_FORMS = ("{a} and {b} together", "{a} and {b} together.", "{a} and {b}", "{a} next to {b}", "photo of {a} and {b}")
EMPTY_RATE = 0.08


def phrases(label: str) -> tuple[str, str]:
    """(bare noun, noun with its article) of an emoji label: ("panda", "a panda"), ("french fries", "french fries")."""
    bare = label.replace("’", "'")
    if ":" in bare:
        who, what = bare.split(": ")
        bare = f"bald {who}" if what == "bald" else f"{who} with a beard" if what == "beard" else f"{who} with {what}"
    bare = {"cooking": "fried egg in a pan", "locked": "padlock", "hourglass done": "hourglass"}.get(bare, bare)
    no_article = (bare in NO_ARTICLE or bare.endswith(NO_ARTICLE_ENDS)) and bare not in KEEP_ARTICLE
    if no_article or bare.startswith("people "):
        return bare, bare
    spoken_vowel = re.match(r"[aeio]|u(?!ni|se|ku)|hour|x-", bare.lower())
    return bare, f"{'an' if spoken_vowel else 'a'} {bare}"


def icon_name(label: str) -> str:
    """The name that the icon packages give to an emoji label."""
    plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.replace("'", "").lower()).strip("-")


def subjects(packages: Path) -> list[dict]:
    """The pictorial emoji, in emojibase's order."""
    meta = json.loads((packages / "emojibase-data/meta/groups.json").read_text())
    chosen = []
    for emoji in json.loads((packages / "emojibase-data/en/data.json").read_text()):
        subgroup = meta["subgroups"].get(str(emoji.get("subgroup")))
        label = emoji["label"]
        if subgroup not in SUBGROUPS or LEFT_OUT.search(label):
            continue
        if GENDERED_ROLE.match(label) and subgroup.startswith("person-"):
            continue
        bare, article = phrases(label)
        chosen.append({"label": label, "bare": bare, "article": article, "subgroup": subgroup})
    return chosen


def centred(image: Image.Image) -> np.ndarray:
    """The drawn part of an RGBA image, fitted into a transparent square of DRAWING_SIZE."""
    image = image.crop(image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    scale = DRAWING_FILL / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (DRAWING_SIZE, DRAWING_SIZE), (255, 255, 255, 0))
    square.paste(image, [(DRAWING_SIZE - side) // 2 for side in image.size])
    return np.asarray(square)


def house_drawings(packages: Path, house: str, wanted: list[dict]):
    """Yield (row, RGBA drawing) for each wanted subject that the house has drawn."""
    import resvg_py

    icons = json.loads((packages / f"@iconify-json/{HOUSES[house]}/icons.json").read_text())
    for subject in wanted:
        name = icon_name(subject["label"])
        icon = icons["icons"].get(icons.get("aliases", {}).get(name, {}).get("parent", name))
        if icon is None:
            continue
        width = icon.get("width", icons.get("width", 16))
        height = icon.get("height", icons.get("height", 16))
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        png = resvg_py.svg_to_bytes(svg_string=svg, width=128, height=128, skip_system_fonts=True)
        drawing = centred(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))
        held_out = hashlib.sha256(f"{house}/{name}".encode()).digest()[0] % HELD_OUT_ONE_IN == 0
        core = subject["label"] in CORE_LABELS
        yield {**subject, "house": house, "core": core, "held_out": held_out and not core}, drawing


def object_drawings(folder: Path):
    """Yield (row, RGBA drawing) for the rendered 3-D objects; `captions.json` maps file name to caption."""
    for name, caption in sorted(json.loads((folder / "captions.json").read_text()).items()):
        image = Image.open(folder / name).convert("RGBA")  # opaque: rendered on a background of its own
        bare = re.sub(r"^(a|an) ", "", caption)
        row = {"label": bare, "bare": bare, "article": caption, "subgroup": "object-3d", "house": OBJECTS_HOUSE}
        square = np.asarray(image.resize((DRAWING_SIZE, DRAWING_SIZE), Image.Resampling.LANCZOS))
        yield {**row, "core": caption in CORE_OBJECTS, "held_out": False}, square


def build(packages: Path, work: Path, objects: Path | None) -> str:
    """Write `corpus.npz` (drawings, and plain pictures on white) and `corpus.json` (their rows); return the hash."""
    rows, drawings = [], []
    wanted = subjects(packages)
    for house in HOUSES:
        for row, drawing in house_drawings(packages, house, wanted):
            rows.append(row)
            drawings.append(drawing)
    if objects is not None:
        for row, drawing in object_drawings(objects):
            rows.append(row)
            drawings.append(drawing)
    drawings = np.stack(drawings)
    painter = Painter(drawings)
    pictures = np.stack([painter.place([(index, 0.86, 0.5, 0.5, False)], WHITE) for index in range(len(rows))])
    digest = hashlib.sha256(drawings.tobytes() + json.dumps(rows, sort_keys=True).encode()).hexdigest()
    work.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(work / "corpus.npz", drawings=drawings, pictures=pictures)
    (work / "corpus.json").write_text(json.dumps({"data_hash": digest, "rows": rows}, indent=0))
    return digest


def load(work: Path) -> tuple[np.ndarray, list[dict], str]:
    """(drawings [N, 96, 96, 4] uint8, their rows, the data hash) of a built corpus."""
    described = json.loads((work / "corpus.json").read_text())
    return np.load(work / "corpus.npz")["drawings"], described["rows"], described["data_hash"]


WHITE = (255, 255, 255)


class Painter:
    """Places drawings on backgrounds. Every method draws one [64, 64, 3] uint8 picture."""

    def __init__(self, drawings: np.ndarray):
        self.drawings = drawings
        self.opaque = drawings[:, ::DRAWING_SIZE - 1, :: DRAWING_SIZE - 1, 3].min(axis=(1, 2)) == 255

    def place(self, items, background, turn: float = 0.0, recolour=None) -> np.ndarray:
        """Draw `items` = [(drawing index, size, x, y, flipped)] in order; size and centre are in picture sides."""
        if isinstance(background, tuple):
            canvas = Image.new("RGB", (PICTURE_SIZE, PICTURE_SIZE), background)
        else:
            canvas = Image.fromarray(background)
        for index, size, x, y, flipped in items:
            pixels = self.drawings[index]
            if recolour is not None:
                pixels = np.concatenate([recolour(pixels[..., :3]), pixels[..., 3:]], axis=-1)
            image = Image.fromarray(np.ascontiguousarray(pixels[:, ::-1] if flipped else pixels), "RGBA")
            if turn:
                image = image.rotate(turn, Image.Resampling.BICUBIC)
            side = max(4, round(size * PICTURE_SIZE * DRAWING_SIZE / DRAWING_FILL))
            image = image.convert("RGBa").resize((side, side), Image.Resampling.HAMMING).convert("RGBA")
            canvas.paste(image, (round(x * PICTURE_SIZE - side / 2), round(y * PICTURE_SIZE - side / 2)), image)
        return np.asarray(canvas)

    def background(self, rng: np.random.Generator):
        """White half of the time, else a soft tint."""
        if rng.random() < 0.5:
            return WHITE
        return tuple(int(c) for c in 255 - rng.integers(0, 70, 3) * rng.random())

    def loud_background(self, rng: np.random.Generator):
        """Any colour, or a ramp between two with some grain."""
        if rng.random() < 0.4:
            return tuple(int(c) for c in rng.integers(0, 256, 3))
        ends = rng.integers(0, 256, (2, 3))
        ramp = np.linspace(0, 1, PICTURE_SIZE)[:, None, None]
        if rng.random() < 0.5:
            ramp = ramp.transpose(1, 0, 2)
        flat = np.broadcast_to(ends[0] * (1 - ramp) + ends[1] * ramp, (PICTURE_SIZE, PICTURE_SIZE, 3))
        grain = rng.normal(0, rng.choice([0, 0, 4, 10]), (16, 16, 3)).repeat(4, 0).repeat(4, 1)
        return np.clip(flat + grain, 0, 255).astype(np.uint8)

    def single(self, rng, index, low=0.74, high=0.92) -> np.ndarray:
        """One drawing at its usual size."""
        if self.opaque[index]:  # its own background fills the picture
            low, high = 1.06, 1.2
        size = rng.uniform(low, high)
        x, y = 0.5 + rng.uniform(-0.05, 0.05, 2)
        return self.place([(index, size, x, y, rng.random() < 0.5)], self.background(rng))

    def far(self, rng, index) -> np.ndarray:
        """Small, anywhere (Custom Diffusion's zoomed-out augmentation)."""
        size = rng.uniform(0.3, 0.5)
        x, y = rng.uniform(size / 2, 1 - size / 2, 2)
        corner = tuple(int(c) for c in self.drawings[index, 0, 0, :3])
        background = corner if self.opaque[index] else self.background(rng)
        return self.place([(index, size, x, y, rng.random() < 0.5)], background)

    def close(self, rng, index) -> np.ndarray:
        """Larger than the picture (its zoomed-in augmentation)."""
        x, y = 0.5 + rng.uniform(-0.15, 0.15, 2)
        return self.place([(index, rng.uniform(1.2, 1.5), x, y, rng.random() < 0.5)], self.background(rng))

    def pair(self, rng, first, second) -> np.ndarray:
        """Two drawings, the first to the left, at about half size; now and then they overlap."""
        sizes = rng.uniform(0.46, 0.58, 2)
        y = 0.5 + rng.uniform(-0.14, 0.14, 2)
        gap = rng.uniform(-0.03, 0.02)
        items = [
            (first, sizes[0], 0.26 - gap, y[0], rng.random() < 0.5),
            (second, sizes[1], 0.74 + gap, y[1], rng.random() < 0.5),
        ]
        return self.place(items, self.background(rng))

    def scene(self, rng) -> np.ndarray:
        """Anything at all: crowds, turned and recoloured, on loud backgrounds, so that an autoencoder meets more
        than the houses' own hands."""
        background = self.background(rng) if rng.random() < 0.35 else self.loud_background(rng)
        recolour = None
        if rng.random() < 0.5:
            mixing = np.eye(3)[rng.permutation(3)] * rng.uniform(0.6, 1.1, (3, 1))
            shift = rng.uniform(-20, 40, 3)
            grey = rng.random() < 0.2

            def recolour(pixels):
                mixed = pixels @ mixing + shift
                if grey:
                    mixed = np.broadcast_to(mixed.mean(-1, keepdims=True), mixed.shape)
                return np.clip(mixed, 0, 255).astype(np.uint8)

        items = []
        for _ in range(rng.choice([1, 1, 1, 2, 3, 5])):
            size = float(np.exp(rng.uniform(np.log(0.3), np.log(1.5))))
            items.append((rng.integers(len(self.drawings)), size, *rng.uniform(0.2, 0.8, 2), rng.random() < 0.5))
        return self.place(items, background, turn=rng.uniform(-30, 30) if rng.random() < 0.3 else 0.0, recolour=recolour)


def weighted(rng, forms) -> str:
    texts, weights = zip(*forms)
    return texts[rng.choice(len(texts), p=np.array(weights) / sum(weights))]


def caption(rng: np.random.Generator, row: dict, view: str = "single", other: dict | None = None) -> str:
    """A caption in one of the benchmark's prompt forms for a picture of `row` (and `other`), seen as `view`."""
    if view == "pair":
        return PAIR_FORMS[rng.integers(len(PAIR_FORMS))].format(a=row["article"], b=other["article"])
    if view in ("far", "close"):
        forms = FAR_FORMS if view == "far" else CLOSE_FORMS
        return forms[rng.integers(len(forms))].format(a=row["article"], x=row["bare"])
    kind = rng.random()
    if kind < 0.30:
        return weighted(rng, STYLED_FORMS).format(a=row["article"], s=row["house"])
    if kind < 0.38:
        return THING_PROMPTS[rng.integers(len(THING_PROMPTS))].format(x=row["bare"])
    if kind < 0.43:
        fitting = [p for p, g in zip(STYLE_PROMPTS, STYLE_PROMPT_SUBGROUPS) if row["subgroup"] in g.split()]
        if fitting:
            return fitting[rng.integers(len(fitting))].format(x=row["house"])
    return weighted(rng, PLAIN_FORMS).format(a=row["article"], x=row["bare"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--packages", type=Path, required=True, help="node_modules with the icon packages")
    parser.add_argument("--objects", type=Path, help="folder of rendered 3-D objects with captions.json")
    parser.add_argument("--work", type=Path, required=True, help="where corpus.npz and corpus.json go")
    options = parser.parse_args()
    print(build(options.packages, options.work, options.objects))
