"""Evaluation: reward by position, control arms on the same packs, and 95% intervals."""
