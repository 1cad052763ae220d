"""Rollouts: the life of an agent in one world, its records, and the contexts it is given."""
