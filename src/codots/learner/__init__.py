"""Learners: samples with advantages in; better weights out."""
