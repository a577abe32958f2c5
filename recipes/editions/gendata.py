"""Build the mini edition of GenDataAttribution: the tiny model customized on known exemplars, and what it then makes.

Exemplars come from the mini editions of Artchive and CustomConcept101. As in the public set, an object has a single
exemplar (imagenet), a style a set of them (artchive) or four (bamfg). Models of the lists train and val are made from the
concepts that those editions hold for development, models of the list test from the others; no concept stands in both.

Each model generates four pictures by each of two families of prompts. Distractors are pictures of other test concepts,
and renders of objects that the tiny model has seen when it was trained. Needs the package itself (attribench), whose
customization is the one that the protocol's preset repeats; finished models are kept in the work folder.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

import customconcept101
from composition import PICTURE_SIZE
from edition_files import ImageRow, read_table, save_picture, write_rows
from object_renderer import seeded

HERE = Path(__file__).parent
ASSETS = HERE.parents[1] / "attribench" / "assets"
MODIFIER = "<new1>"
STYLE, STYLE_PROMPT = "art", f"A picture in the style of {MODIFIER} art"
FAMILIES = {"object": ("gpt", "media"), "style": ("gpt", "object")}
PROMPTS_PER_FAMILY = 4
SAMPLING_STEPS, GUIDANCE = 20, 3.5
CUSTOMIZATION = {
    "epochs": 60, "batch_size": 4, "optimizer": "adam", "learning_rate": 1e-3, "modifier_learning_rate": 5e-3,
    "augmentation": "none", "modifier_init": "rare",
}  # fmt: skip

VAL_OBJECTS, VAL_STYLES = 4, ("webpixels-miniavs",)
SEEN_WORDS = ("bottle", "chair", "cup", "sofa")
"""Class words of test objects that objects of the list train have too; as many others have new ones."""
DEV_SETS = (("artchive", 4), ("bamfg", 4))
"""Made from each style of the dev split, one after the other."""
TEST_STYLES = {"yves-guillou": 6, "google-noto-v1": 8, "linda-kim": 6, "dicebear-thumbs": 6}
TEST_GROUPS = ("juliane-krug", "dicebear-pixel-art", "davis-uche-fun-emoji", "vijay-verma-croodles")
DISTRACTORS_OF_OBJECT, DISTRACTORS_OF_STYLE, DISTRACTORS_OF_CORPUS = 3, 12, 4

SHEET_EXEMPLARS, SHEET_LABEL = 4, 170


@dataclass(frozen=True)
class Model:
    """One model to be customized. `exemplars` are rows of the images.csv of the edition that they come from."""

    split: str
    case: str
    part: str
    class_id: str
    class_word: str
    exemplars: tuple[dict[str, str], ...]

    @property
    def kind(self) -> str:
        return "style" if self.class_word == STYLE else "object"

    @property
    def noun(self) -> str:
        """What takes the place of {} in a prompt."""
        return f"{MODIFIER} {self.class_word}"

    @property
    def training_prompt(self) -> str:
        return STYLE_PROMPT if self.kind == "style" else self.noun

    @property
    def id(self) -> str:
        """As the adapter names it; what its noise belongs to."""
        return f"{self.part}/{self.class_id}"

    def file(self, number: int) -> str:
        return f"exemplar/{self.part}/images/{self.class_id}/{number:02d}.webp"

    def prompts(self, family: str) -> list[str]:
        """Four of the family's prompts, drawn by seed, in the order of their file."""
        lines = (HERE / "gendata_prompts" / f"{self.kind}-{family}.txt").read_text(encoding="utf-8").splitlines()
        chosen = seeded("prompts", self.id, family).permutation(len(lines))[:PROMPTS_PER_FAMILY]
        return [lines[i].format(self.noun) for i in sorted(chosen)]

    def made(self, family: str, number: int) -> str:
        return f"synth/{self.part}/{family}/{self.class_id}/samples/{number:05d}.webp"


# ------------------------------------------------------------------------------------- composition


