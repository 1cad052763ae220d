"""Evaluation: curves by position, controls on the same packs, intervals."""
