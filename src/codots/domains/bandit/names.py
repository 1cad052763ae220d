"""Names of options: a letter and two digits for the natural style, a letter and a digit for the compact style."""

# Copying one of several words at random is hard for a small model, which names a related word instead, or mixes the
# letters of two. In a label, the first letter identifies the option, and what follows a letter is never a letter.
LABELS = tuple(f"{letter}{number}" for letter in "bcdefghjkmnpqrstuvwxyz" for number in range(10, 100))
# The tiny tokenizer has no words with capital letters. So a code has the same tokens with and without a space before
# it, and a model can copy one that it has not seen in training.
CODES = tuple(f"{letter}{digit}" for letter in "HJKMNPQRSTUVWXYZ" for digit in range(10))
