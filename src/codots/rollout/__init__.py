"""Rollouts: the life of an agent in one world, its records, and whose contexts it is given."""