def models() -> list[Model]:
    """All models, in the order of the lists."""
    objects, styles = _concepts("customconcept101"), _concepts("artchive")
    return [*_dev_objects(objects), *_dev_styles(styles), *_test_objects(objects), *_test_styles(styles)]


def _concepts(edition: str) -> dict[str, dict]:
    """Of a mini edition: {concept: its row of concepts.csv and, under "images", its rows of images.csv}."""
    folder = ASSETS / "editions" / edition
    found = {row["concept"]: row | {"images": []} for row in read_table(folder / "concepts.csv")}
    for row in read_table(folder / "images.csv"):
        found[row["concept"]]["images"].append(row | {"path": str(folder / row["file"])})
    return found


def _object(concept: dict, view: int, split: str, case: str) -> Model:
    name = concept["concept"]
    return Model(split, case, "imagenet", f"{name}_{view:04d}", concept["class_word"], (concept["images"][view],))


def _dev_objects(objects: dict[str, dict]) -> Iterator[Model]:
    dev = sorted(name for name, concept in objects.items() if concept["split"] == "dev")
    order = [dev[i] for i in seeded("val objects").permutation(len(dev))]
    for name in dev:
        split = "val" if name in order[:VAL_OBJECTS] else "train"
        view = int(seeded("views", name).integers(len(objects[name]["images"])))
        yield _object(objects[name], view, split, "imagenet")


def _dev_styles(styles: dict[str, dict]) -> Iterator[Model]:
    for name, style in sorted(styles.items()):
        if style["split"] != "dev":
            continue
        start = 0
        for part, size in DEV_SETS:
            class_id = name if part == "artchive" else f"{name}_0"
            split = "val" if name in VAL_STYLES else "train"
            yield Model(split, part, part, class_id, STYLE, tuple(style["images"][start : start + size]))
            start += size


def _test_objects(objects: dict[str, dict]) -> Iterator[Model]:
    test = [concept for _, concept in sorted(objects.items()) if concept["split"] == "test"]
    first = {concept["class_word"]: concept for concept in reversed(test)}
    dev_words = {concept["class_word"] for concept in objects.values() if concept["split"] == "dev"}
    new = sorted(set(first) - dev_words)
    chosen = sorted(new[i] for i in seeded("new words").permutation(len(new))[: len(SEEN_WORDS)])
    for case, words in (("observed_imagenet", SEEN_WORDS), ("unobserved_imagenet", chosen)):
        for word in words:
            concept = first[word]
            view = int(seeded("views", concept["concept"]).integers(len(concept["images"])))
            yield _object(concept, view, "test", case)


def _test_styles(styles: dict[str, dict]) -> Iterator[Model]:
    for name, size in TEST_STYLES.items():
        yield Model("test", "artchive", "artchive", name, STYLE, tuple(styles[name]["images"][:size]))
    for name in TEST_GROUPS:
        yield Model("test", "bamfg", "bamfg", f"{name}_0", STYLE, tuple(styles[name]["images"][:4]))


# --------------------------------------------------------------------------------------- building


