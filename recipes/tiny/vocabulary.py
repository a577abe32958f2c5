"""The vocabulary of the tiny models: CLIP's byte-pair encoding, learned from the captions and plain picture words.

    python recipes/tiny/vocabulary.py --packages node_modules --work DIR

writes `DIR/tokenizer`, which `CLIPTokenizer.from_pretrained` reads.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from corpus import STYLE_PROMPTS, THING_PROMPTS, caption, load

VOCABULARY_SIZE = 4096
CONTEXT_LENGTH = 24
SEED = 2
START, END = "<|startoftext|>", "<|endoftext|>"
# Words of the benchmark's other prompts (Custom Diffusion's, and the captions of the editions).
MORE_WORDS = """
    photo of a an the painting picture drawing rendering sketch portrait cartoon avatar character face head person
    woman man with and next to in on at under near behind style together far away very small zoomed in close up
    glasses beard hair hat earrings smile mouth eyes eyebrows nose short long curly straight red blue green yellow
    orange purple pink black white grey brown beige golden wooden metal cute old new modern vintage retro abstract
    beach jungle snow street forest mountain city garden table chair floor grass sky water river night sunset
    lorelei notionists open peeps pixel art thumbs adventurer croodles micah miniavs personas big ears toon dylan fun
    emoji noto twemoji fluent render rendered fxemoji artist designer watercolor oil pencil crayon puppy wearing
    front side back top view image s
""".split()


def training_texts(packages: Path, work: Path):
    """Yield captions in every prompt form, all prompts, and emojibase's labels and tags."""
    _, rows, _ = load(work)
    rng = np.random.default_rng(SEED)
    for row in rows:
        for view in ("single", "single", "single", "far", "close", "pair"):
            yield caption(rng, row, view, rows[rng.integers(len(rows))])
    for _ in range(30):
        yield from THING_PROMPTS + STYLE_PROMPTS
        yield " ".join(MORE_WORDS)
    for emoji in json.loads((packages / "emojibase-data/en/data.json").read_text()):
        yield emoji["label"]
        yield " ".join(emoji.get("tags", []))


def train(packages: Path, work: Path) -> CLIPTokenizer:
    """Learn the merges with CLIP's own normaliser and word splitter, and give them to CLIPTokenizer."""
    shell = CLIPTokenizer().backend_tokenizer
    alphabet = sorted(ByteLevel.alphabet())
    trainer = BpeTrainer(vocab_size=VOCABULARY_SIZE - 2, min_frequency=2, end_of_word_suffix="</w>",
                         initial_alphabet=alphabet, show_progress=False)  # fmt: skip
    shell.train_from_iterator(training_texts(packages, work), trainer)
    learned = json.loads(shell.to_str())["model"]
    # Every byte can end a word, so that no text is unknown.
    tokens = list(dict.fromkeys([*alphabet, *(f"{letter}</w>" for letter in alphabet), *learned["vocab"]]))
    tokens = [token for token in tokens if token not in (START, END)]
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    merges = [tuple(merge) for merge in learned["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT_LENGTH)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--packages", type=Path, required=True, help="node_modules with emojibase-data")
    parser.add_argument("--work", type=Path, required=True, help="folder with corpus.json")
    options = parser.parse_args()
    tokenizer = train(options.packages, options.work)
    tokenizer.save_pretrained(options.work / "tokenizer")
    print(len(tokenizer), "tokens")
