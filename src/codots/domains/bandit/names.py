"""Names of options: labels for the natural style, pairs of consonants for the compact style."""

from itertools import permutations

# Copying one of several words at random is hard for a small language model, which names a related word instead. A label
# is one of few letters, and then the digits that followed this letter.
LABELS = tuple(f"{letter}{number}" for letter in "bcdefghjkmnpqrstuvwxyz" for number in range(10, 100))
CODES = tuple("".join(pair) for pair in permutations("bcdfghjklmnpqrstvwxz", 2))