def build(work: Path, out: Path) -> None:
    """Write the whole edition into `out`, an empty folder."""
    found = models()
    rows, prompts = [], {}
    for model in found:
        for number, row in enumerate(model.exemplars):
            (out / model.file(number)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(row["path"], out / model.file(number))
            rows.append(_row(model.file(number), row, row["caption"], row["changes"]))
    for model, family, number, prompt, picture in _made(found, out, work):
        file = model.made(family, number)
        save_picture(picture, out / file)
        prompts[file] = prompt
        plain = prompt.replace(f"{MODIFIER} ", "")
        rows.append(_row(file, model.exemplars[0], plain, "made by the tiny model after a customization on pictures"))
    rows += _distractors(found, work, out)
    write_rows(out / "images.csv", rows)
    _write_json(out / "path_to_prompts.json", dict(sorted(prompts.items())))
    (out / "json").mkdir()
    for split, case in dict.fromkeys((model.split, model.case) for model in found):
        entries = [_entry(model) for model in found if (model.split, model.case) == (split, case)]
        _write_json(out / "json" / f"{split}_{case}.json", entries)


def _entry(model: Model) -> dict:
    """The model as the public lists write it."""
    families = FAMILIES[model.kind]
    return {
        "exemplar": [f"dataset/{model.file(number)}" for number in range(len(model.exemplars))],
        "synth": {f: [f"dataset/{model.made(f, number)}" for number in range(PROMPTS_PER_FAMILY)] for f in families},
        "class_id": model.class_id,
        "category": model.class_word if model.kind == "object" else None,
    }


def _row(file: str, of: dict[str, str], caption: str, changes: str) -> ImageRow:
    return ImageRow(file, of["concept"], caption, of["source"], of["author"], of["licence"], changes)


def _distractors(found: Sequence[Model], work: Path, out: Path) -> list[ImageRow]:
    """Pictures of the test concepts that no model was made from, and of the tiny model's own training objects."""
    used = {row["concept"] for model in found for row in model.exemplars}
    taken = []
    for edition, count in (("customconcept101", DISTRACTORS_OF_OBJECT), ("artchive", DISTRACTORS_OF_STYLE)):
        for name, concept in sorted(_concepts(edition).items()):
            if concept["split"] == "test" and name not in used:
                chosen = seeded("distractors", name).permutation(len(concept["images"]))[:count]
                taken += [(concept["images"][i], Path(concept["images"][i]["path"])) for i in sorted(chosen)]
    taken += _corpus_objects(work)
    rows = []
    for number, place in enumerate(seeded("distractors").permutation(len(taken))):  # so that a name says nothing
        row, source = taken[place]
        file = f"laion_subset/{number:06d}.webp"
        with Image.open(source) as picture:
            save_picture(picture.resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.LANCZOS), out / file)
        rows.append(_row(file, row, row["caption"], row["changes"]))
    return rows


def _corpus_objects(work: Path) -> list[tuple[dict[str, str], Path]]:
    folder = work / "gendata" / "corpus-objects"
    if not (folder / "captions.json").is_file():
        customconcept101.write_distractors(work, folder)
    library = customconcept101.furniture_library(work)
    catalogue = customconcept101.furniture_catalogue(library)
    found = []
    for object_row in read_table(HERE / "objects.csv"):
        if object_row["use"] != "corpus":
            continue
        model = object_row["model"]
        row = {
            "concept": f"corpus_{model}",
            "caption": object_row["caption"],
            "source": f"{customconcept101.PACKAGE}: {model}",
            "author": customconcept101.author_of(library, catalogue[model]),
            "licence": "CC0-1.0",
            "changes": customconcept101.CHANGES,
        }
        found += [(row, folder / f"{model}_{view}.png") for view in range(DISTRACTORS_OF_CORPUS)]
    return found


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


# --------------------------------------------------------------------- customizing and generating


def _made(found: Sequence[Model], out: Path, work: Path) -> Iterator[tuple[Model, str, int, str, Image.Image]]:
    """(model, family, number, prompt, picture) of everything that the models make."""
    import torch
    from attribench.diffusion import noise
    from attribench.diffusion.model import DiffusionModel

    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.enable_flash_sdp(False)  # of processors too: its backward takes half of a step
    diffusion = DiffusionModel.load(ASSETS / "tiny")
    diffusion.add_modifiers({MODIFIER: None})
    folders = _customized(diffusion, found, out, work)
    for model in found:
        asked = [(family, number, prompt) for family in FAMILIES[model.kind]
                 for number, prompt in enumerate(model.prompts(family))]  # fmt: skip
        folder = folders[model.id]
        if not (folder / f"{len(asked) - 1}.png").is_file():
            diffusion.load_trained(torch.load(folder / "weights.pt", weights_only=True))
            latents = torch.stack(
                [noise.normal(diffusion.latent_shape, "gendata edition", model.id, prompt) for _, _, prompt in asked]
            )
            prompts = [prompt for _, _, prompt in asked]
            pictures = diffusion.sample(prompts, latents, steps=SAMPLING_STEPS, guidance=GUIDANCE)
            for place, picture in enumerate(pictures):
                picture.save(folder / f"{place}.png")
        for place, (family, number, prompt) in enumerate(asked):
            with Image.open(folder / f"{place}.png") as picture:
                yield model, family, number, prompt, picture.convert("RGB")


