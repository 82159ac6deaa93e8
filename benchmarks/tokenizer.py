"""Captions to tokens, compared with transformers: CLIP's published vocabulary, 10,000 captions of many scripts.

    pip download --no-deps open-clip-torch
    python benchmarks/tokenizer.py open_clip_torch-*.whl [--captions 10000]

The wheel of open-clip-torch holds OpenAI's vocabulary, which CLIP's own repository has in another form. Captions are
made of Unicode's letters, by script, and of emoji, marks, spaces and contractions. Some are far too long for the model.
"""

import argparse
import gzip
import json
import random
import sys
import tempfile
import unicodedata
import zipfile
from pathlib import Path

from transformers import CLIPTokenizer

from tastemaker import CLIP_VIT_L14
from tastemaker.testing import write_tokenizer

VOCABULARY = "open_clip/bpe_simple_vocab_16e6.txt.gz"
MERGES = 49152 - 256 - 2
ODD = ("don't", "I'LL", "100%", "3.14", "½", "ﬁ", "İ", "ß", "e\u0301", "\u200d", "\ufe0f", "\t", "  ", "\u3000", "\x00")
ODD += ("&amp;", "<b>", "<|endoftext|>", "<|startoftext|>", "#tag", "http://x.y/z?a=b", "_", "…", "👩\u200d👩\u200d👧")
LENGTHS = (1, 3, 8, 15, 40, 120)
SCRIPT_SHARE, EMOJI_SHARE = 0.7, 0.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--captions", type=int, default=10_000)
    arguments = parser.parse_args()
    lines = gzip.decompress(zipfile.ZipFile(arguments.wheel).read(VOCABULARY)).decode().split("\n")
    merges = [(first, second) for first, second in (line.split() for line in lines[1 : MERGES + 1])]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.json")
        write_tokenizer(path, merges)
        ours = CLIP_VIT_L14.text.tokenizer.load(path)
        Path(folder, "vocab.json").write_text(json.dumps(ours.get_vocab()))
        Path(folder, "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), "utf-8")
        theirs = CLIPTokenizer(vocab=f"{folder}/vocab.json", merges=f"{folder}/merges.txt")
    captions = make_captions(arguments.captions)
    tokens = [ours.encode(caption).ids for caption in captions]
    others = [c for c, found in zip(captions, tokens, strict=True) if found != theirs(c)["input_ids"]]
    print(f"{len(ours.get_vocab()):,} tokens; captions of {min(map(len, tokens))} to {max(map(len, tokens))} of them")
    print(f"{len(others)} of {len(captions):,} captions differ from transformers", *map(repr, others[:5]), sep="\n")
    sys.exit(bool(others))


def make_captions(number: int) -> list[str]:
    """Return captions: each has words of a few scripts, emoji, and what is odd."""
    rng = random.Random(0)
    letters: dict[str, list[str]] = {}
    emoji = []
    for letter in map(chr, range(0x110000)):
        kind = unicodedata.category(letter)
        if kind[0] in "LMN":
            letters.setdefault(unicodedata.name(letter, "NONE").split()[0], []).append(letter)
        elif kind == "So":
            emoji.append(letter)

    def word() -> str:
        chance = rng.random()
        if chance < SCRIPT_SHARE:
            return "".join(rng.choices(letters[rng.choice(list(letters))], k=rng.randint(1, 10)))
        return "".join(rng.choices(emoji, k=2)) if chance < SCRIPT_SHARE + EMOJI_SHARE else rng.choice(ODD)

    return [rng.choice((" ", "  ", "\n")).join(word() for _ in range(rng.choice(LENGTHS))) for _ in range(number)]


if __name__ == "__main__":
    main()
