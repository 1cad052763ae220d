"""Names of options: a letter and two digits for the natural style, a letter and a digit for the compact style."""

# Copying one of several words at random is hard for a small model, which names a related word instead, or mixes the
# letters of two. In a label, the first letter identifies the option, and what follows a letter is never a letter.
LABELS = tuple(f"{letter}{number}" for letter in "bcdefghjkmnpqrstuvwxyz" for number in range(10, 100))
# The tiny tokenizer reads the cells of a board, such as b4, as one token, which a model cannot copy before it has seen
# it in training. No code is such a cell.
CODES = tuple(f"{letter}{digit}" for letter in "hjkmnpqrstuvwxyz" for digit in range(10))