def _customized(diffusion, found: Sequence[Model], out: Path, work: Path) -> dict[str, Path]:
    """The folder in `work` with each model's weights.pt; those that are not there are customized, many in one pass."""
    import torch
    from attribench.diffusion.config import CustomizationConfig
    from attribench.diffusion.fingerprint import fingerprint
    from attribench.diffusion.stacked import StackedJob, customize_in_turn
    from attribench.data.pictures import read_rgb
    from attribench.data import TrainImage
    from attribench.protocols.exemplar_studies import customization_seed

    base, folders, jobs = fingerprint(ASSETS / "tiny"), {}, {}
    for model in found:
        images = tuple(
            TrainImage(id=model.file(number), prompt=model.training_prompt, caption="", concept=model.id)
            for number in range(len(model.exemplars))
        )
        known = [base, CUSTOMIZATION, SAMPLING_STEPS, GUIDANCE, model.id, model.training_prompt,
                 [model.prompts(family) for family in FAMILIES[model.kind]],
                 [hashlib.sha256((out / image.id).read_bytes()).hexdigest() for image in images]]  # fmt: skip
        key = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:20]
        folders[model.id] = work / "gendata" / "models" / key
        if not (folders[model.id] / "weights.pt").is_file():
            jobs[model.id] = StackedJob(images, customization_seed(model.id, 0))
    trained = customize_in_turn(
        diffusion, list(jobs.values()), lambda image_id: read_rgb(out, image_id), CustomizationConfig(**CUSTOMIZATION),
        report=lambda done, total, loss: print(f"\rcustomizing: step {done} of {total}", end="", flush=True),
    )  # fmt: skip
    ids = list(jobs)
    for number, customized in trained:
        folder = folders[ids[number]]
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(customized.weights, folder / "weights.part")
        (folder / "weights.part").rename(folder / "weights.pt")
    return folders


# ----------------------------------------------------------------------------------- what is shown


def sheet(edition: Path, path: Path) -> None:
    """The test models, one a row in two columns: the first exemplars to the left, all that was made to the right."""
    found = [model for model in models() if model.split == "test"]
    cell, gap = PICTURE_SIZE + 2, 12
    width = SHEET_LABEL + (SHEET_EXEMPLARS + 2 * PROMPTS_PER_FAMILY) * cell + 2 * gap
    rows = -(-len(found) // 2)
    canvas = Image.new("RGB", (2 * width, rows * cell + 16), "white")
    draw = ImageDraw.Draw(canvas)
    for index, model in enumerate(found):
        left, top = index // rows * width, index % rows * cell + 16
        draw.text((left + 4, top + cell // 2 - 12), f"{model.class_id}\n{len(model.exemplars)} exemplars", fill="black")
        files = [model.file(number) for number in range(min(SHEET_EXEMPLARS, len(model.exemplars)))]
        for place, file in enumerate(files):
            _paste(canvas, edition / file, left + SHEET_LABEL + place * cell, top)
        start = left + SHEET_LABEL + SHEET_EXEMPLARS * cell + gap
        for family in FAMILIES[model.kind]:
            for number in range(PROMPTS_PER_FAMILY):
                _paste(canvas, edition / model.made(family, number), start + number * cell, top)
            start += PROMPTS_PER_FAMILY * cell
    for left in (0, width):
        draw.text((left + SHEET_LABEL, 2), "exemplars", fill="black")
        made = "made from them: four prompts of family gpt, four of media (objects) or object (styles)"
        draw.text((left + SHEET_LABEL + SHEET_EXEMPLARS * cell + gap, 2), made, fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, format="WEBP", quality=60, method=6)


def _paste(canvas: Image.Image, file: Path, left: int, top: int) -> None:
    with Image.open(file) as picture:
        canvas.paste(picture, (left, top))
