"""Names of options: short English nouns for the natural style, pairs of consonants for the compact style."""

from importlib.resources import files
from itertools import permutations

# Each noun is one token after a space in the tokenizer of SmolLM2, and no noun is part of another.
WORDS = tuple(files(__package__).joinpath("words.txt").read_text(encoding="utf-8").split())
CODES = tuple("".join(pair) for pair in permutations("bcdfghjklmnpqrstvwxz", 2))
